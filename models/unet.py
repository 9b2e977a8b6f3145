"""U-Net: a class per pixel, by five levels down and four up again, each joined with its equal on the way down.

Source: Ronneberger, Fischer and Brox, "U-Net", with padding and batch norm, as in the thesis (table 4.2).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bifpn import initialised
from models.heads import LAST_GAIN, scaled

_CHANNELS = (64, 128, 256, 512, 1024)  # on strides 1, 2, 4, 8, 16


class UNet(nn.Module):
    """`width` scales all channels. 31,040,363 parameters at 43 classes, at any image size."""

    def __init__(self, classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = [scaled(count, width) for count in _CHANNELS]
        steps = list(pairwise(channels))  # (finer, coarser)
        self.first = pair(3, channels[0])
        self.down = nn.ModuleList(pair(finer, coarser) for finer, coarser in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarser, finer, 2, stride=2) for finer, coarser in reversed(steps))
        self.join = nn.ModuleList(pair(2 * finer, finer) for finer, _ in reversed(steps))
        self.last = initialised(nn.Conv2d(channels[0], classes, 1), LAST_GAIN)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S), S a multiple of 16 -> (B, classes, S, S) logits."""
        levels = [self.first(images)]
        for down in self.down:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        maps = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            maps = join(torch.cat([levels.pop(), up(maps)], dim=1))
        return self.last(maps)


def pair(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H, W): twice a 3x3 convolution without bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
    )  # fmt: skip
