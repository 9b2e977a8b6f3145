"""`a2d2-prep` from its first moment: signals are answered while libraries still load, on a cluster for many seconds."""

from __future__ import annotations

import os
import sys

from preprocess.stop import EXIT_STOPPED, catch_signals
from shards.output import write_text


def _open_closed_streams() -> None:
    """Open those of the standard streams that are closed, to nowhere.

    The next file would get the number of the closed one, and what libraries and workers write there would land in it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def main() -> None:
    """The console script."""
    catch_signals()
    _open_closed_streams()
    try:
        from preprocess.cli.commands import main as commands
    except KeyboardInterrupt:
        write_text("a2d2-prep: stopped before anything was begun\n", err=True)
        sys.exit(EXIT_STOPPED)
    commands(prog_name="a2d2-prep")
