"""The command `amtl-export`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from shards.schema import TASKS
from train.cli.console import HELP, Console, exit_codes, version_option
from train.config import ExportFormat


def task_list(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`depth,boxes` -> the tasks in their own order."""
    if value is None:
        return None
    asked = {name.strip() for name in value.split(",")}
    if not asked <= set(TASKS):
        raise click.BadParameter(f"must be a list from {','.join(TASKS)}, got {value}")
    return tuple(task for task in TASKS if task in asked)


def batch_size(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    """`free` is None."""
    if value == "free":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"must be free or a number of at least 1, got {value}")
    return int(value)


@click.command(context_settings=HELP)
@version_option
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "file_format", type=click.Choice(get_args(ExportFormat)), default="onnx", show_default=True,
              help="Format of the file; onnx needs the extra export.")  # fmt: skip
@click.option("--tasks", callback=task_list, metavar="TASK,...", help="Heads to export [default: all trained heads].")
@click.option("--batch", callback=batch_size, default="free", show_default=True, metavar="free|N",
              help="Images per call: any number (free), or always N.")  # fmt: skip
@click.option("--logits", is_flag=True, help="Write class scores (float32) instead of class ids (uint8).")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write [default: CHECKPOINT with the format's suffix]."
)
def main(
    checkpoint: Path, file_format: str, tasks: tuple[str, ...] | None, batch: int | None, logits: bool, out: Path | None
) -> None:
    """Write the network of CHECKPOINT as one file for another machine, and compare its outputs with PyTorch's.

    The input `images` is uint8 RGB (batch, S, S, 3) with S the side of the training samples; the file normalises it.
    Outputs are steering angles in degrees, class ids, boxes in pixels with class scores before NMS, and depth in
    metres. The metadata of the file describes them.
    """
    from train.deploy.export import check_extra, write_export
    from train.deploy.inference import describe, load_inference_model, outputs_of
    from train.engine.checkpoint import load_checkpoint

    with exit_codes("amtl-export", "nothing was written"):
        check_extra(file_format)
        loaded = load_checkpoint(checkpoint)
        chosen = tasks or tuple(loaded["tasks"])
        module, config = load_inference_model(loaded, chosen, logits)
        outputs = outputs_of(chosen, module.context, logits)
        path = out or checkpoint.with_suffix(f".{file_format}")
        shares = write_export(path, module, file_format, describe(loaded, outputs, batch, config), batch)
        console = Console()
        size = module.size_px
        console.say(f"{path}: {path.stat().st_size / 1e6:.1f} MB, batch {batch or 'free'}")
        console.say(f"  in   images  uint8 ({batch or 'batch'}, {size}, {size}, 3) RGB 0..255")
        for output in outputs:
            shape = ", ".join(map(str, (batch or "batch", *output.shape[1:])))
            differs = f"differs from PyTorch by {shares[output.name]:.1e} of its range at most"
            if output.dtype == "uint8":
                differs = f"differs from PyTorch in {shares[output.name]:.1e} of the pixels"
            console.say(f"  out  {output.name}  {output.dtype} ({shape}); {differs}")
        console.say("the metadata of the file describes each output")
