"""Planned groups give the weights of a loop that takes one item at a time."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tests.made_up import CONTEXT, SIZE, MadeUp, items_of, objective_of
from tests.plain_loop import PlainLoop
from tests.toy import ToyNet
from train.config import RunConfig
from train.data.order import Item, SampleRequest
from train.data.plan import plan_items
from train.data.regimes import plan_epoch
from train.engine.objective import Objective
from train.engine.step import TrainingStep
from train.presets import build_config

RATES = {"shared": 1e-3, "steering": 1e-3, "segmentation": 1e-3, "boxes": 1e-3, "depth": 1e-3}
ODDS = {
    "thesis": {"steering": 1, "segmentation": 1, "boxes": 1, "depth": 1},
    "one rare": {"steering": 1, "segmentation": 0.02, "boxes": 1, "depth": 1},
    "one absent": {"steering": 1, "segmentation": 2, "boxes": 3},
    "one alone": {"depth": 1},
}
DATA = MadeUp(40)


def network_of(norm: str | None = None, seed: int = 0) -> ToyNet:
    torch.manual_seed(seed)
    net = ToyNet(size=SIZE, channels=32, norm=norm).double()
    if norm == "frozen":
        for layer in net.shared.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.5, 2)
    return net


def config_of(**changes: Any) -> RunConfig:
    """The thesis's thresholds and coefficients."""
    return build_config({"mode": "asymmetric", "learning_rate": RATES, **changes})


def planned(net: ToyNet, items: list[Item], config: RunConfig, epochs: int = 1) -> TrainingStep:
    """Train on the items in groups, in as many calls as there are epochs."""
    steps = TrainingStep(config, objective_of(net))
    net.train()
    per_epoch = -(-len(items) // epochs)
    for first in range(0, len(items), per_epoch):
        for group in plan_epoch(config, items[first : first + per_epoch], steps.counters):
            steps.run(group, DATA.batch(group.reads), "here")
    return steps


def plain(net: ToyNet, items: list[Item], config: RunConfig) -> PlainLoop:
    loop = PlainLoop(objective_of(net), config.threshold, config.coefficient, config.learning_rate)
    net.train()
    for item in items:
        loop.item(DATA.batch([SampleRequest(item.sample, (item.task,))]))
    return loop


def assert_same_network(steps: TrainingStep, net: ToyNet, loop: PlainLoop, other: ToyNet, atol: float = 1e-12) -> None:
    """Weights, buffers, optimizer states, counters and what is pending."""
    for (name, ours), theirs in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for (name, ours), theirs in zip(net.named_parameters(), other.parameters(), strict=True):
        apart = [
            held[name.removeprefix("shared.")]
            for held in steps.shared.gradients.held.values()
            if name.startswith("shared.")
        ]
        pending = [gradient for gradient in (ours.grad, *apart) if gradient is not None]
        assert bool(pending) == (theirs.grad is not None), name
        if pending:
            torch.testing.assert_close(sum(pending), theirs.grad, rtol=0, atol=atol)
    assert (steps.counters, steps.updates) == (loop.counters, loop.updates)
    for part, optimizer in loop.optimizers.items():
        mine = steps.parameter_groups[part].optimizer.state_dict()["state"]
        for number, state in optimizer.state_dict()["state"].items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                torch.testing.assert_close(mine[number][key], state[key], rtol=0, atol=atol)


@pytest.mark.parametrize("odds", ODDS)
def test_groups_give_the_weights_of_the_plain_loop(odds: str) -> None:
    """The thesis's thresholds and coefficients, 400 items: full windows, partial ones, empty ones."""
    items = items_of(400, len(DATA.images), ODDS[odds])
    theirs = network_of()
    loop = plain(theirs, items, config_of())
    for micro_batch in (1, 5, 8, 64):
        ours = network_of()
        steps = planned(ours, items, config_of(stream={"micro_batch": micro_batch}), epochs=3)
        assert steps.updates["shared"] == 8
        assert_same_network(steps, ours, loop, theirs)


@pytest.mark.parametrize("norm", ["frozen", "group", "sample"])
def test_groups_change_nothing_for_norms_that_do_not_mix_samples(norm: str) -> None:
    """`sample`: the running statistics too, of images that come up more than once in a group."""
    items = items_of(250, 12, ODDS["thesis"])
    ours, theirs = network_of(norm), network_of(norm)
    config = config_of()
    steps, loop = planned(ours, items, config, epochs=2), plain(theirs, items, config)
    assert max(ours.images) == 8
    assert sum(ours.images) < 250
    assert_same_network(steps, ours, loop, theirs)


def test_the_norm_of_a_batch_does_mix_them() -> None:
    """The test above can fail."""
    items = items_of(100, 12, ODDS["thesis"])
    ours, theirs = network_of("batch"), network_of("batch")
    steps, loop = planned(ours, items, config_of()), plain(theirs, items, config_of())
    with pytest.raises(AssertionError):
        assert_same_network(steps, ours, loop, theirs, atol=1e-6)


def test_sample_norm_is_batch_norm_of_batches_of_one() -> None:
    items = items_of(60, 12, ODDS["thesis"])
    ours, theirs = network_of("sample"), network_of("batch")
    loops = [plain(net, items, config_of()) for net in (ours, theirs)]
    assert loops[0].updates == loops[1].updates
    for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12, msg=name)
    ours.eval(), theirs.eval()
    image = torch.rand(1, 3, SIZE, SIZE).double()
    torch.testing.assert_close(ours(image)["steering"], theirs(image)["steering"], rtol=0, atol=1e-12)


