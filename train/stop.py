"""The exception that ends a command after a signal asked it to stop."""

from __future__ import annotations


class Stopped(Exception):
    """A signal asked the run to stop; the work so far is kept."""
