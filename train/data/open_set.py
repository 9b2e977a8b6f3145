"""Opening a set of shards for training or evaluation, with the checks that come before anything slow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from models.heads import GRID, SLOTS
from shards.reader import OPEN_FILES, SampleRef, ShardSet
from train.config import ConfigError, RunConfig
from train.data.remote import is_remote, open_remote
from train.data.stream import Stream, worker_count


def open_set(config: RunConfig, say: Callable[[str], None]) -> tuple[RunConfig, ShardSet]:
    """Return the config, settled for where the shards are, and the shards; `say` gets a line about remote ones."""
    if not is_remote(config.shards):
        return config, open_shards(Path(config.shards), config.stream.shuffle_shards or OPEN_FILES)
    config, shards, line = open_remote(config)
    check_grid(shards)
    say(line)
    return config, shards


def open_shards(folder: Path, open_files: int = OPEN_FILES) -> ShardSet:
    """A finished set whose labels the network can predict, and whose shards are whole by their sizes."""
    if not folder.is_dir():
        raise ConfigError(
            f"--shards must be a folder that `a2d2-prep shard` wrote, got {folder}: there is no such folder"
        )
    shards = ShardSet(folder, open_files=open_files)
    shards.check_sizes()
    check_grid(shards)
    return shards


def check_grid(shards: ShardSet) -> None:
    """Raises ValueError where the box head cannot predict the set's boxes."""
    boxes = shards.rules.get("boxes", {})
    grid = (boxes.get("grid", GRID), boxes.get("slots", SLOTS))
    if grid != (GRID, SLOTS):
        raise ValueError(
            f"boxes of {shards.folder} must have grid and slots {(GRID, SLOTS)}, got {grid}: "
            "the box head predicts no other"
        )


def open_stream(
    shards: ShardSet,
    samples: Sequence[SampleRef],
    workers: int,
    device: torch.device,
    stopping: Callable[[], bool] = lambda: False,
) -> Stream:
    """Batches of these samples for this device."""
    count = worker_count(workers, device)
    return Stream(shards, samples, workers=count, device=device, stopping=stopping)
