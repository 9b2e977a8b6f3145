"""A network as another machine runs it: camera bytes in, degrees, class ids, pixels and metres out; and what they mean.

What the network expects of its input and what its numbers mean lies inside, as operations and as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.backbone import IMAGE_MEAN, IMAGE_STD
from models.multitask import MultiTaskNet
from shards.schema import TASKS
from train.config import Document, RunConfig
from train.engine.checkpoint import Checkpoint, build_network, task_context
from train.presets import build_config
from train.tasks import DEFINITIONS
from train.tasks.definition import Output, TaskContext

INPUT = "images"
FORMAT_VERSION = "1"


class InferenceModel(nn.Module):
    """Images as bytes -> outputs by name, in natural units; each task's definition lists its outputs."""

    def __init__(self, network: MultiTaskNet, context: TaskContext, normalise: bool, logits: bool):
        super().__init__()
        self.network = network
        self.context = context
        self.logits = logits
        mean, std = (IMAGE_MEAN, IMAGE_STD) if normalise else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    @property
    def size_px(self) -> int:
        """The side of the images."""
        return self.context.size_px

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, S, S, 3) uint8 RGB -> outputs by name."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        scaled = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found: dict[str, Tensor] = {}
        for task, output in self.network(scaled, list(self.network.heads)).items():
            found |= DEFINITIONS[task].export(output, self.context, self.logits)
        return found


def outputs_of(tasks: Sequence[str], context: TaskContext, logits: bool) -> list[Output]:
    """Return what a file for these tasks gives, in the order of TASKS."""
    return [output for task in TASKS if task in tasks for output in DEFINITIONS[task].outputs(context, logits)]


def load_inference_model(
    checkpoint: Checkpoint, tasks: Sequence[str], logits: bool
) -> tuple[InferenceModel, RunConfig]:
    """The network of a checkpoint with the heads of `tasks` alone, in eval mode.

    Raises ValueError where a task has no trained head.
    """
    config, facts = build_config(checkpoint["config"]), checkpoint["facts"]
    lacking = [task for task in tasks if task not in checkpoint["tasks"]]
    if lacking:
        raise ValueError(
            f"tasks must be among {', '.join(checkpoint['tasks'])}, got {lacking[0]}: no other was trained"
        )
    network = build_network(config, facts)
    network.load_state_dict(checkpoint["weights"])
    wanted = [task for task in network.heads if task in tasks]
    chosen = MultiTaskNet(network.shared, {task: network.heads[task] for task in wanted}, network.levels)
    return InferenceModel(chosen, task_context(config, facts), facts["normalise"], logits).eval(), config


def describe(checkpoint: Checkpoint, outputs: Sequence[Output], batch: int | None, config: RunConfig) -> dict[str, str]:
    """The text inside the file: keys and values are plain text, lists and tables are JSON."""
    facts = checkpoint["facts"]
    size = facts["size_px"]
    document: Document = {
        "format_version": FORMAT_VERSION,
        "input": {
            "name": INPUT,
            "shape": [batch or "batch", size, size, 3],
            "dtype": "uint8",
            "meaning": f"RGB 0..255, row, column, channel: the whole frame resized to {size} x {size} with area or "
            "antialiased resampling, undistorted if the training data was; scaling and normalisation are inside",
        },
        "outputs": [
            {"name": output.name, "task": output.task, "shape": [batch or "batch", *output.shape[1:]],
             "dtype": output.dtype, "meaning": output.meaning}
            for output in outputs
        ],
        "tasks": list(dict.fromkeys(output.task for output in outputs)),
        "segmentation_classes": facts["segmentation_classes"],
        "box_classes": facts["box_classes"],
        "max_m": facts["max_m"],
        "mode": config.mode,
        "network": config.network.name,
        "first_weights": facts["weights"],
        "manifest_sha256": checkpoint["manifest_sha256"],  # of the training data
        "epoch": checkpoint["progress"]["epoch"],
        "torch": torch.__version__,
    }  # fmt: skip
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in document.items()}
