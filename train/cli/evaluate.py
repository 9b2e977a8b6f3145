"""The command `amtl-eval`."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from shards.schema import SPLITS
from shards.writer import write_whole
from train.cli.console import HELP, Console, device_option, exit_codes, stop_signals, version_option
from train.data.grouping import GROUPINGS


@click.command(context_settings=HELP)
@version_option
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--shards", default="shards", show_default=True, type=click.Path(exists=True, path_type=Path),
              help="Set of shards that a2d2-prep wrote.")  # fmt: skip
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True,
              help="Split to measure on; constant predictions come from train.")  # fmt: skip
@click.option("--by", type=click.Choice(tuple(GROUPINGS)), help="Add a table for each camera or scene.")
@click.option("--allow-seen", is_flag=True, help="Measure on samples that CHECKPOINT was trained on too.")
@device_option
@click.option(
    "--workers", type=click.IntRange(min=-1), default=-1, help="Threads that read samples [default: as in amtl-train]."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write the result to this JSON file.")
def main(
    checkpoint: Path,
    shards: Path,
    split: str,
    by: str | None,
    allow_seen: bool,
    device: str,
    workers: int,
    json_file: Path | None,
) -> None:
    """Measure CHECKPOINT (best.pt or last.pt of a run) on a split, beside constant predictions.

    On the val split the command also writes a model card beside CHECKPOINT, model-card.md for best.pt. The name of a
    card of another data set than the checkpoint was trained on ends in the hash of that set.

    A checkpoint knows its training samples. Where a split other than train holds some of them, nothing is measured
    without --allow-seen.
    """
    from train.engine.outcome import evaluate_checkpoint
    from train.report.model_card import write_card
    from train.report.text import result_lines

    with exit_codes("amtl-eval", "nothing was written"), stop_signals() as stopping:
        console = Console()
        try:
            record, config_toml = evaluate_checkpoint(
                checkpoint,
                shards,
                split=split,
                device_name=device,
                workers=workers,
                by=by,
                allow_seen=allow_seen,
                stopping=stopping,
                reporter=console,
            )
        finally:
            console.close()
        if split == "val":  # a result on training data belongs in no model card
            console.say(write_card(checkpoint, record, config_toml))
        if json_file is not None:
            write_whole(json_file, orjson.dumps(record, option=orjson.OPT_INDENT_2))
        for line in result_lines(record, str(checkpoint), apart=True):
            console.say(line)
