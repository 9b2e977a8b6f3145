"""Constant predictions of depth: for each metric the constant that is best in it, for all pixels and for each one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from train.tasks.definition import Constant
from train.tasks.pixel_histogram import PixelHistogram

DELTA1_RATIO = 1.25  # delta1 counts predictions within this factor of the truth
_LEAST_M = 0.5  # where the logarithmic bins of a pixel's distances begin
_PIXEL_BINS = 128  # of them: each 4 to 5 % farther than the last
_BINS_PER_M = 256  # of the histogram of distances: the steps of 16-bit depth, finer than those of 8-bit depth


class DepthConstants:
    """For each metric the constant that is best in it, for all pixels and at each pixel of the sample."""

    def __init__(self, max_m: float) -> None:
        self.max_m = max_m
        self.returns = torch.zeros(int(max_m * _BINS_PER_M) + 2, dtype=torch.int64)  # per step of distance
        self.pixels = PixelHistogram(_PIXEL_BINS)

    def update(self, label: Tensor) -> None:
        """(n, S, S) metres, 0 = no return."""
        label = label.cpu()
        valid = label > 0
        bins = (label[valid] * _BINS_PER_M).round().long().clamp(max=len(self.returns) - 1)
        self.returns += torch.bincount(bins, minlength=len(self.returns))
        share = (label.clamp(min=_LEAST_M) / _LEAST_M).log() / math.log(self.max_m / _LEAST_M)
        self.pixels.add((share * _PIXEL_BINS).long().clamp(0, _PIXEL_BINS - 1), valid)

    def constants(self) -> list[Constant]:
        """All in metres: four numbers, and four of (S, S)."""
        if not self.returns.any():
            return []
        metres = torch.arange(len(self.returns), dtype=torch.float64) / _BINS_PER_M
        counts = self.returns.double()
        median = weighted_median(counts) / _BINS_PER_M
        found = {
            f"median {median:.2f} m": median,
            "{:.2f} m, best in AbsRel": weighted_median(counts / metres.clamp(min=1 / _BINS_PER_M)) / _BINS_PER_M,
            "mean {:.2f} m": (counts * metres).sum() / counts.sum(),
            "{:.2f} m, best in delta1": best_within_ratio(counts, DELTA1_RATIO) / _BINS_PER_M,
        }
        constants = [Constant(name.format(value), value) for name, value in found.items()]
        pixels = self._of_pixels(median)
        return [*constants, *(Constant(name, self.pixels.to_pixels(metres)) for name, metres in pixels.items())]

    def _of_pixels(self, median: Tensor) -> dict[str, Tensor]:
        """(cells, cells) metres for each metric; a pixel without a return has those of its row, else the median."""
        cells = self.pixels.cells()
        rows = cells.sum(1, keepdim=True).expand_as(cells)
        counts = torch.where(cells.any(-1, keepdim=True), cells, rows)
        ratio = self.max_m / _LEAST_M
        metres = _LEAST_M * ratio ** ((torch.arange(_PIXEL_BINS).double() + 0.5) / _PIXEL_BINS)
        reach = int(math.log(DELTA1_RATIO) / math.log(ratio) * _PIXEL_BINS)  # bins to either side within the ratio
        sums = F.pad(counts.cumsum(-1), (1, 0))
        places = torch.arange(_PIXEL_BINS)
        near = sums[..., (places + reach + 1).clamp(max=_PIXEL_BINS)] - sums[..., (places - reach).clamp(min=0)]
        found = {
            "median of each pixel": metres[_middle(counts)],
            "each pixel's best in AbsRel": metres[_middle(counts / metres)],
            "mean of each pixel": (counts * metres).sum(-1) / counts.sum(-1).clamp(min=1),
            "each pixel's best in delta1": metres[near.argmax(-1)],
        }
        return {name: torch.where(counts.any(-1), value, median) for name, value in found.items()}


def _middle(weights: Tensor) -> Tensor:
    """(..., bins) -> (...) int64: the lowest bin that at least half of all weight does not exceed."""
    sums = weights.cumsum(-1)
    return (sums * 2 >= sums[..., -1:]).int().argmax(-1)


def best_within_ratio(counts: Tensor, ratio: float) -> Tensor:
    """Return the bin whose values times 1/ratio..ratio hold the most counts, the bins' values growing evenly from 0."""
    bins = torch.arange(len(counts), dtype=torch.float64)
    below = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    low = (bins / ratio).floor().long() + 1
    high = (bins * ratio).ceil().long().clamp(max=len(counts))
    return (below[high] - below[low.clamp(max=len(counts))]).argmax().double()


def weighted_median(counts: Tensor) -> Tensor:
    """Return the lowest bin that at least half of all counts do not exceed."""
    return _middle(counts).double()
