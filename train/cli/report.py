"""The command `amtl-report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from train.cli.console import HELP, Console, exit_codes, version_option

if TYPE_CHECKING:
    from train.report.tables import Table


@click.command(context_settings=HELP)
@version_option
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", default="report.html", show_default=True, type=click.Path(path_type=Path),
              help="HTML file to write.")  # fmt: skip
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Compare RUNS, the folders of finished runs, in one self-contained HTML file.

    Runs that differ only in their seed are averaged. Folders without a finished run are left out with a note.
    Example: amtl-report runs/* --out report.html
    """
    from train.report.report import network_shapes, write_report
    from train.report.runs import load_runs
    from train.report.text import counted

    say = Console().say
    with exit_codes("amtl-report", "nothing was written"):
        finished, left_out = load_runs(runs)
        notes = [f"Left out: {line}." for line in left_out]
        for line in write_report(finished, compare_networks(network_shapes(finished)), out, notes):
            say(f"note: {line}")
        say(f"{out}: {counted(len(finished), 'run')} compared; open it in a browser, or print it")


def compare_networks(shapes: Sequence[tuple[int, float, str]]) -> list[Table]:
    """A table of the networks' costs for each (image size in px, width, backbone), and one for those of the thesis."""
    from models.footprint import footprints
    from shards.classes import SEGMENTATION_CLASSES
    from train.report.tables import network_table

    tables = []
    for found in footprints(shapes, len(SEGMENTATION_CLASSES)):
        single = [(name, task, cost.counted, cost.used, cost.gmac) for name, task, cost in found.networks]
        cost = found.multitask
        multitask = ("multi-task network", "all", cost.counted, cost.used, cost.gmac)
        tables.append(network_table(f"{found.what}.", single, multitask))
    return tables
