"""Parameters and multiply-adds of each single-task network and of the multi-task network: table 4.2 of the thesis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

from models.cost import forward_gmac, parameter_counts
from models.multitask import MultiTaskNet, build_multitask
from models.singletask import NAMES, build_singletask

THESIS_CLASSES = 43  # segmentation channels of the author's networks, three of them never used


@dataclass(frozen=True)
class Cost:
    """Parameters and arithmetic of one network."""

    counted: int  # parameters, including layers that the thesis counts although no forward pass uses them
    used: int  # parameters that receive a gradient
    gmac: float  # giga multiply-adds of a forward of one image


@dataclass(frozen=True)
class Footprint:
    """Costs of all networks for one image size and one width."""

    what: str
    networks: list[tuple[str, str, Cost]]  # name, task, cost
    multitask: Cost

    @property
    def total(self) -> Cost:
        """The sum over the single-task networks."""
        costs = [cost for _, _, cost in self.networks]
        return Cost(sum(cost.counted for cost in costs), sum(cost.used for cost in costs), sum(c.gmac for c in costs))


@cache
def footprint(size_px: int, width: float, backbone: str, classes: int, what: str = "") -> Footprint:
    """Build the networks on the meta device, which allocates no memory, and count."""
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


def footprints(networks: Sequence[tuple[int, float, str]], classes: int) -> list[Footprint]:
    """A table for each different (size in px, width, backbone), then the thesis's own network."""
    thesis = f"The thesis's own: images of 1024 px, {THESIS_CLASSES} channels of segmentation, resnet50"
    return [
        *(footprint(size_px, width, backbone, classes) for size_px, width, backbone in dict.fromkeys(networks)),
        footprint(1024, 1.0, "resnet50", THESIS_CLASSES, thesis),
    ]
