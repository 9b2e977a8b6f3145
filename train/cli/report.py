"""`amtl-report`."""

from __future__ import annotations

from pathlib import Path

import click

from train.cli.console import HELP, exit_codes
from train.report.comparison import write_report


@click.command(context_settings=HELP)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", default="report.html", show_default=True, type=click.Path(path_type=Path),
              help="The page.")  # fmt: skip
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Compare RUNS, the folders of finished runs, in one HTML file that needs nothing beside it.

    Runs that differ in their seed alone are averaged. Example: amtl-report runs/* --out report.html
    """
    with exit_codes("amtl-report", "nothing was written"):
        count, warnings = write_report(runs, out)
        for line in warnings:
            click.echo(f"note: {line}")
        click.echo(f"{out}: {count} run{'s' if count != 1 else ''} compared; open it in a browser, or print it")
