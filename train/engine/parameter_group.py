"""A parameter group: parameters that step together, with an optimizer, a counter and pending gradients.

Source: section 3.5 of the thesis, after UberNet. For n tasks there are n + 1 groups in the asymmetric regime, one per
head and one for the shared part; in the other regimes there is one, which holds everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.engine.distributed import ProcessGroup


class ParameterGroup:
    """Parameters and the state that decides their next step. Counters and gradients run on across epochs."""

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
        """`balance`: learnt weights of losses that step with this group, at a learning rate of their own."""
        self.name = name
        self.threshold = threshold  # items between two steps; None: the plan alone decides
        weights = {key: value for key, value in parameters.items() if value.requires_grad}
        self.parameters = {**weights, **(balance or {})}
        groups = [{"params": list(weights.values()), "lr": learning_rate}]
        if balance:
            groups.append({"params": list(balance.values()), "lr": balance_rate})
        self.optimizer = torch.optim.Adam(groups, lr=learning_rate, fused=True)
        self.counter = 0  # items since the last step
        self.updates = 0  # steps so far

    def count(self, items: int) -> None:
        """Count items of all ranks whose gradients are pending."""
        self.counter += items

    def step(self, group: ProcessGroup) -> None:
        """Sum the gradients over the ranks and take a step."""
        assert self.threshold in (None, self.counter), "the plan and the counters of a group go together"
        group.all_reduce_gradients(self.parameters.values())
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.counter = 0
        self.updates += 1

    def describe(self) -> str:
        """`shared 12/48`"""
        return f"{self.name} {self.counter}/{self.threshold}"

    def state_dict(self) -> dict[str, Any]:
        """Return everything beside the weights that decides what comes next; tensors are not copied."""
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


def gradients_of(parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return gradients by name; a parameter that no item reached has none."""
    return {name: value.grad for name, value in parameters.items() if value.grad is not None}


def set_gradients(parameters: Mapping[str, nn.Parameter], gradients: Mapping[str, Tensor]) -> None:
    """Set gradients by name, the reverse of `gradients_of`."""
    for name, value in parameters.items():
        found = gradients.get(name)
        value.grad = None if found is None else found.to(value)


def clear_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Drop the gradients."""
    for value in parameters:
        value.grad = None
