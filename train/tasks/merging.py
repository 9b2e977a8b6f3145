"""Scores of different samples added up, so that several processes can measure a split together."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics import Metric

from train.tasks.binned_sums import BinnedSums
from train.tasks.definition import Score


def merge_score(score: Score, other: Score) -> None:
    """Add what another score of the same task measured: tensors of a score are sums, lists are of samples in order."""
    for name, theirs in vars(other).items():
        setattr(score, name, _merged(getattr(score, name), theirs))


def _merged(ours: Any, theirs: Any) -> Any:
    if isinstance(ours, Metric):
        for name, state in theirs.metric_state.items():
            setattr(ours, name, getattr(ours, name) + state)
        ours._update_count += theirs._update_count
        ours._computed = None
    elif isinstance(ours, BinnedSums):
        ours.sums = ours.sums + theirs.sums
    elif isinstance(ours, Tensor):
        return ours + theirs
    elif isinstance(ours, dict):
        return {key: _merged(value, theirs[key]) for key, value in ours.items()}
    return ours
