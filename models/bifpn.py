"""The neck: every map to the same number of channels, then information up and down the levels, twice.

Source: Tan, Pang and Le, "EfficientDet" (BiFPN, fast normalised fusion), in the shape the thesis gives it
(section 3.3, figure 3.6): four levels, a top-down node on strides 16, 8 and 4, a bottom-up one on 8, 16 and 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = 2
LEAK = 0.01  # slope of the LeakyReLU below 0
FUSION_EPS = 1e-4

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def initialised(layer: Layer, gain: float = 2**0.5) -> Layer:
    """`layer` with normal weights of deviation gain / sqrt(values summed into an output) and no bias.

    Source: He et al., "Delving deep into rectifiers"; sqrt(2) keeps a rectified signal's size. Neck and heads
    have no norm layer, and PyTorch's own start makes the signal some three times smaller in each layer: five
    layers on, two images differ by 1e-5 of what the biases say.
    """
    weight = layer.weight
    if isinstance(layer, nn.ConvTranspose2d):
        summed = weight[:, 0].numel() / (layer.stride[0] * layer.stride[1])
    else:
        summed = weight[0].numel()
    nn.init.normal_(weight, std=gain / summed**0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Separable(nn.Sequential):
    """Depthwise 1x1, pointwise 1x1, LeakyReLU; no bias, no norm: inputs + inputs * outputs parameters.

    The depthwise convolution is a scale per channel, and starts at 1. With nothing between, the two are one pointwise
    convolution whose weights are their product: the same function, without a pass over the maps for the first.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        depthwise = nn.Conv2d(inputs, inputs, 1, groups=inputs, bias=False)
        nn.init.ones_(depthwise.weight)
        super().__init__(depthwise, initialised(nn.Conv2d(inputs, outputs, 1, bias=False)), nn.LeakyReLU(LEAK))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        depthwise, pointwise, activation = self
        assert isinstance(depthwise, nn.Conv2d)
        assert isinstance(pointwise, nn.Conv2d)
        scale = depthwise.weight.view(1, -1, 1, 1)  # (inputs, 1, 1, 1) before
        result: Tensor = activation(F.conv2d(maps, pointwise.weight * scale))
        return result


def fuse(maps: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Fast normalised fusion: sum_i w_i maps_i / (eps + sum_j w_j), w = relu(weights).

    maps: n of (B, C, H, W); weights: (n,). Returns (B, C, H, W).
    """
    positive = F.relu(weights)
    shares = positive / (positive.sum() + FUSION_EPS)
    with outside_autocast(maps[0]):
        fused = shares[0] * maps[0]
        for share, other in zip(shares[1:], maps[1:], strict=True):
            fused = torch.addcmul(fused, other, share)
    return fused


def outside_autocast(maps: Tensor) -> AbstractContextManager[object]:
    """Return a context in which the maps keep their precision; autocast would resize and add them in float32."""
    kind = maps.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)  # never on the meta device
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def up(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), nearest."""
    with outside_autocast(maps):
        return F.interpolate(maps, scale_factor=2.0, mode="nearest")


def down(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H / 2, W / 2), nearest: every second row and column."""
    with outside_autocast(maps):
        return F.interpolate(maps, scale_factor=0.5, mode="nearest")


class BiFPN(nn.Module):
    """One block: four maps of `channels` on strides 4, 8, 16, 32 -> four of the same shapes.

    The fusion weights start at 1, the mean of a node's inputs. A column is a node in the order of computing:
    `top_down_weights` (2, 3) = (input, from above) of strides 16, 8, 4; `bottom_up_weights` (3, 3) = (input,
    top-down, from below) of strides 8, 16, 32. Stride 32 has no top-down node: its input stands in both places.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.top_down_weights = nn.Parameter(torch.ones(2, 3))
        self.bottom_up_weights = nn.Parameter(torch.ones(3, 3))
        self.top_down = nn.ModuleList(Separable(channels, channels) for _ in range(3))
        self.bottom_up = nn.ModuleList(Separable(channels, channels) for _ in range(3))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four (B, C, S / stride, S / stride) -> four of the same."""
        in_4, in_8, in_16, in_32 = maps
        from_above, from_below = self.top_down_weights, self.bottom_up_weights
        td_16 = self.top_down[0](fuse((in_16, up(in_32)), from_above[:, 0]))
        td_8 = self.top_down[1](fuse((in_8, up(td_16)), from_above[:, 1]))
        out_4 = self.top_down[2](fuse((in_4, up(td_8)), from_above[:, 2]))
        out_8 = self.bottom_up[0](fuse((in_8, td_8, down(out_4)), from_below[:, 0]))
        out_16 = self.bottom_up[1](fuse((in_16, td_16, down(out_8)), from_below[:, 1]))
        out_32 = self.bottom_up[2](fuse((in_32, in_32, down(out_16)), from_below[:, 2]))
        return out_4, out_8, out_16, out_32


class Neck(nn.Module):
    """Laterals to `channels`, then two BiFPN blocks. `inputs`: channels of the backbone's four maps."""

    def __init__(self, inputs: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Separable(count, channels) for count in inputs)
        self.blocks = nn.Sequential(*(BiFPN(channels) for _ in range(BLOCKS)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps of the backbone -> four of `channels`, on the same strides."""
        return self.blocks(tuple(lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)))
