"""The asymmetric regime written out, one item at a time: what faster groupings of the arithmetic are held against.

Source: section 3.5 of the thesis. Used by the tests and, with all heads run as the thesis's code does, by the
benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from train.data.stream import Batch
from train.engine.objective import Objective


class PlainLoop:
    """A counter and an optimizer per part; the loss over coefficient and threshold; the head steps first."""

    def __init__(
        self,
        objective: Objective,
        thresholds: Mapping[str, int],
        coefficients: Mapping[str, float],
        rates: Mapping[str, float],
        *,
        all_heads: bool = False,
    ) -> None:
        self.objective, self.thresholds, self.coefficients = objective, thresholds, coefficients
        self.all_heads = all_heads
        self.modules = objective.network.parts()
        self.optimizers = {
            part: torch.optim.Adam(module.parameters(), lr=rates[part]) for part, module in self.modules.items()
        }
        self.counters = dict.fromkeys(self.modules, 0)
        self.updates = dict.fromkeys(self.modules, 0)
        self.trace: list[tuple[list[str], tuple[int, ...]]] = []  # who stepped, in order; counters after it

    def item(self, batch: Batch) -> None:
        """A batch of one image and one label."""
        ((task, label),) = batch.labels.items()
        tasks = list(self.modules)[1:] if self.all_heads else [task]
        output = self.objective.network(self.objective.images(batch.images), tasks)[task]
        loss = self.objective.losses(task, output, label).sum()
        (loss / self.coefficients[task] / self.thresholds[task]).backward()
        stepped = []
        for part in (task, "shared"):
            self.counters[part] += 1
            if self.counters[part] == self.thresholds[part]:
                self.optimizers[part].step()
                self.optimizers[part].zero_grad()
                self.counters[part] = 0
                self.updates[part] += 1
                stepped.append(part)
        self.trace.append((stepped, tuple(self.counters.values())))
