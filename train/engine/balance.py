"""Balance of the losses of different tasks, for any combination of labels.

`fixed`: each loss is divided by its coefficient. `epoch`: the same, and after every epoch each coefficient becomes
the mean of its loss over that epoch (the thesis's future work). `uncertainty`: the coefficients are learnt (Kendall,
Gal and Cipolla 2018). `pcgrad`: fixed, and on the shared part the tasks' gradients of a window give way to each other
where they conflict (Yu et al. 2020).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from train.config import BalanceConfig


class Balance:
    """The weights of the losses, and their update."""

    def __init__(
        self,
        config: BalanceConfig,
        tasks: Sequence[str],
        coefficients: Mapping[str, float],
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self.method = config.method
        self.seed = seed
        self.coefficients = {task: coefficients.get(task, 1.0) for task in tasks}
        self.sums: dict[str, float] = {}  # of the losses of the epoch under way
        self.counts: dict[str, int] = {}
        # The logarithm of each coefficient, learnt: at its optimum the coefficient is the mean loss.
        self.logs: dict[str, nn.Parameter] = {}
        if self.method == "uncertainty":
            self.logs = {
                task: nn.Parameter(torch.tensor(math.log(value), dtype=torch.float64, device=device))
                for task, value in self.coefficients.items()
            }

    @property
    def apart(self) -> bool:
        """Whether the shared part needs each task's gradient separately."""
        return self.method == "pcgrad"

    def weigh(self, task: str, losses: Tensor) -> Tensor:
        """(n,) undivided losses -> (n,) weighted losses, which are minimised.

        `uncertainty` minimises loss exp(-s) + s, which is least where exp(s) is the mean loss.
        """
        if self.method == "uncertainty":
            return losses * torch.exp(-self.logs[task]) + self.logs[task]
        return losses / self.coefficients[task]

    def combination(self, tasks: Sequence[str], products: Tensor, step: int) -> dict[str, Tensor]:
        """Return the factor of each task's gradient in the shared part's gradient at its step number `step`."""
        weights = products.new_ones(len(tasks))
        if self.method == "pcgrad":
            weights = pcgrad_weights(products, np.random.default_rng((self.seed, step)))
        return dict(zip(tasks, weights.unbind(), strict=True))

    def note(self, losses: Mapping[str, Sequence[float]]) -> None:
        """Record undivided training losses of all ranks."""
        for task, values in losses.items():
            self.sums.setdefault(task, 0.0)
            for value in values:  # one by one: however many come at once, the sum is the same
                self.sums[task] += value
            self.counts[task] = self.counts.get(task, 0) + len(values)

    def end_epoch(self) -> None:
        """Set the coefficients of the next epoch; a task without a label in this epoch keeps its own."""
        if self.method == "epoch":
            means = {task: self.sums[task] / count for task, count in self.counts.items() if count}
            self.coefficients.update({task: mean for task, mean in means.items() if mean > 0})
        self.sums, self.counts = {}, {}

    def current(self) -> dict[str, float]:
        """Return the current coefficients."""
        if self.method == "uncertainty":
            return {task: math.exp(value.item()) for task, value in self.logs.items()}
        return dict(self.coefficients)

    def state_dict(self) -> dict[str, Any]:
        """Return the state; tensors are not copied."""
        return {
            "coefficients": dict(self.coefficients),
            "logs": {task: log.data for task, log in self.logs.items()},
            "sums": dict(self.sums),
            "counts": dict(self.counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.coefficients = dict(state["coefficients"])
        self.sums, self.counts = dict(state["sums"]), dict(state["counts"])
        for task, value in state["logs"].items():
            self.logs[task].data.copy_(value)


def coefficients_from(runs: Sequence[Path]) -> dict[str, float]:
    """Return coefficients by the thesis's rule (section 3.6): the val losses of single-task runs.

    Each task's coefficient is the undivided val loss of its run's best checkpoint, so that a divided loss of 1 says
    as good as alone. Raises ValueError where a folder holds no finished run of one task, or two hold the same one.
    """
    found: dict[str, float] = {}
    for folder in runs:
        try:
            record = json.loads((folder / "eval.json").read_bytes())
            task, losses = record["task"], record["val_losses"]
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"--coefficients-from needs a finished run, got {folder}: no eval.json of one") from error
        if task is None:
            raise ValueError(f"--coefficients-from needs runs of mode single, got {folder}: mode {record['mode']}")
        if task in found:
            raise ValueError(f"--coefficients-from needs one run a task, got {folder}: {task} is there already")
        if not losses.get(task, 0) > 0:
            raise ValueError(f"--coefficients-from needs a val loss above 0, got {folder}: {losses.get(task)}")
        found[task] = losses[task]
    return found


def pcgrad_weights(products: Tensor, generator: np.random.Generator) -> Tensor:
    """Return PCGrad's weight of each task's gradient, computed from the inner products of the gradients alone.

    Each gradient in turn loses, for every other one in random order that it conflicts with, its component along it
    (algorithm 1 of Yu et al. 2020). products (n, n), gradients that are zero included. Returns (n,).
    """
    count = len(products)
    total = products.new_zeros(count)
    for task in range(count):
        own = torch.eye(count, dtype=products.dtype, device=products.device)[task]
        for other in generator.permutation(count).tolist():
            if other != task:
                conflict = (own @ products[:, other]).clamp(max=0)
                length = products[other, other].clamp(min=torch.finfo(products.dtype).tiny)
                own[other] -= conflict / length
        total += own
    return total
