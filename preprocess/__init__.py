"""The preparation: it converts A2D2 into sets of shards.

In come A2D2's tars, folders extracted from them, and conversion rules; out goes a folder of shards with a manifest.
The package loads no torch.
"""
