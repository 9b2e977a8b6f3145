"""Samples on disk: their format, writer, reader and manifest, and the geometry and drawing that both sides share."""
