"""A2D2 tars and folders to shards."""
