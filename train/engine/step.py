"""One training step: a planned group through the network, and every part that is full steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.backbone import follow_stream
from train.config import ALL, SHARED, RunConfig
from train.data.plan import Group, Segment
from train.data.stream import Batch
from train.engine.balance import Balance
from train.engine.distributed import Ranks
from train.engine.objective import Objective
from train.engine.parameter_groups import Part, TaskGradients, clear_gradients


@dataclass(frozen=True)
class LossRecord:
    """Undivided losses of some samples, still on the device: reading them back waits for it."""

    task: str
    values: Tensor  # (n,)
    keys: tuple[str, ...]
    where: str


class Steps:
    """The network's parts, and how a group moves them.

    The shared part runs once for all images of a group. Its maps are cut from the graph, so that a head can go
    forward and backward on its own rows, and step in the middle of a group, while what comes back to the maps adds up
    and goes through the shared part once. `config.measure_every`-th steps of the shared part keep the tasks' gradients
    on it apart, to see how long they are and how they agree; the sum is the same.
    """

    def __init__(self, config: RunConfig, objective: Objective, ranks: Ranks | None = None) -> None:
        self.objective = objective
        self.ranks = ranks or Ranks()
        self.measure_every = config.measure_every
        network = objective.network
        self.balance = Balance(config.balance, config.tasks, config.coefficient, objective.device, config.seed)
        modules = network.parts() if config.mode == "asymmetric" else {ALL: network}
        self.parts = {
            name: Part(
                name,
                dict(module.named_parameters()),
                learning_rate=config.learning_rate[name],
                threshold=config.threshold.get(name),
                balance=self._logs_of(name),
                balance_rate=config.balance.learning_rate,
            )
            for name, module in modules.items()
        }
        self.whole = self.parts[SHARED if SHARED in self.parts else ALL]  # what steps at the end of a group
        shared = network.parts().get(SHARED)
        self.apart = TaskGradients({} if shared is None else dict(shared.named_parameters()))
        self.records: list[LossRecord] = []
        self.agreement: dict[str, Any] = {}  # of the last step of the shared part that was measured

    def _logs_of(self, part: str) -> dict[str, torch.nn.Parameter]:
        logs = self.balance.logs
        return {f"balance.{task}": log for task, log in logs.items() if part in (task, ALL)}

    def run(self, group: Group, batch: Batch | None, where: str) -> None:
        """Train on this rank's share of a group; `batch` (on the device) holds its reads, None where it has none."""
        maps = self._features(group, batch)
        received = _Received(maps)
        for segment in group.segments:
            if segment.rows and batch is not None:
                self._through_head(segment, batch, received, where)
            head = self.parts.get(segment.task)
            if head is not None:
                head.count(segment.items)
                if segment.steps:
                    head.step(self.ranks)
        self._through_shared(received)
        self.whole.count(group.items)
        if group.steps:
            self._join_tasks()
            self.whole.step(self.ranks)

    def _features(self, group: Group, batch: Batch | None) -> tuple[Tensor, ...]:
        """The shared part's maps; sample norms move as the stream's order would have moved them."""
        norms = follow_stream(self.objective.network, group.order, self.ranks.count)
        maps: tuple[Tensor, ...] = ()
        if batch is not None:
            maps = self.objective.features(batch)
        else:
            for norm in norms:
                norm.advance()
        self.ranks.add_up(value for norm in norms for value in (norm.running_mean, norm.running_var))
        return maps

    def _through_head(self, segment: Segment, batch: Batch, received: _Received, where: str) -> None:
        """A head forward and backward on the rows of its items; what comes back to the maps is kept."""
        task = segment.task
        taken = received.take(self.objective.network.levels[task], segment.rows)
        label = batch.labels[task]
        if segment.labels != tuple(range(len(label))):
            label = label[torch.tensor(segment.labels, device=label.device)]
        losses = self.objective.losses(task, self.objective.head(task, taken), label)
        (self.balance.weigh(task, losses) * segment.share).sum().backward()
        received.give(task, taken)
        self.records.append(LossRecord(task, losses.detach(), tuple(batch.keys[row] for row in segment.rows), where))

    @property
    def _measured(self) -> bool:
        return self.measure_every > 0 and self.whole.updates % self.measure_every == 0

    def _through_shared(self, received: _Received) -> None:
        """One backward pass through the shared part, or one per task where their gradients are kept apart."""
        if not self.apart.parameters:
            return
        if not (self.balance.apart or self._measured):
            received.backward(received.tasks)
            return
        for position, task in enumerate(received.tasks):
            self.apart.begin(task)
            received.backward([task], keep=position + 1 < len(received.tasks))
            self.apart.end(task)

    def _join_tasks(self) -> None:
        """The tasks' gradients become the shared part's."""
        if not (self.apart.parameters and (self.balance.apart or self._measured)):
            return
        tasks = sorted({task for held in self.ranks.collect(list(self.apart.held)) for task in held})
        self.apart.add_up(self.ranks, tasks)
        products = self.apart.products(tasks)
        weights = self.balance.combination(tasks, products, self.whole.updates)
        if self._measured:
            self.agreement = agreement(tasks, products)
        # Already summed over the ranks; the step will sum once more.
        self.apart.combine({task: weight / self.ranks.count for task, weight in weights.items()})

    def losses(self) -> dict[str, list[float]]:
        """Every rank's losses since the last call, by task.

        Where one of any rank is not a finite number all ranks end, the first with a ValueError: place, task, keys.
        """
        found: dict[str, list[float]] = {}
        trouble = None
        if self.records:
            values = iter(torch.cat([record.values.float() for record in self.records]).tolist())
            for record in self.records:
                read = [next(values) for _ in record.keys]
                found.setdefault(record.task, []).extend(read)
                trouble = trouble or _not_finite(record, read)
        self.records = []
        everywhere = self.ranks.collect((found, trouble))
        for _, message in everywhere:
            if message is not None:
                raise ValueError(message) if self.ranks.first else SystemExit(1)  # all stop, and one says why
        tasks = sorted({task for values, _ in everywhere for task in values})
        losses = {task: [value for values, _ in everywhere for value in values.get(task, [])] for task in tasks}
        self.balance.note(losses)
        return losses

    def settle(self) -> None:
        """Move all pending gradients to the first rank, so that its state is the run's."""
        if self.ranks.count == 1:
            return
        tasks = sorted({task for held in self.ranks.collect(list(self.apart.held)) for task in held})
        self.apart.add_up(self.ranks, tasks)
        for part in self.parts.values():
            self.ranks.add_up_gradients(part.parameters.values())
        self._drop_pending_elsewhere()

    def _drop_pending_elsewhere(self) -> None:
        if not self.ranks.first:
            self.apart.held = {}
            for part in self.parts.values():
                clear_gradients(part.parameters.values())

    @property
    def counters(self) -> dict[str, int]:
        """Items since the last step of each part."""
        return {name: part.counter for name, part in self.parts.items()}

    @property
    def updates(self) -> dict[str, int]:
        """Optimizer steps so far, per part."""
        return {name: part.updates for name, part in self.parts.items()}

    def describe(self) -> str:
        """For the log: the counters, `shared 12/48 steering 3/24 ...`, or the steps so far."""
        if ALL in self.parts:
            return f"updates {self.whole.updates}"
        return " ".join(part.describe() for part in self.parts.values())

    def state_dict(self) -> dict[str, Any]:
        """Everything beside the weights that decides what comes next; tensors are not copied."""
        return {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "apart": {task: dict(held) for task, held in self.apart.held.items()},
            "balance": self.balance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        device = self.objective.device
        self.apart.held = {
            task: {name: value.to(device) for name, value in held.items()} for task, held in state["apart"].items()
        }
        self.balance.load_state_dict(state["balance"])
        self._drop_pending_elsewhere()


class _Received:
    """The shared part's maps, cut from the graph, and the gradients that heads send back to them."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        self.maps = maps
        self.gradients: dict[str, dict[int, Tensor]] = {}  # task -> level -> gradient of the whole map
        self._taken: tuple[int, Tensor | None] = (0, None)  # level and rows of what was taken last

    def take(self, level: int, rows: Sequence[int]) -> Tensor:
        """A map's rows as a leaf that collects a gradient, if the map has a use for one."""
        source = self.maps[level].detach()
        index = None
        if tuple(rows) != tuple(range(len(source))):
            index = torch.tensor(rows, device=source.device)
            source = source[index]
        self._taken = (level, index)
        return source.requires_grad_(self.maps[level].requires_grad)

    def give(self, task: str, taken: Tensor) -> None:
        """Keep the gradient of what was taken last."""
        level, index = self._taken
        gradient = taken.grad
        if gradient is None:
            return
        levels = self.gradients.setdefault(task, {})
        if index is not None:
            whole = levels.get(level)
            whole = torch.zeros_like(self.maps[level]) if whole is None else whole
            levels[level] = whole.index_add_(0, index, gradient)
        else:
            levels[level] = levels[level] + gradient if level in levels else gradient

    @property
    def tasks(self) -> list[str]:
        """Those that sent something back."""
        return list(self.gradients)

    def backward(self, tasks: Sequence[str], *, keep: bool = False) -> None:
        """The tasks' gradients through the shared part, summed; `keep` its graph for another pass."""
        summed: dict[int, Tensor] = {}
        for task in tasks:
            for level, gradient in self.gradients[task].items():
                summed[level] = summed[level] + gradient if level in summed else gradient
        if summed:
            torch.autograd.backward([self.maps[level] for level in summed], list(summed.values()), retain_graph=keep)


def agreement(tasks: Sequence[str], products: Tensor) -> dict[str, Any]:
    """Length of each task's gradient on the shared part, and the cosine of each pair; reads back from the device."""
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


def _not_finite(record: LossRecord, values: Sequence[float]) -> str | None:
    bad = [key for key, value in zip(record.keys, values, strict=True) if not math.isfinite(value)]
    if not bad:
        return None
    value = next(value for value in values if not math.isfinite(value))
    return (
        f"the {record.task} loss must be finite, got {value} at {record.where}, sample {', '.join(bad)}: "
        "lower the learning rate, or look at the sample with a2d2-prep show"
    )
