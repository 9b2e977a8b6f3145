"""What a sample is on disk: its writer, reader and manifest, the geometry and the drawing."""
