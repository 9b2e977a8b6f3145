"""The four task heads of the thesis (section 3.3): each takes one of the shared part's four maps, its `level`.

`inputs` is the channel count of those maps, `width` scales the hidden channels, `size` is the image's side S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bifpn import LEAK, initialised

STEERING_STEPS = 10
GRID = 8  # box cells along a side, at every image size
SLOTS = 10  # boxes a cell can hold
SLOT_VALUES = 19  # objectness, x, y, w, h, 14 class scores
BOX_LEAK = 0.1  # the box head keeps YOLO's slope

LAST_GAIN = 0.1  # of the last layers: the first predictions lie near the bias, far from any target's extremes

# A box's side at the start, in 0..1 of the image: a car some 20 m ahead. softplus(0) = 0.69 would start every slot
# as most of the image, which overlaps all objects a little and none well.
BOX_SIDE_START = 0.1

# 19 m of max_m = 123 m, the geometric mean of an A2D2 frame's returns (20180810_142822, frame 15196), which is
# the constant that a logarithmic loss likes best. softplus(0) = 0.69 would say 85 m everywhere at the start.
DEPTH_START = 0.15
DEPTH_ACTIVATIONS = ("softplus", "relu")  # the second is the thesis's, which has no gradient at 0


def scaled(channels: int, width: float) -> int:
    """channels * width to the nearest multiple of 8, at least 8; at width 1 the channels as they are."""
    return channels if width == 1 else max(8, 8 * math.floor(channels * width / 8 + 0.5))


def upsample2x(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, 2H, 2W): transposed 4x4 convolution, stride 2, LeakyReLU."""
    return nn.Sequential(initialised(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(LEAK))


def conv3x3(inputs: int, outputs: int, stride: int = 1, leak: float = LEAK) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride): 3x3 convolution, LeakyReLU."""
    return nn.Sequential(initialised(nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)), nn.LeakyReLU(leak))


def output_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """(B, inputs, H, W) -> (B, outputs, H, W): a head's last 3x3 convolution."""
    return initialised(nn.Conv2d(inputs, outputs, 3, padding=1), LAST_GAIN)


def box_output_conv(inputs: int) -> nn.Conv2d:
    """(B, inputs, 8, 8) -> (B, 190, 8, 8), for `box_grid`; starts with small boxes in the middle of their cells."""
    last = output_conv(inputs, SLOTS * SLOT_VALUES)
    assert last.bias is not None
    with torch.no_grad():
        start = last.bias.view(SLOTS, SLOT_VALUES)
        start[:, 1:3] = 0.5  # the cell's middle
        start[:, 3:5] = softplus_inverse(BOX_SIDE_START)
    return last


def box_grid(maps: Tensor) -> Tensor:
    """(B, 190, 8, 8) -> (B, 8, 8, 10, 19) = cell row, cell column, slot, values.

    The values are objectness, x, y, w, h and 14 class scores: x and y in 0..1 of the cell, w and h in 0..1 of
    the image, positive by a softplus; all else is linear.
    """
    grid = maps.unflatten(1, (SLOTS, SLOT_VALUES))  # (B, slots, values, rows, columns)
    slots = grid.permute(0, 3, 4, 1, 2)  # (B, rows, columns, slots, values)
    return torch.cat([slots[..., :3], F.softplus(slots[..., 3:5]), slots[..., 5:]], dim=-1)


def depth_output_layers(inputs: int, activation: str) -> tuple[nn.Conv2d, nn.Module]:
    """The last layers of a depth network: (B, inputs, H, W) -> (B, 1, H, W), at least 0, near DEPTH_START at first."""
    if activation not in DEPTH_ACTIVATIONS:
        raise ValueError(
            f"depth_activation must be one of {', '.join(DEPTH_ACTIVATIONS)}, got {activation!r}: depth is positive"
        )
    last = output_conv(inputs, 1)
    assert last.bias is not None
    start = softplus_inverse(DEPTH_START) if activation == "softplus" else DEPTH_START
    nn.init.constant_(last.bias, start)
    return last, nn.Softplus() if activation == "softplus" else nn.ReLU()


