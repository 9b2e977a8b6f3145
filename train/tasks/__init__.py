"""A home for each task."""
