"""Weights of the losses, on problems whose answer is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.made_up import SIZE, MadeUp, items_of, objective_of
from tests.toy import ToyNet
from train.config import BalanceConfig
from train.data.regimes import plan_epoch
from train.engine.balance import Balance, coefficients_from, pcgrad_weights
from train.engine.step import TrainingStep
from train.presets import build_config

CPU = torch.device("cpu")
TASKS = ("steering", "boxes")


def balance_of(method: str, **coefficients: float) -> Balance:
    return Balance(BalanceConfig(method), TASKS, coefficients, CPU)


def test_fixed_coefficients_divide_and_one_that_is_not_set_is_1() -> None:
    balance = balance_of("fixed", boxes=400.0)
    assert balance.weigh("boxes", torch.tensor([400.0, 200.0])).tolist() == [1.0, 0.5]
    assert balance.weigh("steering", torch.tensor([3.0])).tolist() == [3.0]


def test_an_epoch_s_means_become_the_coefficients_of_the_tasks_that_had_labels() -> None:
    balance = balance_of("epoch", steering=1.0, boxes=400.0)
    balance.note({"boxes": [2.0, 4.0]})
    balance.note({"boxes": [6.0]})
    balance.end_epoch()
    assert balance.current() == {"steering": 1.0, "boxes": 4.0}
    balance.end_epoch()
    assert balance.current() == {"steering": 1.0, "boxes": 4.0}, "an epoch without labels changes nothing"
    balance.note({"steering": [0.5]})
    balance.end_epoch()
    assert balance.current() == {"steering": 0.5, "boxes": 4.0}


def test_learnt_coefficients_become_the_mean_losses() -> None:
    """loss exp(-s) + s is least at s = log of the mean loss, and a task without labels stays where it is."""
    balance = balance_of("uncertainty", steering=1.0, boxes=400.0)
    optimizer = torch.optim.Adam(balance.logs.values(), lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        balance.weigh("steering", torch.tensor([1.0, 5.0])).mean().backward()
        optimizer.step()
    assert balance.current()["steering"] == pytest.approx(3.0, rel=1e-3)
    assert balance.current()["boxes"] == pytest.approx(400.0, rel=1e-5)


def test_learnt_coefficients_follow_the_losses_in_training() -> None:
    """With heads and shared part that do not move, they come to the mean loss of each task, the rare one too."""
    torch.manual_seed(0)
    config = build_config({
        "mode": "asymmetric", "learning_rate": dict.fromkeys(("shared", *TASKS, "segmentation", "depth"), 1e-12),
        "threshold": {"shared": 8, "steering": 4, "boxes": 4},
        "balance": {"method": "uncertainty", "learning_rate": 0.1},
    })  # fmt: skip
    steps = TrainingStep(config, objective_of(ToyNet(size=SIZE)))
    data, losses = MadeUp(4), {}
    for group in plan_epoch(config, items_of(1500, 4, {"steering": 5, "boxes": 1}), steps.counters):
        steps.run(group, data.batch(group.reads), "here")
        for task, values in steps.losses().items():
            losses.setdefault(task, []).extend(values)
    for task in TASKS:
        assert steps.balance.current()[task] == pytest.approx(np.mean(losses[task]), rel=0.1)
    assert steps.balance.current()["depth"] == pytest.approx(200.0, rel=1e-5)


def combined(gradients: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return pcgrad_weights(gradients @ gradients.T, np.random.default_rng(seed)) @ gradients


def test_gradients_that_agree_are_summed() -> None:
    gradients = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]).double()
    torch.testing.assert_close(combined(gradients), gradients.sum(0))


def test_two_that_conflict_lose_what_points_against_the_other() -> None:
    """(1, 0) and (-1, 1): each without its component along the other is (0.5, 0.5) and (0, 1)."""
    gradients = torch.tensor([[1.0, 0.0], [-1.0, 1.0]]).double()
    torch.testing.assert_close(combined(gradients), torch.tensor([0.5, 1.5]).double())


@pytest.mark.parametrize("seed", range(5))
def test_as_the_algorithm_is_written(seed: int) -> None:
    gradients = torch.randn(4, 30, generator=torch.Generator().manual_seed(seed)).double()
    order, expected = np.random.default_rng(seed), torch.zeros(30).double()
    for task in range(4):
        own = gradients[task].clone()
        for other in order.permutation(4):
            along = own @ gradients[other]
            if other != task and along < 0:
                own -= along / gradients[other].square().sum() * gradients[other]
        expected += own
    torch.testing.assert_close(combined(gradients, seed), expected)


def test_a_task_without_gradient_is_no_trouble() -> None:
    gradients = torch.tensor([[0.0, 0.0], [-1.0, 1.0]]).double()
    torch.testing.assert_close(combined(gradients), gradients[1])


def test_conflicting_tasks_move_the_shared_part_as_projected() -> None:
    """In a run: what the shared part's step saw is the projected sum of the tasks' own gradients."""
    torch.manual_seed(0)
    config = build_config({"mode": "asymmetric", "balance": {"method": "pcgrad"}, "measure_every": 1,
                           "threshold": {"shared": 12}})  # fmt: skip
    network = ToyNet(size=SIZE).double()
    steps, data = TrainingStep(config, objective_of(network)), MadeUp(6)
    groups = plan_epoch(config, items_of(12, 6, dict.fromkeys(("steering", "boxes", "depth"), 1.0)), steps.counters)
    for group in groups[:-1]:
        steps.run(group, data.batch(group.reads), "here")
    assert not groups[-2].steps
    held = {task: dict(gradients) for task, gradients in steps.shared.gradients.held.items()}
    assert len(held) == 2, "the last group brings the third task"
    seen = {}
    original = steps.outer.optimizer.step

    def watched() -> None:
        seen.update({name: value.grad.clone() for name, value in steps.outer.parameters.items()})
        original()

    steps.outer.optimizer.step = watched
    steps.run(groups[-1], data.batch(groups[-1].reads), "here")
    assert any(cosine < 0 for cosine in steps.shared.agreement["cosines"].values()), "the problem has a conflict"
    lengths = {task: math.hypot(*(value.norm().item() for value in parts.values())) for task, parts in held.items()}
    for task, length in lengths.items():
        assert steps.shared.agreement["norms"][task] == pytest.approx(length)
    assert steps.shared.gradients.held == {}
    assert set(seen) == {"0.weight", "0.bias"}


def write_run(folder: Path, **record: object) -> Path:
    folder.mkdir()
    (folder / "eval.json").write_text(json.dumps({"mode": "single", **record}))
    return folder


def test_coefficients_are_the_losses_of_single_task_runs(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / task, task=task, val_losses={task: loss})
        for task, loss in (("boxes", 6.5), ("depth", 0.2))
    ]
    assert coefficients_from(runs) == {"boxes": 6.5, "depth": 0.2}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "needs a finished run, got .*other: no eval.json"),
        ({"task": None, "mode": "symmetric", "val_losses": {}}, "needs runs of mode single, got .*: mode symmetric"),
        ({"task": "boxes", "val_losses": {"boxes": 1.0}}, "needs one run a task, got .*: boxes is there already"),
        ({"task": "depth", "val_losses": {"depth": 0.0}}, "needs a val loss above 0, got .*: 0.0"),
    ],
    ids=["unfinished", "mode", "twice", "zero"],
)
def test_runs_that_give_no_coefficient(record: dict | None, message: str, tmp_path: Path) -> None:
    first = write_run(tmp_path / "boxes", task="boxes", val_losses={"boxes": 6.5})
    other = tmp_path / "other"
    if record is not None:
        write_run(other, **record)
    with pytest.raises(ValueError, match=message):
        coefficients_from([first, other])
