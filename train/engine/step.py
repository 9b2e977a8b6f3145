"""One training step: a planned micro-batch through the network, and a step of every parameter group that is full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.norms import follow_stream
from train.config import ALL, SHARED, RunConfig
from train.data.batch import Batch
from train.data.plan import MicroBatch, Segment
from train.engine.balance import Balance
from train.engine.detached_features import DetachedFeatures, row_index
from train.engine.distributed import ProcessGroup
from train.engine.loss_log import LossLog, LossRecord
from train.engine.memory import Undo
from train.engine.objective import Objective
from train.engine.parameter_group import ParameterGroup, clear_gradients
from train.engine.task_gradients import SharedBackward


class TrainingStep:
    """The parameter groups of a network, and how a micro-batch moves them.

    The shared part runs once for all images of a micro-batch. Its maps are cut from the graph, so that a head can go
    forward and backward on its own rows, and step within a micro-batch, while the gradients of the maps add up and go
    through the shared part once.
    """

    def __init__(self, config: RunConfig, objective: Objective, group: ProcessGroup | None = None) -> None:
        self.objective = objective
        self.group = group or ProcessGroup()
        network = objective.network
        self.balance = Balance(config.balance, config.tasks, config.coefficient, objective.device, config.seed)
        modules = network.parts() if config.mode == "asymmetric" else {ALL: network}
        self.parameter_groups = {
            name: ParameterGroup(
                name,
                dict(module.named_parameters()),
                learning_rate=config.learning_rate[name],
                threshold=config.threshold.get(name),
                balance=self._learnt_weights_of(name),
                balance_rate=config.balance.learning_rate,
            )
            for name, module in modules.items()
        }
        groups = self.parameter_groups
        self.outer = groups[SHARED if SHARED in groups else ALL]  # the group that steps at the end of a micro-batch
        self.shared = SharedBackward(network.parts().get(SHARED), self.balance, self.group, config.measure_every)
        self.loss_log = LossLog(self.group)
        # A rank that runs out of memory in the middle of an exchange cannot take the others back with it.
        self.undo = Undo(on=objective.device.type == "cuda" and self.group.size == 1)

    def _learnt_weights_of(self, part: str) -> dict[str, torch.nn.Parameter]:
        logs = self.balance.logs
        return {f"balance.{task}": log for task, log in logs.items() if part in (task, ALL)}

    def run(self, micro_batch: MicroBatch, batch: Batch | None, where: str) -> None:
        """Train on this rank's share of a micro-batch; `batch` (on the device) holds its samples, None for none."""
        self.undo.before(self, micro_batch)
        self._run(micro_batch, batch, where)
        self.undo.after(micro_batch)

    def _run(self, micro_batch: MicroBatch, batch: Batch | None, where: str) -> None:
        features = DetachedFeatures(self._forward_shared(micro_batch, batch))
        for segment in micro_batch.segments:
            if segment.rows and batch is not None:
                self._train_head(segment, batch, features, where)
            head = self.parameter_groups.get(segment.task)
            if head is not None:
                head.count(segment.items)
                if segment.steps:
                    head.step(self.group)
        self.shared.backward(features, self.outer.updates)
        self.outer.count(micro_batch.items)
        if micro_batch.steps:
            self.shared.combine(self.outer.updates)
            self.outer.step(self.group)

    def _forward_shared(self, micro_batch: MicroBatch, batch: Batch | None) -> tuple[Tensor, ...]:
        """Return the shared part's maps; sample norms move as the items one after the other would move them."""
        norms = follow_stream(self.objective.network, micro_batch.order, self.group.size)
        maps: tuple[Tensor, ...] = ()
        if batch is not None:
            maps = self.objective.features(batch)
        else:
            for norm in norms:
                norm.advance()
        self.group.all_reduce(value for norm in norms for value in (norm.running_mean, norm.running_var))
        return maps

    def _train_head(self, segment: Segment, batch: Batch, features: DetachedFeatures, where: str) -> None:
        """Run a head forward and backward on the rows of its items, and accumulate the gradient of the maps."""
        task = segment.task
        taken = features.take(self.objective.network.levels[task], segment.rows)
        label = batch.labels[task]
        if segment.labels != tuple(range(len(label))):
            label = label.index_select(0, row_index(segment.labels, label.device))
        losses = self.objective.losses(task, self.objective.head(task, taken), label)
        (self.balance.weigh(task, losses) * segment.share).sum().backward()
        features.add_gradient(task, taken)
        keys = tuple(batch.keys[row] for row in segment.rows)
        self.loss_log.add(LossRecord(task, losses.detach(), keys, where))

    def losses(self) -> dict[str, list[float]]:
        """Return every rank's undivided losses since the last call, by task; see LossLog."""
        losses = self.loss_log.read()
        self.balance.note(losses)
        return losses

    def gather_pending(self) -> None:
        """Move all pending gradients to the main rank, so that its state is the run's."""
        if self.group.size == 1:
            return
        self.shared.gather()
        for part in self.parameter_groups.values():
            self.group.all_reduce_gradients(part.parameters.values())
        self._keep_pending_on_main()

    def _keep_pending_on_main(self) -> None:
        if not self.group.is_main:
            self.shared.gradients.held = {}
            for part in self.parameter_groups.values():
                clear_gradients(part.parameters.values())

    @property
    def counters(self) -> dict[str, int]:
        """Items since the last step of each parameter group."""
        return {name: part.counter for name, part in self.parameter_groups.items()}

    @property
    def updates(self) -> dict[str, int]:
        """Optimizer steps so far of each parameter group."""
        return {name: part.updates for name, part in self.parameter_groups.items()}

    def describe(self) -> str:
        """Return the counters for the log, `shared 12/48 steering 3/24 ...`, or the steps so far."""
        if ALL in self.parameter_groups:
            return f"updates {self.outer.updates}"
        return " ".join(part.describe() for part in self.parameter_groups.values())

    def state_dict(self) -> dict[str, Any]:
        """Return everything beside the weights that decides what comes next; tensors are not copied."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parameter_groups.items()},
            "apart": {task: dict(held) for task, held in self.shared.gradients.held.items()},
            "balance": self.balance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        for name, part in self.parameter_groups.items():
            part.load_state_dict(state["parts"][name])
        device = self.objective.device
        self.shared.gradients.held = {
            task: {name: value.to(device) for name, value in held.items()} for task, held in state["apart"].items()
        }
        self.balance.load_state_dict(state["balance"])
        self._keep_pending_on_main()
