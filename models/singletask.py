"""A task's own network (table 4.2), in the form of the multi-task one: a shared part that is empty, and one head."""

from __future__ import annotations

from torch import Tensor, nn

from models.densedepth import DenseDepth
from models.multitask import MultiTaskNet, check_options
from models.pilotnet import PilotNet
from models.unet import UNet
from models.yolo import Yolo

NAMES = {"steering": "PilotNet", "segmentation": "U-Net", "boxes": "YOLOv1", "depth": "DenseDepth"}


class Unshared(nn.Module):
    """No layer: the one map is the image."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) float -> the same, as a tuple of one."""
        if images.ndim != 4 or images.shape[1:] != (3, self.size, self.size):
            raise ValueError(
                f"images must be (B, 3, {self.size}, {self.size}), got {tuple(images.shape)}: "
                "the network was built for that size"
            )
        return (images,)


def build_singletask(
    task: str,
    *,
    size: int = 1024,
    classes: int = 38,
    width: float = 1.0,
    depth_activation: str = "softplus",
    unused: bool = False,
) -> MultiTaskNet:
    """The task's own network for images of `size` px; its outputs are those of the multi-task head.

    It has norms of its own. `width` scales channels in multiples of 8, DenseDepth's encoder excepted. `unused` adds
    the layers that the thesis counts and no forward calls; build those under `torch.device("meta")`, to be counted
    by `cost.parameter_counts`, never to be trained.
    """
    check_options(size, classes, width)
    builders = {
        "steering": lambda: PilotNet(size, width),
        "segmentation": lambda: UNet(classes, width),
        "boxes": lambda: Yolo(size, width, unused),
        "depth": lambda: DenseDepth(width, depth_activation, unused),
    }
    if task not in builders:
        raise ValueError(f"task must be one of {', '.join(builders)}, got {task!r}: each has a network of its own")
    return MultiTaskNet(Unshared(size), {task: builders[task]()}, levels={task: 0})
