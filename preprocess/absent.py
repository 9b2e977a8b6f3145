"""The one way to say that a label is not there."""


class Absent(Exception):
    """A label is absent for a reason that A2D2 is known to have. Unlike ValueError, which says that a file is bad."""
