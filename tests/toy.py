"""A four-headed network that costs next to nothing, for tests of what surrounds the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.norms import norm_layer
from shards.classes import SEGMENTATION_CLASSES
from shards.schema import TASKS

CHANNELS = {"steering": 10, "segmentation": len(SEGMENTATION_CLASSES), "boxes": 190, "depth": 1}


class ToyHead(nn.Module):
    """(B, channels, 8, 8) -> the output of the real network's head for `size` px."""

    def __init__(self, task: str, channels: int, size: int, asked: list[str]) -> None:
        super().__init__()
        self.task, self.size, self.asked = task, size, asked
        self.layer = nn.Conv2d(channels, CHANNELS[task], 1)

    def forward(self, maps: Tensor) -> Tensor:
        self.asked.append(self.task)
        maps = self.layer(maps)
        if self.task == "steering":
            return maps.mean((2, 3))
        if self.task == "boxes":
            grid = maps.permute(0, 2, 3, 1).unflatten(3, (10, 19))  # (B, 8, 8, 10, 19)
            return torch.cat([grid[..., :3], F.softplus(grid[..., 3:5] - 2), grid[..., 5:]], dim=-1)
        wide = F.interpolate(maps, size=(self.size, self.size), mode="nearest")
        return wide if self.task == "segmentation" else F.softplus(wide[:, 0])


class ToyNet(nn.Module):
    """(B, 3, size, size) -> the outputs of the real network's heads, from 8x8 maps of `channels`."""

    def __init__(
        self, tasks: Sequence[str] = TASKS, *, size: int = 256, channels: int = 4, norm: str | None = None
    ) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, channels, size // 8, stride=size // 8, bias=norm is None)]
        layers += [] if norm is None else [norm_layer(norm)(channels)]
        self.shared = nn.Sequential(*layers, nn.Tanh())
        self.asked: list[str] = []  # heads, in the order in which they ran
        self.images: list[int] = []  # of each forward pass of the shared part
        self.heads = nn.ModuleDict({task: ToyHead(task, channels, size, self.asked) for task in tasks})
        self.levels = dict.fromkeys(tasks, 0)

    def parts(self) -> dict[str, nn.Module]:
        return {"shared": self.shared, **self.heads}

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        self.images.append(len(images))
        return (self.shared(images),)

    def forward(self, images: Tensor, tasks: Sequence[str] = TASKS) -> dict[str, Tensor]:
        (maps,) = self.features(images)
        return {task: self.heads[task](maps) for task in tasks}
