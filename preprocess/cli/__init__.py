"""`a2d2-prep` from its first moment: signals are answered while libraries still load, on a cluster for many seconds."""

from __future__ import annotations

import sys

from preprocess.stop import EXIT_STOPPED, catch_signals


def main() -> None:
    """The console script."""
    catch_signals()
    try:
        from preprocess.cli.commands import main as commands
    except KeyboardInterrupt:
        sys.stderr.write("a2d2-prep: stopped before anything was begun\n")
        sys.exit(EXIT_STOPPED)
    commands(prog_name="a2d2-prep")
