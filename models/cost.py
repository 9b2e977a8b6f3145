"""The cost of a network: parameters held and used, and the multiply-adds of a forward pass, part by part.

All of it is worked out on the meta device, from shapes: no memory, no arithmetic, the network itself untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from models.multitask import MultiTaskNet

FLOPS_PER_MAC = 2  # PyTorch counts a multiplication and an addition as two operations


@dataclass(frozen=True)
class ParameterCounts:
    """Trainable parameters."""

    counted: int  # all that the network holds
    used: int  # those that a gradient reaches from the outputs


def parameter_counts(network: MultiTaskNet, size_px: int) -> ParameterCounts:
    """The parameters that a network holds, and those that a backward pass from all its outputs reaches.

    Table 4.2 of the thesis counts layers that no forward calls: `build_singletask(task, classes=43, unused=True)`
    under `torch.device("meta")` has them, a network that is trained has not.
    """
    state = _on_meta(network)
    outputs = functional_call(network, state, (_images(size_px), list(network.heads)))
    torch.stack([output.sum() for output in outputs.values()]).sum().backward()
    trainable = [values for values in state.values() if values.requires_grad]
    return ParameterCounts(
        counted=sum(values.numel() for values in trainable),
        used=sum(values.numel() for values in trainable if values.grad is not None),
    )


def forward_gmac(network: MultiTaskNet, size_px: int, tasks: Sequence[str] | None = None) -> dict[str, float]:
    """Giga multiply-adds of a forward of one image for `tasks` (default: all that it has heads for), per part.

    The parts: `backbone` and `neck` (laterals and BiFPN) where it has them, then each task. One multiply-add is two
    floating-point operations: GFLOP = 2 GMAC. Convolutions and matrix products are counted; norms, activations,
    pooling and resizing, a few per cent of the time, are not.
    """
    asked = list(network.heads) if tasks is None else list(tasks)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        functional_call(network, _on_meta(network), (_images(size_px), asked))
    flops = {where: sum(counts.values()) for where, counts in counter.get_flop_counts().items()}
    root = type(network).__name__
    modules = {name: f"{root}.shared.{name}" for name, _ in network.shared.named_children()}
    modules |= {task: f"{root}.heads.{task}" for task in asked}
    return {part: flops.get(where, 0) / FLOPS_PER_MAC / 1e9 for part, where in modules.items()}


def _images(size_px: int) -> Tensor:
    return torch.empty(1, 3, size_px, size_px, device="meta")


def _on_meta(network: MultiTaskNet) -> dict[str, Tensor]:
    """Parameters and buffers by name, as shapes alone."""
    state: dict[str, Tensor] = {}
    for name, values in (*network.named_parameters(), *network.named_buffers()):
        state[name] = torch.empty_like(values, device="meta", requires_grad=values.requires_grad)
    return state
