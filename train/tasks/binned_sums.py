"""Mean errors by the size of the truth, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from train.tasks.definition import Part


class BinnedSums:
    """Sums of errors in bins of the true value; the last bin has no upper end."""

    def __init__(self, edges: Sequence[int], errors: int) -> None:
        """`edges` are the lower ends of the bins, `errors` how many errors each value has."""
        self.edges = edges
        self.sums = torch.zeros(1 + errors, len(edges), dtype=torch.float64)  # the first row counts values

    @property
    def total(self) -> int:
        """Values added so far."""
        return int(self.sums[0].sum().item())

    def add(self, truth: Tensor, *errors: Tensor) -> None:
        """Add values: tensors of one shape, float64; truth is at least the first edge."""
        edges = torch.tensor(self.edges[1:], dtype=truth.dtype, device=truth.device)
        bins = torch.bucketize(truth.flatten(), edges, right=True)
        weights = (torch.ones_like(truth), *errors)
        self.sums += torch.stack(
            [torch.bincount(bins, of.flatten(), minlength=len(self.edges)) for of in weights]
        ).cpu()

    def parts(self, unit: str, names: Sequence[str]) -> list[Part]:
        """Return the mean of each error in each bin, under these names."""
        ends = [*(f"{low}-{high}" for low, high in zip(self.edges, self.edges[1:], strict=False)), f"{self.edges[-1]}+"]
        return [
            {
                "of": f"{end} {unit}",
                "count": int(count),
                "values": {name: total / count if count else None for name, total in zip(names, totals, strict=True)},
            }
            for end, (count, *totals) in zip(ends, self.sums.T.tolist(), strict=True)
        ]
