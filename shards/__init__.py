"""Samples on disk: their format, reading, writing, checking and drawing, used by preparation and training alike.

In come arrays and plain values, or folders of shards; out go tars with their indexes and manifest, or arrays. The
package loads no torch.
"""
