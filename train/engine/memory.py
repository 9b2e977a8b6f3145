"""Out of memory in training: the step that did not fit is undone, and training goes on with smaller micro-batches."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from train.config import RunConfig
from train.data.plan import MicroBatch

if TYPE_CHECKING:
    from train.engine.step import TrainingStep


class Undo:
    """Remembers the state before each micro-batch that is larger than all before it.

    A copy takes the memory of weights, gradients and optimizer states once more, so there is none before a micro-batch
    no part of which is larger than one that fitted.
    """

    def __init__(self, on: bool) -> None:
        self.on = on
        self._fitted: Counter[str] = Counter()  # most images, and most rows of a task's segment
        self._state: dict[str, Any] | None = None

    def before(self, steps: TrainingStep, micro_batch: MicroBatch) -> None:
        """Copy the state where this micro-batch may not fit."""
        if self.on and _sizes(micro_batch) - self._fitted:
            self._state = {
                "weights": copy.deepcopy(steps.objective.network.state_dict()),
                "steps": copy.deepcopy(steps.state_dict()),
                "losses": len(steps.loss_log.records),
            }

    def after(self, micro_batch: MicroBatch) -> None:
        """Note that it fitted."""
        if self.on:
            self._fitted |= _sizes(micro_batch)
            self._state = None

    def undo(self, steps: TrainingStep) -> bool:
        """Bring back the state before the last micro-batch. False where it was not kept."""
        state, self._state = self._state, None
        if state is None:
            return False
        steps.objective.network.load_state_dict(state["weights"])
        steps.load_state_dict(state["steps"])
        del steps.loss_log.records[state["losses"] :]
        return True


def _sizes(micro_batch: MicroBatch) -> Counter[str]:
    sizes = Counter({"images": len(micro_batch.reads)})
    for segment in micro_batch.segments:
        sizes[segment.task] = max(sizes[segment.task], len(segment.rows))
    return sizes


def with_smaller_groups(config: RunConfig) -> RunConfig | None:
    """Return the config with micro-batches of half as many images, or less: a divisor. None where one is left.

    Groups of a divisor end where groups of the whole ended, so that an epoch goes on from any of these places.
    """
    images = config.stream.micro_batch
    if config.mode != "asymmetric":
        images = min(images, config.stream.batch_size)
    smaller = max((count for count in range(1, images) if images % count == 0), default=0)
    return replace(config, stream=replace(config.stream, micro_batch=smaller)) if smaller else None


def free_memory(device: torch.device) -> None:
    """Give the GPU what PyTorch keeps for reuse, which may be in pieces of the wrong size."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
