"""YOLOv1: a grid of boxes, by the paper's Darknet and three convolutions.

Source: Redmon et al., "You only look once" (figure 3), in the shape of the thesis (table 4.2). Its network held two
fully connected heads beside these convolutions, which no forward ever called: they count there, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from models.bifpn import initialised
from models.heads import BOX_LEAK, GRID, SLOT_VALUES, SLOTS, box_grid, box_output_conv, scaled

_GAIN = (2 / (1 + BOX_LEAK**2)) ** 0.5  # keeps the size of a signal that a LeakyReLU of this slope has passed
_POOL = (0, 0)
# (kernel px, output channels); the first has stride 2, so the last map has stride 32
_DARKNET = (
    (7, 64), _POOL, (3, 192), _POOL,
    (1, 128), (3, 256), (1, 256), (3, 512), _POOL,
    *(4 * ((1, 256), (3, 512))), (1, 512), (3, 1024), _POOL,
    *(2 * ((1, 512), (3, 1024))),
)  # fmt: skip
_VALUES = GRID**2 * SLOTS * SLOT_VALUES  # 12,160: a whole grid


class Yolo(nn.Module):
    """`width` scales all channels. 35,862,782 parameters at any image size.

    `unused` adds the two heads that the thesis counts and its forward never calls, 226,607,102 in all: for its table
    alone, on the meta device. Training with them would take 3 GB for weights, gradients and optimizer, for nothing.
    """

    def __init__(self, size: int, width: float = 1.0, unused: bool = False) -> None:
        super().__init__()
        last, hidden = scaled(1024, width), scaled(512, width)
        halvings = round(math.log2(size // 32 / GRID))
        strides = [1] * (2 - halvings) + [2] * halvings
        self.darknet = nn.Sequential(*_darknet(width))
        self.head = nn.Sequential(
            *_shrunk(last, hidden, strides[0]), *_shrunk(hidden, hidden, strides[1]), box_output_conv(hidden)
        )
        if unused:
            self.unused = nn.ModuleList([_linear_head(), _convolutional_head()])

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 8, 8, 10, 19), see `box_grid`."""
        return box_grid(self.head(self.darknet(images)))


def _darknet(width: float) -> Iterator[nn.Module]:
    inputs = 3
    for kernel, channels in _DARKNET:
        if (kernel, channels) == _POOL:
            yield nn.MaxPool2d(2)
            continue
        outputs = scaled(channels, width)
        stride = 2 if inputs == 3 else 1
        yield initialised(nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), _GAIN)
        yield nn.LeakyReLU(BOX_LEAK)
        inputs = outputs


def _shrunk(inputs: int, outputs: int, stride: int) -> Iterator[nn.Module]:
    """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride): a 4x4 convolution.

    At 512 and 256 px the grid is reached with fewer strides of 2; an even kernel then pads one row and column more
    behind than before, so that the map keeps its side and the kernel its size.
    """
    if stride == 1:
        yield nn.ZeroPad2d((1, 2, 1, 2))
    yield initialised(nn.Conv2d(inputs, outputs, 4, stride, padding=1 if stride == 2 else 0), _GAIN)
    yield nn.LeakyReLU(BOX_LEAK)


def _linear_head() -> nn.Module:
    return nn.ModuleList([nn.Linear(16384, 4096), nn.Linear(4096, 2048), nn.Linear(2048, 512), nn.Linear(512, _VALUES)])


def _convolutional_head() -> nn.Module:
    return nn.ModuleList(
        [nn.Conv2d(1024, 1024, 3), nn.Conv2d(4096, 2048, 3), nn.Conv2d(2048, 512, 4), nn.Conv2d(512, _VALUES, 1)]
    )