class SteeringHead(nn.Module):
    """Stride 32, flattened, through 100, 50 and 10 hidden values.

    `width` does not scale those: the cost lies in the first layer, which shrinks with the neck's channels.
    """

    level = 3

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.side = size // 32
        self.layers = nn.Sequential(
            nn.Flatten(),
            initialised(nn.Linear(inputs * self.side**2, 100)), nn.LeakyReLU(LEAK),
            initialised(nn.Linear(100, 50)), nn.LeakyReLU(LEAK),
            initialised(nn.Linear(50, 10)), nn.LeakyReLU(LEAK),
            initialised(nn.Linear(10, STEERING_STEPS), LAST_GAIN),
        )  # fmt: skip

    def forward(self, on_32: Tensor) -> Tensor:
        """(B, inputs, S / 32, S / 32) -> (B, 10), in units of steering_scale_deg, left negative, in order of time."""
        check_side(on_32, self.side, "steering")
        return self.layers(on_32)


class SegmentationHead(nn.Module):
    """Stride 8, upsampled by 2 three times, then a 3x3 convolution to the classes."""

    level = 1

    def __init__(self, inputs: int, classes: int, width: float = 1.0) -> None:
        super().__init__()
        first, second, third = (scaled(channels, width) for channels in (256, 128, 64))
        self.layers = nn.Sequential(
            upsample2x(inputs, first),
            upsample2x(first, second),
            upsample2x(second, third),
            output_conv(third, classes),
        )

    def forward(self, on_8: Tensor) -> Tensor:
        """(B, inputs, S / 8, S / 8) -> (B, classes, S, S) logits."""
        return self.layers(on_8)


class BoxHead(nn.Module):
    """Stride 16 down to the grid by 3x3 convolutions, three of which may have stride 2.

    1024 px needs all three; at 512 and 256 the first ones have stride 1, which costs no parameter.
    """

    level = 2

    def __init__(self, inputs: int, size: int, width: float = 1.0) -> None:
        super().__init__()
        self.side = size // 16
        halvings = round(math.log2(self.side / GRID))
        strides = [1] * (3 - halvings) + [2] * halvings
        hidden = scaled(512, width)
        self.layers = nn.Sequential(
            conv3x3(inputs, hidden, strides[0], BOX_LEAK),
            conv3x3(hidden, hidden, strides[1], BOX_LEAK),
            conv3x3(hidden, hidden, strides[2], BOX_LEAK),
            box_output_conv(hidden),
        )

    def forward(self, on_16: Tensor) -> Tensor:
        """(B, inputs, S / 16, S / 16) -> (B, 8, 8, 10, 19), see `box_grid`."""
        check_side(on_16, self.side, "boxes")
        return box_grid(self.layers(on_16))


class DepthHead(nn.Module):
    """Stride 4, upsampled by 2 twice, then two 3x3 convolutions to one positive value a pixel."""

    level = 0

    def __init__(self, inputs: int, width: float = 1.0, activation: str = "softplus") -> None:
        super().__init__()
        first, second, third = (scaled(channels, width) for channels in (256, 128, 64))
        self.layers = nn.Sequential(
            upsample2x(inputs, first),
            upsample2x(first, second),
            conv3x3(second, third),
            *depth_output_layers(third, activation),
        )

    def forward(self, on_4: Tensor) -> Tensor:
        """(B, inputs, S / 4, S / 4) -> (B, S, S), in units of max_m."""
        return self.layers(on_4).squeeze(1)


@dataclass(frozen=True)
class HeadOptions:
    """The sizes that decide a head's layers."""

    channels: int  # of the shared part's maps
    size: int  # px, the side of an image
    classes: int  # outputs of the segmentation head
    width: float  # scales hidden channels
    depth_activation: str


HEADS: dict[str, Callable[[HeadOptions], nn.Module]] = {  # task -> its head; a further task has its line here
    "steering": lambda of: SteeringHead(of.channels, of.size),
    "segmentation": lambda of: SegmentationHead(of.channels, of.classes, of.width),
    "boxes": lambda of: BoxHead(of.channels, of.size, of.width),
    "depth": lambda of: DepthHead(of.channels, of.width, of.depth_activation),
}
LEVELS = {  # task -> the one of the shared part's maps that its head takes
    "steering": SteeringHead.level,
    "segmentation": SegmentationHead.level,
    "boxes": BoxHead.level,
    "depth": DepthHead.level,
}


def softplus_inverse(value: float) -> float:
    """The input at which softplus gives `value`."""
    return math.log(math.expm1(value))


def check_side(level: Tensor, side: int, task: str) -> None:
    """The two heads whose layers depend on the image's size say so, before a matrix product does."""
    if level.shape[-2:] != (side, side):
        raise ValueError(
            f"the map of the {task} head must be {side} x {side}, got {tuple(level.shape[-2:])}: "
            "the network was built for another image size"
        )
