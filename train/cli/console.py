"""Parts that all commands share: lines and progress bars, signals, and exit codes."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, get_args

import click
from tqdm import tqdm

from shards.output import OutputError, write_text
from train.config import ConfigError, Device
from train.stop import Stopped

HELP = {"help_option_names": ["-h", "--help"]}
version_option = click.version_option(package_name="asymmetric-mtl")
device_option = click.option(
    "--device",
    type=click.Choice(get_args(Device)),
    default="auto",
    show_default=True,
    help="auto uses a GPU if there is one.",
)
STOPPED = 75  # exit code: stopped by a signal with the work kept
_OPTION_COLUMN = 25  # characters before what an option does
_BAR = "{desc} |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
_LINE_EVERY_S = 10.0  # in a batch log, where there is no bar


class Grouped(click.Command):
    """A command whose many options come under headings, a line each where it can be."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        """`groups`: heading -> names of options as they are typed; what is in none comes last."""
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The headings, with columns that stand under each other."""
        left = {parameter.opts[-1]: parameter.get_help_record(ctx) for parameter in self.get_params(ctx)}
        for heading, names in self.groups.items():
            self._write_group(formatter, heading, [left.pop(name) for name in names])
        if left:
            self._write_group(formatter, "Other", list(left.values()))

    def _write_group(
        self, formatter: click.HelpFormatter, heading: str, records: Sequence[tuple[str, str] | None]
    ) -> None:
        formatter.write(f"\n{heading}:\n")
        for names, text in filter(None, records):
            lines = textwrap.wrap(text, formatter.width - 2 - _OPTION_COLUMN)
            if len(names) >= _OPTION_COLUMN:
                lines.insert(0, "")
            indent = "\n" + " " * (2 + _OPTION_COLUMN)
            formatter.write(f"  {names:<{_OPTION_COLUMN}}{indent.join(lines)}\n")


class Console:
    """Lines and, on a terminal, a progress bar; in a batch log a line every ten seconds. `quiet`: no output."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._what = ""
        self._pace = ("", 0.0, 0)  # of a log: the progress that is shown, its start time, and the count then
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def say(self, line: str) -> None:
        """Print a line."""
        self.close()
        if not self._quiet:
            write_text(line + "\n")

    def progress(self, what: str, done: int, total: int, facts: Callable[[], Sequence[str]]) -> None:
        """Show the progress of `what`; a bar has room for the first of the facts, a log for all."""
        if self._quiet:
            return
        if sys.stderr is not None and sys.stderr.isatty():
            self._move_bar(what, done, total, facts)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            parts = (f"{time.strftime('%H:%M:%S')} {what}: {done}/{total}", self._left(what, done, total), *facts())
            write_text(" | ".join(part for part in parts if part) + "\n")

    def _left(self, what: str, done: int, total: int) -> str:
        """Return the time left, from the pace since the first such line of `what`."""
        now = time.monotonic()
        if what != self._pace[0]:
            self._pace = (what, now, done)
            return ""
        _, since, before = self._pace
        return f"{duration((total - done) * (now - since) / max(1, done - before))} left"

    def _move_bar(self, what: str, done: int, total: int, facts: Callable[[], Sequence[str]]) -> None:
        if self._bar is None or what != self._what:
            self.close()
            self._what = what
            self._bar = tqdm(total=total, initial=done, desc=what, dynamic_ncols=True, leave=False, bar_format=_BAR)
        self._bar.update(done - self._bar.n)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + 1.0
            self._bar.set_postfix_str(next(iter(facts()), ""), refresh=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def duration(seconds: float) -> str:
    """Return `1:02:03`, or `2:03` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGTERM, SIGINT and SIGUSR1 ask for a stop; a second Ctrl-C ends the process at once."""
    asked = [False]

    def ask(number: int, frame: FrameType | None) -> None:
        asked[0] = True
        if number == signal.SIGINT:  # batch systems repeat the others while the checkpoint is being written
            signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        yield lambda: asked[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def exit_codes(command: str, kept: str) -> Iterator[None]:
    """Turn an error into one line and an exit code: 1 the work failed, 2 wrong usage, 75 stopped."""
    try:
        yield
    except ConfigError as error:
        end(2, f"{command}: {error}")
    except Stopped:
        end(STOPPED, f"{command}: stopped by a signal; {kept}")
    except RuntimeError as error:
        kind = type(error)
        if kind.__name__ == "OutOfMemoryError":  # torch's, named so that this module need not load torch
            end(
                1,
                f"{command}: the GPU's memory is not enough: lower --micro-batch (training) or --batch-size "
                "(validation) first, which change no result; else --width, --precision bf16, or smaller samples",
            )
        if kind.__module__ not in ("torch._dynamo.exc", "torch._inductor.exc"):
            raise
        end(1, f"{command}: torch.compile failed, leave out --compile: {str(error).strip().splitlines()[0]}")
    except (ValueError, OSError) as error:
        end(1, f"{command}: {' '.join(str(error).split())}")


def end(code: int, line: str) -> NoReturn:
    """Print a line on standard error and exit."""
    with suppress(OutputError):
        write_text(line + "\n", err=True)
    sys.exit(code)
