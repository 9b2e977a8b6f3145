"""The asymmetric arithmetic, against hand-traced counters and a loop written out."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from train.accumulate import Accumulator
from train.config import build_config

TASKS = ("steering", "segmentation", "boxes")


class Toy(nn.Module):
    """A shared layer and a head per task, in float64."""

    def __init__(self, tasks: tuple[str, ...] = TASKS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Linear(3, 4).double()
        self.heads = nn.ModuleDict({task: nn.Linear(4, 2).double() for task in tasks})

    def parts(self) -> dict[str, nn.Module]:
        return {"shared": self.shared, **self.heads}

    def loss(self, task: str, x: Tensor) -> Tensor:
        return self.heads[task](torch.tanh(self.shared(x))).square().mean()


def accumulator(toy: Toy, thresholds: dict[str, int], rates: dict[str, float] | None = None) -> Accumulator:
    parts = toy.parts()
    return Accumulator(
        parts,
        thresholds=thresholds,
        learning_rates=rates or dict.fromkeys(parts, 1e-2),
        coefficients={"steering": 1.0, "segmentation": 80.0, "boxes": 400.0, "depth": 200.0},
    )


def stream(count: int, tasks: tuple[str, ...] = TASKS, seed: int = 0) -> list[tuple[str, Tensor]]:
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(tasks), count, p=np.arange(1, len(tasks) + 1) / sum(range(1, len(tasks) + 1)))
    return [(tasks[i], torch.from_numpy(generator.normal(size=3))) for i in chosen]


def test_counters_by_hand():
    """Thresholds: shared 3, steering 2, segmentation 1, boxes 9."""
    toy = Toy()
    parts = accumulator(toy, {"shared": 3, "steering": 2, "segmentation": 1, "boxes": 9})
    trace = []
    for task in ("steering", "segmentation", "steering", "steering", "boxes", "segmentation"):
        stepped = parts.add(task, toy.loss(task, torch.ones(3).double()))
        trace.append((stepped, tuple(parts.counters.values())))
    assert trace == [  # what stepped, in order; counters of shared, steering, segmentation, boxes
        ([], (1, 1, 0, 0)),
        (["segmentation"], (2, 1, 0, 0)),
        (["steering", "shared"], (0, 0, 0, 0)),
        ([], (1, 1, 0, 0)),
        ([], (2, 1, 0, 1)),
        (["segmentation", "shared"], (0, 1, 0, 1)),
    ]
    assert parts.updates == {"shared": 2, "steering": 1, "segmentation": 2, "boxes": 0}
    assert toy.shared.weight.grad is None
    assert toy.heads["boxes"].weight.grad is not None, "the pending gradient of an unfinished window stays"


def test_a_head_takes_the_mean_of_its_window_and_the_shared_part_the_sum():
    toy = Toy()
    parts = accumulator(toy, {"shared": 9, "steering": 9, "segmentation": 4, "boxes": 9})
    x = torch.ones(3).double()
    parts.add("segmentation", toy.loss("segmentation", x))
    divided = Toy()
    (divided.loss("segmentation", x) / (80 * 4)).backward()
    assert torch.equal(toy.shared.weight.grad, divided.shared.weight.grad)
    assert torch.equal(toy.heads["segmentation"].weight.grad, divided.heads["segmentation"].weight.grad)
    assert toy.heads["steering"].weight.grad is None


def test_equals_a_loop_written_out():
    """The thesis's thresholds, rates and coefficients; 700 items of all four tasks."""
    config = build_config({"mode": "asymmetric"})
    tasks = ("steering", "segmentation", "boxes", "depth")
    toy, plain = Toy(tasks), Toy(tasks)
    parts = accumulator(toy, config.threshold, config.learning_rate)
    for task, x in stream(700, tasks):
        parts.add(task, toy.loss(task, x))

    optimizers = {part: torch.optim.Adam(m.parameters(), lr=config.learning_rate[part])
                  for part, m in plain.parts().items()}  # fmt: skip
    seen = dict.fromkeys(plain.parts(), 0)
    for task, x in stream(700, tasks):
        (plain.loss(task, x) / config.coefficient[task] / config.threshold[task]).backward()
        for part in (task, "shared"):
            seen[part] += 1
            if seen[part] % config.threshold[part] == 0:
                optimizers[part].step()
                optimizers[part].zero_grad()
    assert seen["shared"] == 700
    assert {part: count // config.threshold[part] for part, count in seen.items()} == parts.updates
    for (name, ours), theirs in zip(toy.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12, msg=name)


@pytest.mark.parametrize("cut", [1, 5, 13, 29])
def test_windows_run_on_across_a_cut(cut: int):
    """An epoch's end changes nothing, and neither does a stop with the state loaded into new objects."""
    thresholds = {"shared": 7, "steering": 5, "segmentation": 3, "boxes": 4}
    whole = Toy()
    uncut = accumulator(whole, thresholds)
    for task, x in stream(40):
        uncut.add(task, whole.loss(task, x))

    before = Toy()
    first = accumulator(before, thresholds)
    for task, x in stream(40)[:cut]:
        first.add(task, before.loss(task, x))
    kept, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(before.state_dict())
    after = Toy()
    second = accumulator(after, thresholds)
    after.load_state_dict(weights)
    second.load_state_dict(kept)
    for task, x in stream(40)[cut:]:
        second.add(task, after.loss(task, x))

    assert second.counters == uncut.counters
    assert second.updates == uncut.updates
    for ours, theirs in zip(after.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_a_threshold_below_what_is_counted_is_refused():
    toy = Toy()
    parts = accumulator(toy, dict.fromkeys(toy.parts(), 5))
    for _ in range(3):
        parts.add("boxes", toy.loss("boxes", torch.ones(3).double()))
    with pytest.raises(ValueError, match="threshold of shared must be above the 3 items"):
        accumulator(Toy(), dict.fromkeys(toy.parts(), 3)).load_state_dict(parts.state_dict())