def test_gradients_kept_apart_by_task_add_up_to_the_same() -> None:
    items = items_of(150, len(DATA.images), ODDS["thesis"])
    ours, theirs = network_of(), network_of()
    steps = planned(ours, items, config_of(measure_every=2), epochs=2)
    assert_same_network(steps, ours, plain(theirs, items, config_of()), theirs)
    assert set(steps.shared.agreement["norms"]) == set(ODDS["thesis"])
    assert len(steps.shared.agreement["cosines"]) == 6
    assert all(-1 <= cosine <= 1 for cosine in steps.shared.agreement["cosines"].values())


def test_a_group_of_one_image_runs_the_shared_part_once() -> None:
    net = network_of()
    items = [Item(3, task) for task in ("steering", "segmentation", "boxes", "depth")]
    steps = planned(net, items, config_of())
    assert (net.images, net.asked) == ([1], ["steering", "segmentation", "boxes", "depth"])
    assert steps.counters == {"shared": 4, "steering": 1, "segmentation": 1, "boxes": 1, "depth": 1}


def test_counters_as_in_figure_3_7() -> None:
    """Heads step on their own counters, the shared part on its own; what is left in a window stays."""
    thresholds = {"shared": 3, "steering": 2, "segmentation": 1, "boxes": 9, "depth": 9}
    config = config_of(threshold=thresholds)
    tasks = ("steering", "segmentation", "steering", "steering", "boxes", "segmentation")
    items = [Item(number, task) for number, task in enumerate(tasks)]
    assert plain(network_of(), items, config).trace == [
        ([], (1, 1, 0, 0, 0)),  # shared, steering, segmentation, boxes, depth
        (["segmentation"], (2, 1, 0, 0, 0)),
        (["steering", "shared"], (0, 0, 0, 0, 0)),
        ([], (1, 1, 0, 0, 0)),
        ([], (2, 1, 0, 1, 0)),
        (["segmentation", "shared"], (0, 1, 0, 1, 0)),
    ]
    groups = plan_items(items, thresholds, dict.fromkeys(thresholds, 0), 8)
    assert [[(part.task, part.items, part.steps) for part in group.segments] for group in groups] == [
        [("segmentation", 1, True), ("steering", 2, True)],
        [("segmentation", 1, True), ("steering", 1, False), ("boxes", 1, False)],
    ]
    assert [group.steps for group in groups] == [True, True]


@pytest.mark.parametrize("cut", [1, 2, 5])
@pytest.mark.parametrize("method", ["fixed", "epoch", "uncertainty", "pcgrad"])
def test_state_taken_into_new_objects_goes_on_bitwise(method: str, cut: int) -> None:
    config = config_of(balance={"method": method}, measure_every=3, threshold={"shared": 20, "depth": 3})
    groups = plan_epoch(config, items_of(100, 12, ODDS["thesis"]), dict.fromkeys(RATES, 0))
    whole = network_of()
    uncut = TrainingStep(config, objective_of(whole))
    for group in groups:
        uncut.run(group, DATA.batch(group.reads), "here")

    before = network_of()
    first = TrainingStep(config, objective_of(before))
    for group in groups[:cut]:
        first.run(group, DATA.batch(group.reads), "here")
    kept, weights = copy.deepcopy(first.state_dict()), copy.deepcopy(before.state_dict())
    after = network_of(seed=1)
    after.load_state_dict(weights)
    second = TrainingStep(config, objective_of(after))
    second.load_state_dict(kept)
    for group in groups[cut:]:
        second.run(group, DATA.batch(group.reads), "here")

    assert (second.counters, second.updates) == (uncut.counters, uncut.updates)
    assert second.balance.current() == uncut.balance.current()
    for ours, theirs in zip(after.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_a_loss_that_is_not_finite_names_place_task_and_sample() -> None:
    net = network_of()
    with torch.no_grad():
        net.heads["depth"].layer.bias.fill_(float("nan"))
    items = [Item(1, "steering"), Item(2, "depth")]
    steps = planned(net, items, config_of())
    with pytest.raises(ValueError, match="the depth loss must be finite, got nan at here, sample sample 2: lower the"):
        steps.losses()


@pytest.mark.filterwarnings("ignore")  # of the compiler's own
def test_compiled_parts_train_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured as graphs, with a norm that must stay outside and groups of several sizes; code is not generated."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    items = items_of(30, 12, ODDS["thesis"])
    config = config_of(threshold={"shared": 12, "steering": 2, "segmentation": 3, "boxes": 2, "depth": 3})
    nets = [network_of("sample"), network_of("sample")]
    for net, compiled in zip(nets, (False, True), strict=True):
        objective = Objective(net, device=torch.device("cpu"), normalise=False, context=CONTEXT, compiled=compiled)
        steps = TrainingStep(config, objective)
        net.train()
        for group in plan_epoch(config, items, steps.counters):
            steps.run(group, DATA.batch(group.reads), "here")
    for (name, plain), compiled in zip(nets[0].state_dict().items(), nets[1].state_dict().values(), strict=True):
        torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-9, msg=name)
