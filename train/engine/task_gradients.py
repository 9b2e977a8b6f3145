"""Gradients of the shared part, kept apart by task: to combine them by PCGrad, or to measure how they agree.

They take memory for one more copy of the shared parameters per task, so they are kept apart only where needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from train.engine.balance import Balance
from train.engine.detached_features import DetachedFeatures
from train.engine.distributed import ProcessGroup
from train.engine.parameter_group import clear_gradients, gradients_of, set_gradients


class TaskGradients:
    """The gradients of some parameters, by task."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = {key: value for key, value in parameters.items() if value.requires_grad}
        self.held: dict[str, dict[str, Tensor]] = {}  # task -> gradients by name of the parameter

    def begin(self, task: str) -> None:
        """Let following backward passes add to the gradients of `task`."""
        set_gradients(self.parameters, self.held.get(task, {}))

    def end(self, task: str) -> None:
        """Take the gradients that the backward passes since `begin` left."""
        self.held[task] = gradients_of(self.parameters)
        clear_gradients(self.parameters.values())

    def products(self, tasks: Iterable[str]) -> Tensor:
        """Return (n, n) float64: the inner products of the tasks' gradients."""
        rows = [self.held[task] for task in tasks]
        device = next(iter(self.parameters.values())).device
        gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=device)
        for name, value in self.parameters.items():
            found = [row.get(name) for row in rows]
            if any(gradient is not None for gradient in found):
                zero = torch.zeros_like(value)
                flat = torch.stack([(zero if gradient is None else gradient).flatten() for gradient in found])
                gram += flat.to(torch.float64) @ flat.to(torch.float64).T
        return gram

    def combine(self, weights: Mapping[str, Tensor]) -> None:
        """Set the parameters' gradients to the weighted sum of the tasks' gradients, and drop those."""
        for name, value in self.parameters.items():
            terms = [weights[task].to(held[name]) * held[name] for task, held in self.held.items() if name in held]
            # Summed pairwise, which keeps the parameter's memory format: the fused optimizer relies on it.
            value.grad = sum(terms[1:], terms[0]) if terms else None
        self.held = {}

    def all_reduce(self, group: ProcessGroup, tasks: Iterable[str]) -> None:
        """Sum every task's gradients over the ranks; every rank names the same tasks."""
        for task in tasks if group.size > 1 else ():
            self.begin(task)
            group.all_reduce_gradients(self.parameters.values())
            self.end(task)


class SharedBackward:
    """The backward pass through the shared part: once for all tasks, or once per task where they are kept apart."""

    def __init__(self, shared: nn.Module | None, balance: Balance, group: ProcessGroup, measure_every: int) -> None:
        """`measure_every`: steps of the shared part between two measurements of the agreement; 0: none."""
        self.balance = balance
        self.group = group
        self.measure_every = measure_every
        self.gradients = TaskGradients({} if shared is None else dict(shared.named_parameters()))
        self._measured: tuple[list[str], Tensor] | None = None  # tasks and products of the last step that was measured

    @property
    def agreement(self) -> dict[str, Any]:
        """The agreement at the last step that was measured; reads back from the device."""
        return agreement(*self._measured) if self._measured else {}

    def _measures(self, step: int) -> bool:
        return self.measure_every > 0 and step % self.measure_every == 0

    def _keeps_apart(self, step: int) -> bool:
        return bool(self.gradients.parameters) and (self.balance.apart or self._measures(step))

    def backward(self, features: DetachedFeatures, step: int) -> None:
        """Send the heads' gradients through the shared part, whose next step is number `step`."""
        if not self.gradients.parameters:
            return
        if not self._keeps_apart(step):
            features.backward(features.tasks)
            return
        for position, task in enumerate(features.tasks):
            self.gradients.begin(task)
            features.backward([task], keep_graph=position + 1 < len(features.tasks))
            self.gradients.end(task)

    def combine(self, step: int) -> None:
        """Turn the tasks' gradients into the shared part's, before its step number `step`."""
        if not self._keeps_apart(step):
            return
        tasks = self._tasks_of_all_ranks()
        self.gradients.all_reduce(self.group, tasks)
        products = self.gradients.products(tasks)
        weights = self.balance.combination(tasks, products, step)
        if self._measures(step):
            self._measured = (tasks, products)
        # The gradients are sums over the ranks already, and the step sums once more.
        self.gradients.combine({task: weight / self.group.size for task, weight in weights.items()})

    def _tasks_of_all_ranks(self) -> list[str]:
        return sorted({task for held in self.group.all_gather(list(self.gradients.held)) for task in held})

    def gather(self) -> None:
        """Sum pending gradients over the ranks; every rank holds the sum."""
        self.gradients.all_reduce(self.group, self._tasks_of_all_ranks())


def agreement(tasks: Sequence[str], products: Tensor) -> dict[str, Any]:
    """Return the norm of each task's gradient and the cosine of each pair; reads back from the device."""
    lengths = products.diagonal().sqrt()
    cosines = (products / (lengths[:, None] * lengths[None, :]).clamp(min=1e-30)).tolist()
    return {
        "norms": dict(zip(tasks, lengths.tolist(), strict=True)),
        "cosines": {
            f"{tasks[first]} {tasks[second]}": cosines[first][second]
            for first in range(len(tasks))
            for second in range(first + 1, len(tasks))
        },
    }
