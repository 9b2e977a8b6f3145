"""Options that several commands have, and what their values may be."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from preprocess.cli.console import one_line
from preprocess.rules import load_rules
from shards.geometry import CAMERAS

JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
SHARDS = click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
CAMERA = click.option(
    "--camera", "cameras", multiple=True, type=click.Choice([*CAMERAS.values(), "all"]), default=["front_center"],
    metavar="NAME", help=f"{', '.join(CAMERAS.values())} or all; may repeat.",
)  # fmt: skip
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), default=lambda: len(os.sched_getaffinity(0)), show_default="all cores",
    help="Processes.",
)  # fmt: skip


def rules_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--rules`, checked where it is given: a wrong rule is wrong usage."""

    def parse(_: click.Context, __: click.Parameter, value: str) -> Any:
        try:
            return load_rules(value)
        except (ValueError, OSError) as error:
            raise click.BadParameter(one_line(error)) from error

    option = click.option(
        "--rules", default="default", callback=parse, metavar="FILE.toml|thesis", help="Conversion rules."
    )
    return functools.wraps(command)(option(command))


def parse_part(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`i/N` -> (i, N)."""
    if value is None:
        return None
    i, _slash, n = value.partition("/")
    if not (re.fullmatch("[0-9]+/[0-9]+", value) and int(i) < int(n)):
        raise click.BadParameter(f"must be i/N with i from 0 to N-1, got {value}")
    return int(i), int(n)


def parse_share(_: click.Context, __: click.Parameter, value: float) -> float:
    """A share that is a number."""
    if math.isnan(value):
        raise click.BadParameter("must be a number, got nan")
    return value
