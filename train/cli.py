"""`amtl-train` and `amtl-eval`: options, signals, lines for people, exit codes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import orjson
import torch
from tqdm import tqdm

from shards.schema import SPLITS, TASKS
from shards.writer import write_whole
from train.config import (
    DEVICES,
    MODES,
    NETWORKS,
    ORDERS,
    ConfigError,
    Document,
    RunConfig,
    build_config,
    load_document,
    merge,
)
from train.data import Stopped
from train.loop import train as train_run
from train.outcome import evaluate_checkpoint, finish, say_result
from train.run import CONFIG_FILE, Run, prepare

STOPPED = 75  # exit code: stopped by a signal with the work kept
_LINE_EVERY_S = 10.0  # in a batch log, where there is no bar


class Console:
    """Lines and, on a terminal, a bar; in a batch log a line every ten seconds instead."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""
        self._paced = ("", 0.0, 0)  # in a log: of what, since when, with how many done
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def say(self, line: str) -> None:
        """A line to keep."""
        self.close()
        click.echo(line)

    def progress(self, what: str, done: int, total: int, facts: Callable[[], str]) -> None:
        """How far `what` is."""
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
    """What ends a command becomes one line and a code: 1 the work failed, 2 wrong usage, 75 stopped."""
    try:
        yield
    except ConfigError as error:
        _end(2, f"{command}: {error}")
    except Stopped:
        _end(STOPPED, f"{command}: stopped by a signal; {kept}")
    except torch.OutOfMemoryError:
        _end(1, f"{command}: the GPU's memory is not enough: lower --batch-size or --width, or use smaller samples")
    except (ValueError, OSError) as error:
        _end(1, f"{command}: {' '.join(str(error).split())}")


def _end(code: int, line: str) -> NoReturn:
    click.echo(line, err=True)
    sys.exit(code)


def pairs(number: Callable[[str], float]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Document]:
    """A callback that turns repeated PART=NUMBER into a table."""

    def parse(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Document:
        table = {}
        for value in values:
            part, equals, text = value.partition("=")
            try:
                table[part.strip()] = number(text)
            except ValueError:
                equals = ""
            if not equals:
                raise click.BadParameter(f"must be PART={number.__name__.upper()}, got {value}")
        return table

    return parse


_HELP = {"help_option_names": ["-h", "--help"]}


@click.command(context_settings=_HELP)
@click.option("--mode", type=click.Choice(MODES), help="How to train; needed unless --config says it.")
@click.option("--shards", help="Folder that a2d2-prep wrote [default: shards].")
@click.option("--task", type=click.Choice(TASKS), help="The task of --mode single.")
@click.option("--network", "network__name", type=click.Choice(NETWORKS), help="mtl: the multi-task network; "
              "stl: the task's own, in --mode single [default there, not in this version].")  # fmt: skip
@click.option("--config", "config_name", help="TOML file of options, or the preset `thesis`.")
@click.option("--out", help="Run folder [default: runs/<mode>].")
@click.option("--epochs", type=int, help="[default: asymmetric 10, else 40]")
@click.option("--seed", type=int, help="[default: 0]")
@click.option("--device", type=click.Choice(DEVICES), help="[default: auto, a GPU where there is one]")
@click.option("--workers", type=int, help="Reading processes [default: none on a CPU, up to 8 beside a GPU].")
@click.option("--order", "stream__order", type=click.Choice(ORDERS), help="items: labels shuffled independently; "
              "samples: an image's labels together, read once [default: items].")  # fmt: skip
@click.option("--shuffle-shards", "stream__shuffle_shards", type=int, help="Shards in a block of the shuffle [all].")
@click.option("--batch-size", "stream__batch_size", type=int, help="Samples of a step; of validation everywhere [4].")
@click.option("--allow-missing", "stream__allow_missing", is_flag=True, default=None,
              help="Symmetric: train also on samples that lack labels.")  # fmt: skip
@click.option("--weights", "network__weights", help="Backbone: auto (ImageNet), none, or a file [default: auto].")
@click.option("--norm", "network__norm", type=click.Choice(("auto", "frozen", "group", "batch")),
              help="[default: frozen with pretrained weights, group from scratch]")  # fmt: skip
@click.option("--backbone", "network__backbone", type=click.Choice(("resnet50", "resnet18")), help="[resnet50]")
@click.option("--width", "network__width", type=float, help="Scales neck and heads [default: 1].")
@click.option("--threshold", multiple=True, callback=pairs(int), metavar="PART=N",
              help="Asymmetric: items between two steps of a part (shared or a task); repeats.")  # fmt: skip
@click.option("--learning-rate", multiple=True, callback=pairs(float), metavar="PART=X",
              help="Adam's, of a part (asymmetric: shared or a task; else `all`); repeats.")  # fmt: skip
@click.option("--coefficient", multiple=True, callback=pairs(float), metavar="TASK=X",
              help="Divides a task's loss; repeats.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the run that the folder holds.")
def train(config_name: str | None, resume: bool, **options: Any) -> None:
    """Train on shards: asymmetric, symmetric, or a single task.

    A stop by SIGTERM, SIGINT or SIGUSR1 keeps the work and exits with 75; the same command with --resume goes on.
    """
    with exit_codes("amtl-train", "the same command with --resume goes on"), stop_signals() as stopping:
        config = read_config(options, config_name, resume)
        console = Console()
        run: Run | None = None
        try:
            run = prepare(config, resume=resume, stopping=stopping, reporter=console)
            train_run(run, console)
            finish(run, console)
        finally:
            console.close()
            if run is not None:
                run.close()


def read_config(options: Document, config_name: str | None, resume: bool) -> RunConfig:
    """Options over --config over, with --resume, the run folder's own config, where `auto` was already settled."""
    given = merge(load_document(config_name) if config_name else {}, nest(options))
    folder = given.get("out") or (f"runs/{given['mode']}" if given.get("mode") in MODES else None)
    if not resume or not isinstance(folder, str) or not (Path(folder) / CONFIG_FILE).is_file():
        return build_config(given)
    held = load_document(str(Path(folder) / CONFIG_FILE))
    if given.get("mode", held.get("mode")) != held.get("mode"):
        raise ValueError(f"{folder} holds a run of mode {held.get('mode')}, got --mode {given['mode']}")
    network = given.get("network")
    if isinstance(network, dict):
        given["network"] = {key: value for key, value in network.items() if value != "auto"}
    return build_config(held, {**given, "out": folder})


def nest(options: Document) -> Document:
    """`network__norm` -> the key `norm` of table `network`; options that were not given are left out."""
    document: Document = {}
    for name, value in options.items():
        if value is not None and value != {}:
            table, _, key = name.partition("__")
            document = merge(document, {table: {key: value}} if key else {table: value})
    return document


@click.command(context_settings=_HELP)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--shards", default="shards", show_default=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(min=-1), default=-1, help="Reading processes [default: as amtl-train].")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result there too.")
def evaluate(checkpoint: Path, shards: Path, split: str, device: str, workers: int, json_file: Path | None) -> None:
    """Measure CHECKPOINT (best.pt or last.pt of a run) on a split, each metric beside constant predictions."""
    with exit_codes("amtl-eval", "nothing was written"), stop_signals() as stopping:
        console = Console()
        try:
            record = evaluate_checkpoint(
                checkpoint,
                shards,
                split=split,
                device_name=device,
                workers=workers,
                stopping=stopping,
                reporter=console,
            )
        finally:
            console.close()
        if json_file is not None:
            write_whole(json_file, orjson.dumps(record, option=orjson.OPT_INDENT_2))
        say_result(record, str(checkpoint), console)
