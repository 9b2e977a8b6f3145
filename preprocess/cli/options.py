"""Options that several commands share, with checks of their values."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from preprocess.cli.console import one_line
from preprocess.cores import usable_cores
from preprocess.rules import PRESETS, load_rules
from shards.geometry import CAMERAS

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
SHARDS = click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
CAMERA = click.option(
    "--camera", "cameras", multiple=True, type=click.Choice([*CAMERAS.values(), "all"]), default=["front_center"],
    metavar="NAME", help=f"{', '.join(CAMERAS.values())} or all; can be given several times.",
)  # fmt: skip
WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), default=usable_cores, show_default="all cores",
    help="Number of worker processes.",
)  # fmt: skip


def _parse_rules(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """A wrong rule is wrong usage."""
    try:
        return None if value is None else load_rules(value)
    except (ValueError, OSError) as error:
        raise click.BadParameter(one_line(error)) from error


RULES = click.option(
    "--rules", default="default", callback=_parse_rules, metavar="FILE.toml|PRESET",
    help=f"Conversion rules; presets: {', '.join(PRESETS)}.",
)  # fmt: skip
SET_RULES = click.option(
    "--rules", callback=_parse_rules, metavar="FILE.toml|PRESET", show_default="those of the set in --out",
    help=f"Conversion rules; presets: {', '.join(PRESETS)}.",
)  # fmt: skip


def parse_part(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """`i/N` -> (i, N)."""
    if value is None:
        return None
    i, _slash, n = value.partition("/")
    if not (re.fullmatch("[0-9]+/[0-9]+", value) and int(i) < int(n)):
        raise click.BadParameter(f"must be i/N with i from 0 to N-1, got {value}")
    return int(i), int(n)


def parse_word(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """A name that can stand in a line of a batch script."""
    if value is not None and not re.fullmatch(r"[\w.,:@+-]+", value):
        raise click.BadParameter(f"must be a name of letters, digits and . , : @ + - _, got {value}")
    return value


def parse_share(_: click.Context, __: click.Parameter, value: float) -> float:
    """A share that is a number."""
    if math.isnan(value):
        raise click.BadParameter("must be a number, got nan")
    return value
