"""Parts that all commands share: lines and progress bars, signals, and exit codes."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, get_args

import click
from tqdm import tqdm

from train.config import ConfigError, Device
from train.stop import Stopped

HELP = {"help_option_names": ["-h", "--help"]}
device_option = click.option(
    "--device", type=click.Choice(get_args(Device)), default="auto", show_default=True, help="auto: a GPU, if any."
)
STOPPED = 75  # exit code: stopped by a signal with the work kept
_OPTION_COLUMN = 25  # characters before what an option does
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


def say(line: str) -> None:
    """Print a line. Raises ValueError where standard output cannot be written, such as on a full disk."""
    try:
        click.echo(line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ValueError(f"standard output cannot be written: {error.strerror}") from error


class Console:
    """Lines and, on a terminal, a bar; in a batch log a line every ten seconds instead. `quiet`: nothing."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bar: Any = None
        self._what = ""
        self._paced = ("", 0.0, 0)  # in a log: of what, since when, with how many done
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def say(self, line: str) -> None:
        """A line to keep."""
        self.close()
        if not self._quiet:
            click.echo(line)

    def progress(self, what: str, done: int, total: int, facts: Callable[[], str]) -> None:
        """Show the progress of `what`."""
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._move_bar(what, done, total, facts)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            click.echo(" | ".join(part for part in (f"{what}: {done}/{total}", self._left(what, done, total), facts())
                                  if part))  # fmt: skip

    def _left(self, what: str, done: int, total: int) -> str:
        """The time left, from the pace since the first such line of `what`."""
        now = time.monotonic()
        if what != self._paced[0]:
            self._paced = (what, now, done)
            return ""
        _, since, before = self._paced
        minutes, seconds = divmod(round((total - done) * (now - since) / max(1, done - before)), 60)
        return f"{minutes}:{seconds:02d} min left"

    def _move_bar(self, what: str, done: int, total: int, facts: Callable[[], str]) -> None:
        if self._bar is None or what != self._what:
            self.close()
            self._what = what
            self._bar = tqdm(total=total, initial=done, desc=what, dynamic_ncols=True, leave=False)
        self._bar.update(done - self._bar.n)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + 1.0
            self._bar.set_postfix_str(facts(), refresh=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


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
    except BrokenPipeError:
        raise  # nobody reads the output any more: click ends the command without a word
    except (ValueError, OSError) as error:
        end(1, f"{command}: {' '.join(str(error).split())}")


def end(code: int, line: str) -> NoReturn:
    click.echo(line, err=True)
    sys.exit(code)
