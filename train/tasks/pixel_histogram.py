"""Histograms of a label for each pixel of the sample: what a predictor that never sees the image would predict there.

Memory is bounded: at most CELLS x CELLS cells, so that at 512 and 1024 px a cell holds 2 x 2 or 4 x 4 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

CELLS = 256  # cells along a side at most


class PixelHistogram:
    """Counts of values in bins, for each cell of a square grid over the sample."""

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self.counts = torch.zeros(0, dtype=torch.int32)  # (cells * cells * bins,), from the first label on
        self._cell_of: Tensor = torch.zeros(0)  # (S, S) int64: the first bin of each pixel's cell
        self._side = 0

    def add(self, bins: Tensor, valid: Tensor) -> None:
        """Count labels: bins (n, S, S) in 0..bins - 1, of which those where `valid` is true count."""
        if not len(self.counts):
            self._side = bins.shape[-1]
            cells = min(self._side, CELLS)
            at = torch.arange(self._side) * cells // self._side
            self._cell_of = (at[:, None] * cells + at[None]) * self.bins
            self.counts = torch.zeros(cells * cells * self.bins, dtype=torch.int32)
        places = (self._cell_of + bins.long().cpu())[valid.cpu()]
        self.counts.scatter_add_(0, places, torch.ones((), dtype=torch.int32).expand_as(places))

    def cells(self) -> Tensor:
        """Return the counts as (cells, cells, bins); (0, 0, bins) before the first label."""
        cells = min(self._side, CELLS)
        return self.counts.view(cells, cells, self.bins)

    def to_pixels(self, cells: Tensor) -> Tensor:
        """Return a value per cell, (cells, cells), as one per pixel, (S, S)."""
        at = torch.arange(self._side) * len(cells) // self._side
        return cells[at][:, at]
