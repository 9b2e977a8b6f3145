"""The output of the commands: progress bars and lines, errors in one line, exit codes."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any

import click
from tqdm import tqdm

from preprocess.stop import EXIT_STOPPED, catch_signals
from shards.output import write_text

_PLAIN_EVERY_S = 10.0
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ProgressBar:
    """A bar on a terminal, a line every 10 s in a log."""

    def __init__(self, total: int, what: str) -> None:
        self._bar = tqdm(total=total, unit=what, disable=not (sys.stderr and sys.stderr.isatty()), smoothing=0.05)
        self._what, self._total, self._done = what, total, 0
        self._start = self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        """So many more are done."""
        self._bar.update(done)
        self._done += done
        now = time.monotonic()
        if self._bar.disable and self._done and now - self._said >= _PLAIN_EVERY_S:
            self._said = now
            rate = self._done / (now - self._start)
            minutes, seconds = divmod(round((self._total - self._done) / rate), 60)
            self.say(f"{self._done}/{self._total} {self._what} ({rate:.1f}/s, {minutes}:{seconds:02d} min left)")

    def say(self, line: str) -> None:
        """A line beside the bar."""
        if self._bar.disable:
            write_text(f"{line}\n", err=True)
        else:
            tqdm.write(line, file=sys.stderr)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class Commands(click.Group):
    """One clear line and the contract's exit code, never a traceback, for what users and their files do wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        catch_signals()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever read the lines has seen enough; click ends quietly
        except (ValueError, OSError) as error:
            write_text(f"a2d2-prep: {one_line(error)}\n", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            kept = (
                "finished shards are kept, the same command goes on"
                if ctx.invoked_subcommand == "shard"
                else "nothing is kept"
            )
            write_text(f"a2d2-prep: stopped; {kept}\n", err=True)
            ctx.exit(EXIT_STOPPED)


def one_line(error: ValueError | OSError) -> str:
    """An error as one line for people: the file and the reason."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return f"{error.strerror}: finished shards are kept; make room, and the same command goes on"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).splitlines())
