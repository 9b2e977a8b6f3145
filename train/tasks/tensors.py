"""Checks and precision that the losses of all tasks share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Where several processes train, each measures its own share: a metric must not wait for the other processes.
ALONE: dict[str, Any] = {"sync_on_compute": False}


def wide(values: Tensor) -> Tensor:
    """Return float64 as it is and everything else as float32: losses are not computed in half precision."""
    return values if values.dtype == torch.float64 else values.float()


def check_shapes(what: str, values: Tensor, expected: torch.Size) -> None:
    """Raise ValueError where shapes differ, which broadcasting would turn into a wrong loss without an error."""
    if values.shape != expected:
        raise ValueError(f"{what} must be {tuple(expected)}, got {tuple(values.shape)}: the prediction's shape decides")
