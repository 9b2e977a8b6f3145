"""How a request to stop travels from a signal to the command that was asked."""

from __future__ import annotations


class Stopped(Exception):
    """A signal asked the run to stop; the work so far is kept."""
