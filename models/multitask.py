"""The multi-task network of the thesis: one shared part, a head per task, and only the asked-for heads run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.backbone import Backbone
from models.bifpn import Neck
from models.heads import HEADS, LEVELS, HeadOptions, scaled

SIZES = (256, 512, 1024)  # px, the sides of an image
NECK_CHANNELS = 256


class SharedPart(nn.Module):
    """Backbone and neck: what every task's gradient reaches."""

    def __init__(self, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) float, normalised -> four (B, channels, S / stride, S / stride), strides 4, 8, 16, 32."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 32 or images.shape[3] % 32:
            raise ValueError(
                f"images must be (B, 3, S, S) with S a multiple of 32, got {tuple(images.shape)}: "
                "the coarsest map has stride 32"
            )
        return self.neck(self.backbone(images))


class MultiTaskNet(nn.Module):
    """`shared`, then `heads[task]` on the map of its level, `levels[task]`.

    `shared` takes (B, 3, S, S) and returns a tuple of maps; see SharedPart, and singletask.py for one that is empty.
    """

    def __init__(self, shared: nn.Module, heads: Mapping[str, nn.Module], levels: Mapping[str, int] = LEVELS) -> None:
        super().__init__()
        self.shared = shared
        self.heads = nn.ModuleDict(dict(heads))
        self.levels = {task: levels[task] for task in heads}  # which of the features each head takes

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """(B, 3, S, S) float, normalised by the caller -> an output per task asked for (None: all); no other head runs.

        `steering` (B, 10) in units of steering_scale_deg; `segmentation` (B, C, S, S) logits; `boxes` (B, 8, 8,
        10, 19), see BoxHead; `depth` (B, S, S) in units of max_m.
        """
        tasks = list(self.heads) if tasks is None else tasks
        for task in tasks:
            if task not in self.heads:
                raise ValueError(f"tasks must be among {', '.join(self.heads)}, got {task!r}: there is no such head")
        maps = self.features(images)
        return {task: self.heads[task](maps[self.levels[task]]) for task in tasks}

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) float, normalised -> what the heads take, a map per level; see SharedPart."""
        maps: tuple[Tensor, ...] = self.shared(images)
        return maps

    def parts(self) -> dict[str, nn.Module]:
        """The parts that the asymmetric regime optimizes on their own: `shared`, then each task's head."""
        return {"shared": self.shared, **self.heads}


def build_multitask(
    *,
    size: int = 1024,
    classes: int = 38,
    backbone: str = "resnet50",
    width: float = 1.0,
    norm: str = "group",
    depth_activation: str = "softplus",
    tasks: Sequence[str] = tuple(HEADS),
) -> MultiTaskNet:
    """The network for images of `size` px, with the heads of `tasks`, in the order of HEADS.

    `width` scales the channels of the neck and the hidden channels of the heads, in multiples of 8; the backbone
    keeps its own. 61,656,914 parameters at classes = 43 and the other defaults.
    """
    check_options(size, classes, width)
    if not tasks or not set(tasks) <= set(HEADS):
        raise ValueError(f"tasks must be among {', '.join(HEADS)}, got {list(tasks)}: each names a head")
    channels = scaled(NECK_CHANNELS, width)
    features = Backbone(backbone, norm)
    options = HeadOptions(channels, size, classes, width, depth_activation)
    shared = SharedPart(features, Neck(features.channels, channels))
    return MultiTaskNet(shared, {task: HEADS[task](options) for task in HEADS if task in tasks})


def check_options(size: int, classes: int, width: float) -> None:
    """Raises ValueError where no network is defined for them."""
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {size}: the box grid is 8 x 8")
    if classes < 1:
        raise ValueError(f"classes must be at least 1, got {classes}: each is an output of the segmentation head")
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width must be a positive number, got {width}: it scales channels")
