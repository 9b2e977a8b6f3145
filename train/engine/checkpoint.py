"""Checkpoints: tensors and plain values, written whole or not at all, loaded with weights_only=True."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models.heads import GRID, SLOTS
from models.multitask import MultiTaskNet, build_multitask
from models.singletask import build_singletask
from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from shards.reader import ShardSet
from shards.writer import PARTIAL, flush_to_disk
from train.config import ConfigError, Document, RunConfig, to_document
from train.presets import build_config
from train.run_folder import BEST, FREE_KEYS, LAST
from train.tasks.definition import TaskContext

FORMAT = 2

Checkpoint = dict[str, Any]


class CheckpointError(ValueError):
    """A checkpoint cannot be written."""


def network_facts(size_px: int, max_m: float, normalise: bool, weights: str) -> Document:
    """Return the facts about a network that its config does not hold: its images, units and classes."""
    return {
        "size_px": size_px,  # the side of its images
        "max_m": max_m,  # metres at a depth output of 1
        "normalise": normalise,  # images by ImageNet's mean and deviation
        "weights": weights,  # where the backbone's first weights came from
        "segmentation_classes": list(SEGMENTATION_CLASSES),
        "box_classes": list(BOX_CLASSES),
    }


def task_context(config: RunConfig, facts: Mapping[str, Any]) -> TaskContext:
    """Return the meaning of the outputs of a run's network."""
    return TaskContext(
        size_px=facts["size_px"],
        max_m=facts["max_m"],
        segmentation_classes=tuple(facts["segmentation_classes"]),
        box_classes=tuple(facts["box_classes"]),
        box_slots=GRID**2 * SLOTS,
        loss=config.loss,
        box_loss=config.box_loss,
    )


def save_checkpoint(path: Path, checkpoint: Checkpoint, older: int = 0) -> None:
    """Write under a temporary name, flush to disk, rename; the `older` ones before it stay as `last-1.pt`, ...

    Raises CheckpointError where that is not possible; the checkpoints of before are then untouched.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            torch.save({"format": FORMAT, **checkpoint}, file)
            flush_to_disk(file)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"checkpoint {path} cannot be written: {_reason(error, path)}") from error
    names = [path, *(path.with_stem(f"{path.stem}-{age}") for age in range(1, older + 1))]
    for younger, elder in zip(reversed(names[1:-1]), reversed(names[2:]), strict=True):
        if younger.exists():
            younger.replace(elder)
    if older and path.exists():
        shutil.copyfile(path, names[1])  # a copy: the name itself must never be without a file
    partial.replace(path)


def _reason(error: OSError | RuntimeError, path: Path) -> str:
    """Return why a write failed; torch's own error names no cause, so the space that is left is looked at."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    free = shutil.disk_usage(path.parent).free
    return f"the disk is full, or a limit of file sizes is reached ({free / 1e6:.0f} MB are free)"


def load_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint on the CPU. Raises ValueError in one line where it is none of ours or damaged."""
    if not path.is_file():
        raise ConfigError(f"checkpoint {path} is no file: amtl-train writes {LAST} and {BEST} into its run folder")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        raise ValueError(f"checkpoint {path} cannot be read ({type(error).__name__}): damaged, or not ours") from error
    if not isinstance(checkpoint, Mapping) or checkpoint.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path} was not written by amtl-train in format {FORMAT}")
    return dict(checkpoint)


def build_network(config: RunConfig, facts: Document) -> MultiTaskNet:
    """The network of a run, with first weights of its own."""
    size, classes = facts["size_px"], len(facts["segmentation_classes"])
    network = config.network
    if network.name == "stl":
        return build_singletask(
            config.tasks[0],
            size=size,
            classes=classes,
            width=network.width,
            depth_activation=network.depth_activation,
        )
    return build_multitask(
        size=size,
        classes=classes,
        backbone=network.backbone,
        width=network.width,
        norm=network.norm,
        depth_activation=network.depth_activation,
        tasks=config.tasks,
    )


def check_data(facts: Document, shards: ShardSet, path: Path) -> None:
    """Raise ValueError where the network of a checkpoint cannot be used on these shards."""
    check_classes(facts, path, str(shards.folder))
    if facts["size_px"] != shards.size_px:
        raise ValueError(
            f"{path} must have the image size of {shards.folder}: it has {facts['size_px']}, the data {shards.size_px}"
        )


def check_classes(facts: Document, path: Path, data: str) -> None:
    """Raises ValueError where a checkpoint's class ids mean something else than in our data, pictures and metrics."""
    for what, theirs, ours in (
        ("segmentation classes", facts["segmentation_classes"], list(SEGMENTATION_CLASSES)),
        ("box classes", facts["box_classes"], list(BOX_CLASSES)),
    ):
        if theirs != ours:
            raise ValueError(f"{path} must have the {what} of {data}: {_difference(theirs, ours)}")


def _difference(theirs: list[str], ours: list[str]) -> str:
    extra, lacking = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    if not extra and not lacking:
        return "it has the same ones in another order"
    return f"it has {len(theirs)}, the data {len(ours)}; only it has {extra or 'none'}, it lacks {lacking or 'none'}"


def check_resumable(checkpoint: Checkpoint, config: RunConfig, manifest_sha256: str, path: Path) -> None:
    """Raises ValueError with the differences where going on would not be the same run."""
    held = to_document(build_config(checkpoint["config"]))  # with the settings that are younger than the checkpoint
    differences = config_differences(held, to_document(config))
    if checkpoint["manifest_sha256"] != manifest_sha256:
        there, here = checkpoint["manifest_sha256"][:12], manifest_sha256[:12]
        differences.append(f"the data set (manifest {there} there, {here} in {config.shards})")
    if differences:
        raise ValueError(f"{path} cannot be resumed, as this run differs: {'; '.join(differences)}")


def config_differences(there: Document, here: Document, where: str = "") -> list[str]:
    """`network.width (1.0 there, 0.5 here)`, for all that decides weights."""
    found = []
    for key in sorted(set(there) | set(here)):
        first, second = there.get(key), here.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            found += config_differences(first, second, f"{where}{key}.")
        elif first != second and where + key not in FREE_KEYS:
            found.append(f"{where}{key} ({first} there, {second} here)")
    return found


def better_than(value: float | None, best: float | None) -> bool:
    """Whether a validation loss is the lowest yet; the first always is, one that is no number never."""
    return value is not None and math.isfinite(value) and (best is None or value < best)
