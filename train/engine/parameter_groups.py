"""Parts of a network that step on their own: each with an optimizer, a counter and pending gradients.

Source: section 3.5 of the thesis, after UberNet. For n tasks there are n + 1 counters, one per head and one for the
shared part; in the other regimes there is one part, which holds everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.engine.distributed import Ranks


class Part:
    """Parameters with what decides their next step. Counters and gradients run on across epochs."""

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, nn.Parameter],
        *,
        learning_rate: float,
        threshold: int | None = None,
        balance: Mapping[str, nn.Parameter] | None = None,
        balance_rate: float = 0.0,
    ) -> None:
        """`balance`: parameters of the loss's weights that learn with this part, at a rate of their own."""
        self.name = name
        self.threshold = threshold  # items between two steps; None: the plan alone says when
        weights = {key: value for key, value in parameters.items() if value.requires_grad}
        self.parameters = {**weights, **(balance or {})}
        groups = [{"params": list(weights.values()), "lr": learning_rate}]
        if balance:
            groups.append({"params": list(balance.values()), "lr": balance_rate})
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate, fused=True)
        self.counter = 0  # items since the last step
        self.updates = 0  # steps so far

    def count(self, items: int) -> None:
        """Items whose gradients it has, those of all ranks."""
        self.counter += items

    def step(self, ranks: Ranks) -> None:
        """Add up the ranks' gradients and take the step."""
        assert self.threshold in (None, self.counter), "the plan and the counters of a part go together"
        ranks.add_up_gradients(self.parameters.values())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.counter = 0
        self.updates += 1

    def describe(self) -> str:
        """`shared 12/48`"""
        return f"{self.name} {self.counter}/{self.threshold}"

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next, except the weights; tensors are not copied."""
        return {
            "counter": self.counter,
            "updates": self.updates,
            "optimizer": self.optimizer.state_dict(),
            "pending": gradients_of(self.parameters),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        self.counter, self.updates = state["counter"], state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        set_gradients(self.parameters, state["pending"])


class TaskGradients:
    """The gradients of some parameters, kept apart by task: what balances them, or measures how they agree, needs that.

    They are memory for one more copy of the parameters per task, so they are kept only where asked for.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = {key: value for key, value in parameters.items() if value.requires_grad}
        self.held: dict[str, dict[str, Tensor]] = {}  # task -> gradients by name

    def begin(self, task: str) -> None:
        """What a backward pass adds from here on is the task's."""
        set_gradients(self.parameters, self.held.get(task, {}))

    def end(self, task: str) -> None:
        """Take what the backward pass left."""
        self.held[task] = gradients_of(self.parameters)
        clear_gradients(self.parameters.values())

    def products(self, tasks: Iterable[str]) -> Tensor:
        """(n, n) float64: the inner products of the tasks' gradients."""
        rows = [self.held[task] for task in tasks]
        device = next(iter(self.parameters.values())).device
        gram = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=device)
        for name in self.parameters:
            stacked = [row.get(name) for row in rows]
            known = [place for place, value in enumerate(stacked) if value is not None]
            if known:
                flat = torch.stack([value.flatten() for value in stacked if value is not None]).to(torch.float64)
                index = torch.tensor(known, device=device)
                gram[index[:, None], index] += flat @ flat.T
        return gram

    def combine(self, weights: Mapping[str, Tensor]) -> None:
        """Set the parameters' gradients to the weighted sum of the tasks', and forget those."""
        for name, value in self.parameters.items():
            terms = [weights[task].to(held[name]) * held[name] for task, held in self.held.items() if name in held]
            # Summed pairwise, which keeps the parameter's memory format: the fused optimizer relies on it.
            value.grad = sum(terms[1:], terms[0]) if terms else None
        self.held = {}

    def add_up(self, ranks: Ranks, tasks: Iterable[str]) -> None:
        """Sum every task's gradients over the ranks; every rank names the same tasks."""
        for task in tasks if ranks.count > 1 else ():
            self.begin(task)
            ranks.add_up_gradients(self.parameters.values())
            self.end(task)


def gradients_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """By name; a parameter that nothing reached has none."""
    return {name: value.grad for name, value in parameters.items() if value.grad is not None}


def set_gradients(parameters: Mapping[str, nn.Parameter], gradients: Mapping[str, Tensor]) -> None:
    """The reverse of `gradients_of`."""
    for name, value in parameters.items():
        found = gradients.get(name)
        value.grad = None if found is None else found.to(value)


def clear_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Nothing is pending."""
    for value in parameters:
        value.grad = None
