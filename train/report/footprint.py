"""Table 4.2 of the thesis, worked out from shapes: what each single-task network and the multi-task network take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from models.cost import forward_gmac, parameter_counts
from models.multitask import MultiTaskNet, build_multitask
from models.singletask import NAMES, build_singletask
from shards.classes import SEGMENTATION_CLASSES

THESIS_CLASSES = 43  # segmentation channels of the author's networks, three of them never used


@dataclass(frozen=True)
class Cost:
    """Of one network."""

    counted: int  # parameters, with those of layers that the thesis counts and no forward calls
    used: int  # those that a gradient reaches
    gmac: float  # giga multiply-adds of a forward of one image


@dataclass(frozen=True)
class Footprint:
    """Of all networks for one size of image and one width."""

    what: str
    networks: list[tuple[str, str, Cost]]  # name, task, cost
    multitask: Cost

    @property
    def total(self) -> Cost:
        """The sum over the single-task networks."""
        costs = [cost for _, _, cost in self.networks]
        return Cost(sum(cost.counted for cost in costs), sum(cost.used for cost in costs), sum(c.gmac for c in costs))


@cache
def footprint(
    size_px: int, width: float, backbone: str, classes: int = len(SEGMENTATION_CLASSES), what: str = ""
) -> Footprint:
    """Nothing is allocated: the networks are built on the meta device."""
    with torch.device("meta"):
        multitask = build_multitask(size=size_px, classes=classes, backbone=backbone, width=width)
        single = {
            task: build_singletask(task, size=size_px, classes=classes, width=width, unused=True) for task in NAMES
        }
    networks = [(NAMES[task], task, _cost(network, size_px)) for task, network in single.items()]
    what = what or f"As run: images of {size_px} px, {classes} classes, {backbone}, width {width:g}"
    return Footprint(what, networks, _cost(multitask, size_px))


def _cost(network: MultiTaskNet, size_px: int) -> Cost:
    counts = parameter_counts(network, size_px)
    return Cost(counts.counted, counts.used, sum(forward_gmac(network, size_px).values()))


def footprints(networks: Sequence[tuple[int, float, str]]) -> list[Footprint]:
    """For each (size in px, width, backbone) once, and the thesis's own."""
    thesis = f"The thesis's own: images of 1024 px, {THESIS_CLASSES} channels of segmentation, resnet50"
    return [
        *(footprint(size_px, width, backbone) for size_px, width, backbone in dict.fromkeys(networks)),
        footprint(1024, 1.0, "resnet50", THESIS_CLASSES, thesis),
    ]
