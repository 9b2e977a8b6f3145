"""A four-headed network that costs next to nothing, for tests of what surrounds the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shards.classes import SEGMENTATION_CLASSES
from shards.schema import TASKS


class ToyNet(nn.Module):
    """(B, 3, 256, 256) -> the outputs of the real network's heads, from 8x8 maps of 4 channels."""

    def __init__(self, tasks: Sequence[str] = TASKS) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 4, 32, stride=32)
        channels = {"steering": 10, "segmentation": len(SEGMENTATION_CLASSES), "boxes": 190, "depth": 1}
        self.heads = nn.ModuleDict({task: nn.Conv2d(4, channels[task], 1) for task in tasks})
        self.asked: list[tuple[str, ...]] = []

    def parts(self) -> dict[str, nn.Module]:
        return {"shared": self.shared, **self.heads}

    def forward(self, images: Tensor, tasks: Sequence[str] = TASKS) -> dict[str, Tensor]:
        self.asked.append(tuple(tasks))
        maps = torch.tanh(self.shared(images))
        return {task: self.shaped(task, self.heads[task](maps)) for task in tasks}

    @staticmethod
    def shaped(task: str, maps: Tensor) -> Tensor:
        if task == "steering":
            return maps.mean((2, 3))
        if task == "boxes":
            grid = maps.permute(0, 2, 3, 1).unflatten(3, (10, 19))  # (B, 8, 8, 10, 19)
            return torch.cat([grid[..., :3], F.softplus(grid[..., 3:5] - 2), grid[..., 5:]], dim=-1)
        wide = F.interpolate(maps, scale_factor=32, mode="nearest")
        return wide if task == "segmentation" else F.softplus(wide[:, 0])
