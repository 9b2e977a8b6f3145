"""The asymmetric regime's arithmetic: one item at a time, and every part steps when its own counter is full.

Source: section 3.5 of the thesis, after UberNet. For n tasks there are n + 1 counters, one per head and one for
the shared part. This plain form is the reference that faster groupings of the same arithmetic are held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from train.config import SHARED


class Accumulator:
    """Parts with their optimizers, counters and pending gradients.

    Before its backward pass a task's loss is divided by its coefficient and by its head's threshold, so a head
    steps on the mean of its window; the shared part steps on the sum of what its window brought. Counters and
    pending gradients run on for as long as the accumulator lives, across epochs too.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        *,
        thresholds: Mapping[str, int],
        learning_rates: Mapping[str, float],
        coefficients: Mapping[str, float],
    ) -> None:
        self.thresholds = {part: thresholds[part] for part in parts}  # items between two steps of the part
        self.coefficients = {part: coefficients[part] for part in parts if part != SHARED}
        self.parameters = {
            part: {name: value for name, value in module.named_parameters() if value.requires_grad}
            for part, module in parts.items()
        }
        self.optimizers = {
            part: torch.optim.Adam(values.values(), lr=learning_rates[part]) for part, values in self.parameters.items()
        }
        self.counters = dict.fromkeys(parts, 0)  # items since the part's last step
        self.updates = dict.fromkeys(parts, 0)  # steps so far

    def add(self, task: str, loss: Tensor) -> list[str]:
        """Take the undivided loss of one item, (), fresh from a forward pass. Returns the parts that stepped.

        The head steps before the shared part does.
        """
        (loss / (self.coefficients[task] * self.thresholds[task])).backward()
        stepped = []
        for part in (task, SHARED):
            self.counters[part] += 1
            if self.counters[part] == self.thresholds[part]:
                self._step(part)
                stepped.append(part)
        return stepped

    def _step(self, part: str) -> None:
        self.optimizers[part].step()
        self.optimizers[part].zero_grad()
        self.counters[part] = 0
        self.updates[part] += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next, except the weights; tensors are not copied."""
        return {
            "counters": dict(self.counters),
            "updates": dict(self.updates),
            "optimizers": {part: optimizer.state_dict() for part, optimizer in self.optimizers.items()},
            "pending": {
                part: {name: value.grad for name, value in values.items() if value.grad is not None}
                for part, values in self.parameters.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; thresholds may not be below what has been counted."""
        for part, values in self.parameters.items():
            if state["counters"][part] >= self.thresholds[part]:
                raise ValueError(
                    f"threshold of {part} must be above the {state['counters'][part]} items already counted, "
                    f"got {self.thresholds[part]}"
                )
            self.counters[part] = state["counters"][part]
            self.updates[part] = state["updates"][part]
            self.optimizers[part].load_state_dict(state["optimizers"][part])
            for name, value in values.items():
                pending = state["pending"][part].get(name)
                value.grad = None if pending is None else pending.to(value, copy=True)
