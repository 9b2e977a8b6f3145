"""TensorBoard event files in the run folder, written from the lines of metrics.jsonl; W&B can follow them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shards.draw import Picture
from shards.writer import write_whole
from train.run_folder import EVENTS, WANDB_FILE


class EventFiles:
    """Training and validation curves by task, and pictures of the same val samples after every epoch."""

    def __init__(
        self, folder: Path, *, at: int, wandb_project: str | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        """`at` is the number of groups of images trained so far; events of a former process beyond it are hidden.

        `config` is sent to W&B, for which `check_wandb` holds.
        """
        if wandb_project is not None:
            start_wandb(folder, wandb_project, config or {})
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - a second that only training needs to spend

        self._writer = SummaryWriter(str(folder / EVENTS), purge_step=at)

    def line(self, line: Mapping[str, Any]) -> None:
        """Add the points of a line of metrics.jsonl at its step, which counts groups of images."""
        for name, value in scalars(line):
            self._writer.add_scalar(name, value, line["step"])

    def picture(self, name: str, picture: Picture, step: int) -> None:
        """Add a picture of a val sample."""
        self._writer.add_image(f"val/{name}", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()


def scalars(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(curve, value) for each point that a line of metrics.jsonl holds."""
    if line["kind"] == "step":
        for task, loss in line["losses"].items():
            yield f"loss/{task}/train", loss
        for name in ("items_per_s", "samples_per_s", "waiting"):
            yield f"speed/{name}", line[name]
        for task, coefficient in line["coefficients"].items():
            yield f"coefficient/{task}", coefficient
        for part, rate in line["learning_rates"].items():
            yield f"learning rate/{part}", rate
        for what in ("norms", "cosines"):
            for task, value in line["gradients"].get(what, {}).items():
                yield f"gradient {what} on the shared part/{task}", value
    elif line["kind"] == "epoch":
        for task, loss in line["val_losses"].items():
            yield f"loss/{task}/val", loss
        if line["val_loss"] is not None:
            yield "loss/sum of loss over coefficient/val", line["val_loss"]
        for row in line["metrics"]:
            if row["value"] is not None:
                yield f"{row['task']}/{row['metric']} ({row['unit']})", row["value"]


def check_wandb() -> None:
    """Raise ValueError where W&B cannot be used: not installed, or without a key and nobody to ask for one."""
    try:
        import wandb  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ValueError("--wandb needs the extra `wandb`: pip install 'asymmetric-mtl[wandb]'") from error
    offline = os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun")
    if not offline and not wandb.api.api_key and not sys.stdin.isatty():
        raise ValueError("--wandb needs a key: run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline")


def start_wandb(folder: Path, project: str, config: Mapping[str, Any]) -> None:
    """Let Weights & Biases take what TensorBoard is given; a resumed run goes on with its W&B run."""
    import wandb  # noqa: PLC0415 - an extra

    path = folder / WANDB_FILE
    identity = path.read_text("utf-8").strip() if path.is_file() else wandb.util.generate_id()
    write_whole(path, identity.encode())
    wandb.init(project=project, dir=str(folder), name=folder.name, id=identity, resume="allow", config=dict(config),
               sync_tensorboard=True)  # fmt: skip
