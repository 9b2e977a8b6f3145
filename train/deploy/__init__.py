"""A trained network in use: images in, results in their own pixels out, and export."""
