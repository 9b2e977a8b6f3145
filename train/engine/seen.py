"""Which samples a checkpoint was trained on: a digest of eight bytes for each key, kept with the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEEN = "seen"  # of a checkpoint: (n,) int64, ascending


def digests(keys: Iterable[str]) -> Tensor:
    """(n,) int64, ascending, one for each different key."""
    found = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return torch.from_numpy(np.unique(np.frombuffer(found, dtype="<i8").astype(np.int64)))


def seen_by(checkpoint: Mapping[str, Any] | None) -> Tensor:
    """Return the digests that a checkpoint holds: none without one, and none of one from before they were kept."""
    found = None if checkpoint is None else checkpoint.get(SEEN)
    return torch.zeros(0, dtype=torch.int64) if found is None else found


def joined(*found: Tensor) -> Tensor:
    """Return the digests that are in one of them, ascending."""
    return torch.cat(found).unique()


def count_seen(checkpoint: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    """Return how many of the samples the checkpoint was trained on; None where it does not say."""
    if SEEN not in checkpoint:
        return None
    return int(torch.isin(digests(keys), seen_by(checkpoint)).sum())


def seen_line(path: Path, count: int | None, total: int, what: str) -> str:
    """Return a line for people: how many of the `total` samples of `what` the checkpoint was trained on."""
    if count is None:
        return f"{path} does not say on which samples it was trained: some of {what} may be among them"
    return f"{path} was trained on {count} of the {total} samples of {what}"


def check_unseen(path: Path, count: int | None, total: int, what: str) -> None:
    """Raise ValueError where a measurement would be one on training samples."""
    if count:
        raise ValueError(
            f"samples to measure on must be unseen, got {count} of {total} of {what} that {path} was trained on: "
            "the result would say nothing about other images; --allow-seen measures all the same"
        )
