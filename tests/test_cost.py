"""Parameters and multiply-adds against the thesis's figures, and against sums done by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.cost import ParameterCounts, forward_gmac, parameter_counts
from models.multitask import MultiTaskNet, build_multitask
from models.singletask import build_singletask


@pytest.fixture(scope="module")
def full() -> MultiTaskNet:
    with torch.device("meta"):
        return build_multitask(classes=43)


def test_the_forward_of_the_thesis(full: MultiTaskNet) -> None:
    cost = forward_gmac(full, 1024)
    assert cost == {
        "backbone": pytest.approx(85.4, abs=0.05),
        "neck": pytest.approx(22.2, abs=0.06),  # its scales per channel are folded into the weights that follow
        "depth": pytest.approx(284.1, abs=0.05),
        "segmentation": pytest.approx(111.9, abs=0.05),
        "boxes": pytest.approx(2.0, abs=0.05),
        "steering": pytest.approx(0.03, abs=0.005),
    }
    alone = [sum(forward_gmac(full, 1024, [task]).values()) for task in full.heads]
    assert sum(cost.values()) / (sum(alone) / 4) == pytest.approx(2.44, abs=0.005), (
        "the labelled head alone, on average"
    )


def test_only_the_heads_asked_for_are_counted(full: MultiTaskNet) -> None:
    assert list(forward_gmac(full, 1024, ["boxes"])) == ["backbone", "neck", "boxes"]


def test_a_multiply_add_is_counted_once() -> None:
    """PilotNet, by hand: output pixels x output channels x values that each sums."""
    with torch.device("meta"):
        net = build_singletask("steering", size=256)
    sides, channels, kernels = (126, 61, 29, 27, 25), (3, 24, 36, 48, 64, 64), (5, 5, 5, 3, 3)
    convolutions = sum(sides[i] ** 2 * channels[i + 1] * channels[i] * kernels[i] ** 2 for i in range(5))
    linear = 64 * 25**2 * 150 + 150 * 70 + 70 * 10 + 10 * 10
    assert forward_gmac(net, 256) == {"steering": (convolutions + linear) / 1e9}


def test_the_multi_task_network_uses_all_of_its_parameters(full: MultiTaskNet) -> None:
    assert parameter_counts(full, 1024) == ParameterCounts(61_656_914, 61_656_914)


def test_what_no_gradient_reaches_or_may_change_is_told_apart() -> None:
    net = build_singletask("segmentation", size=256, classes=5, width=0.1)
    all_of_it = parameter_counts(net, 256).counted
    net.heads["segmentation"].spare = nn.Linear(10, 10)
    net.heads["segmentation"].first.requires_grad_(False)
    first = sum(parameter.numel() for parameter in net.heads["segmentation"].first.parameters())
    assert parameter_counts(net, 256) == ParameterCounts(all_of_it - first + 110, all_of_it - first)


def test_a_network_with_weights_is_not_touched() -> None:
    net = build_singletask("segmentation", size=256, classes=5, width=0.1).train()
    before = {name: values.clone() for name, values in net.state_dict().items()}
    parameter_counts(net, 256)
    forward_gmac(net, 256)
    assert net.training
    assert all(torch.equal(values, before[name]) for name, values in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
