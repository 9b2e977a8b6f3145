"""DenseDepth: depth by a DenseNet's features, and four steps up, each joined with the features of its side.

Source: Alhashim and Wonka, "High quality monocular depth estimation via transfer learning", in the shape of the
thesis (table 4.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet

from models.bifpn import initialised, outside_autocast
from models.heads import depth_output_layers, scaled

_SKIPS = {"relu0": 64, "pool0": 64, "transition1": 128, "transition2": 256}  # channels, on strides 2, 4, 8, 16
_FEATURES = 1664  # channels of the last map, on stride 32
_UP = (832, 416, 208, 104)  # channels of the decoder's maps on strides 16, 8, 4, 2
_LEAK = 0.2
_LEAK_GAIN = (2 / (1 + _LEAK**2)) ** 0.5


class Encoder(DenseNet):
    """torchvision's DenseNet169 under its own parameter names; its classifier, which nothing calls, only if asked."""

    def __init__(self, classifier: bool = False) -> None:
        super().__init__(growth_rate=32, block_config=(6, 12, 32, 32), num_init_features=64)
        if not classifier:
            del self.classifier

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, S, S) -> maps of 64, 64, 128, 256 and 1664 channels on strides 2, 4, 8, 16 and 32."""
        maps, found = images, []
        for name, layer in self.features.named_children():
            maps = layer(maps)
            if name in _SKIPS:
                found.append(maps)
        return [*found, F.relu(maps)]


class Up(nn.Module):
    """Bilinear to the side of `skip`, joined with it, two 3x3 convolutions, one LeakyReLU after both."""

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            initialised(nn.Conv2d(inputs + skip, outputs, 3, padding=1), 1.0),
            initialised(nn.Conv2d(outputs, outputs, 3, padding=1), _LEAK_GAIN),
            nn.LeakyReLU(_LEAK),
        )

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """(B, inputs, H, W) and (B, skip, 2H, 2W) -> (B, outputs, 2H, 2W)."""
        return self.layers(torch.cat([upsample2x_bilinear(maps), skip], dim=1))


class DenseDepth(nn.Module):
    """`width` scales the decoder; the encoder keeps its own channels, which pretrained weights fit.

    42,657,689 parameters at any image size. `unused` adds the encoder's ImageNet classifier, as the thesis counts it,
    44,322,689 in all: for its table alone, on the meta device.
    """

    def __init__(self, width: float = 1.0, activation: str = "softplus", unused: bool = False) -> None:
        super().__init__()
        self.encoder = Encoder(classifier=unused)
        maps = scaled(_FEATURES, width)
        channels = [maps, *(scaled(count, width) for count in _UP)]
        self.first = initialised(nn.Conv2d(_FEATURES, maps, 1))
        self.up = nn.ModuleList(
            Up(inputs, skip, outputs)
            for inputs, skip, outputs in zip(channels, reversed(_SKIPS.values()), channels[1:], strict=False)
        )
        self.last = nn.Sequential(*depth_output_layers(channels[-1], activation))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S), S a multiple of 32 -> (B, S, S), in units of max_m."""
        *skips, features = self.encoder(images)
        maps = self.first(features)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            maps = up(maps, skip)
        return self.last(upsample2x_bilinear(maps)).squeeze(1)


def upsample2x_bilinear(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), bilinear, corners on corners."""
    with outside_autocast(maps):
        return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=True)
