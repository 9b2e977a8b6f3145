"""A network as another machine runs it: camera bytes in, degrees, class ids, pixels and metres out; and what they mean.

What the network expects of its input and what its numbers mean lies inside, as operations and as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.backbone import IMAGE_MEAN, IMAGE_STD
from models.heads import GRID, SLOT_VALUES, SLOTS, STEERING_STEPS
from models.multitask import MultiTaskNet
from shards.schema import BOX_VALUES
from train.config import Document, RunConfig, build_config
from train.engine.checkpoint import Checkpoint, build_network

INPUT = "images"
FORMAT_VERSION = "1"


@dataclass(frozen=True)
class Output:
    """One output: what each of its numbers is."""

    name: str
    task: str
    shape: tuple[int | str, ...]
    dtype: str
    meaning: str


class Deployed(nn.Module):
    """Images as bytes -> outputs by name, in natural units; see `outputs_of`."""

    def __init__(self, network: MultiTaskNet, facts: Mapping[str, Any], steering_scale_deg: float, logits: bool):
        super().__init__()
        self.network = network
        self.size_px: int = facts["size_px"]
        self.max_m: float = facts["max_m"]
        self.steering_scale_deg = steering_scale_deg
        self.logits = logits
        mean, std = (IMAGE_MEAN, IMAGE_STD) if facts["normalise"] else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.register_buffer("cell", torch.arange(GRID).float())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, S, S, 3) uint8 RGB -> outputs by name."""
        assert isinstance(self.mean, Tensor)
        assert isinstance(self.std, Tensor)
        scaled = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        found: dict[str, Tensor] = {}
        for task, output in self.network(scaled, list(self.network.heads)).items():
            if task == "steering":
                found["steering_deg"] = output * self.steering_scale_deg
            elif task == "segmentation" and self.logits:
                found["segmentation_logits"] = output
            elif task == "segmentation":
                found["segmentation"] = output.argmax(1).to(torch.uint8)
            elif task == "boxes":
                found["boxes_px"], found["box_scores"] = self.boxes(output)
            else:
                found["depth_m"] = output * self.max_m
        return found

    def boxes(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 8, 8, 10, 19) -> corners (B, 640, 4) and scores (B, 640, 14), as the metrics take them before NMS."""
        assert isinstance(self.cell, Tensor)
        x = (grid[..., 1] + self.cell.view(1, -1, 1)) / GRID  # (B, rows, columns, slots), of the image
        y = (grid[..., 2] + self.cell.view(-1, 1, 1)) / GRID
        half_w, half_h = grid[..., 3] / 2, grid[..., 4] / 2
        corners = torch.stack([x - half_w, y - half_h, x + half_w, y + half_h], dim=-1).clamp(0, 1) * self.size_px
        scores = grid[..., :1].clamp(0, 1) * grid[..., BOX_VALUES:].clamp(0, 1)
        return corners.flatten(1, 3), scores.flatten(1, 3)


def outputs_of(tasks: Sequence[str], facts: Mapping[str, Any], logits: bool) -> list[Output]:
    """What a file for these tasks returns, in order."""
    size, slots = facts["size_px"], GRID**2 * SLOTS
    names = facts["segmentation_classes"]
    segmentation = (
        Output("segmentation_logits", "segmentation", ("batch", len(names), size, size), "float32",
               "the score of each of segmentation_classes; softmax over axis 1 gives probabilities")
        if logits else
        Output("segmentation", "segmentation", ("batch", size, size), "uint8",
               "the position of each pixel's class in segmentation_classes")
    )  # fmt: skip
    described = (
        Output("steering_deg", "steering", ("batch", STEERING_STEPS), "float32",
               "angles of the steering wheel in degrees, left negative, in order of time: the last values of the "
               "window that the shards' steering.json holds"),
        segmentation,
        Output("boxes_px", "boxes", ("batch", slots, 4), "float32",
               "x1, y1, x2, y2 in pixels of the input from its top left corner, before non-maximum suppression"),
        Output("box_scores", "boxes", ("batch", slots, SLOT_VALUES - BOX_VALUES), "float32",
               "of each box for each of box_classes, 0..1: objectness times class value"),
        Output("depth_m", "depth", ("batch", size, size), "float32",
               "distance of each pixel in metres, trained up to max_m"),
    )  # fmt: skip
    return [output for output in described if output.task in tasks]


def deployed(checkpoint: Checkpoint, tasks: Sequence[str], logits: bool) -> tuple[Deployed, RunConfig]:
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
    return Deployed(chosen, facts, config.loss.steering_scale_deg, logits).eval(), config


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
