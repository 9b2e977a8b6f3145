"""The initial weights of a new run: pretrained weights for a part of the network, or those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from models.backbone import DENSENET, find_weights, load_weights
from models.heads import SLOTS
from models.multitask import MultiTaskNet
from models.singletask import NAMES
from shards.schema import BOX_VALUES
from train.config import Document, RunConfig
from train.engine.checkpoint import Checkpoint, load_checkpoint

_NAMED = 3  # tensors of a part that a line names
# The heads whose last layer has a row per class: the list of classes, and how a row is found: of each of `groups`
# runs of rows, the first `others` belong to no class.
_CLASS_ROWS = {"segmentation": ("segmentation_classes", 1, 0), "boxes": ("box_classes", SLOTS, BOX_VALUES)}


class Sayer(Protocol):
    """Prints lines for the user."""

    def say(self, line: str) -> None:
        """A line to keep."""


@dataclass(frozen=True)
class Start:
    """The starting point of a new run."""

    config: RunConfig  # with what `auto` came to
    normalise: bool  # images by ImageNet's mean and deviation, as those weights expect
    found: str  # where they come from, for the record of the run
    pretrained: dict[str, Tensor] | None = None  # for `pretrained_part`
    checkpoint: Checkpoint | None = None  # for the whole network, as far as it fits

    def load(self, network: MultiTaskNet, facts: Mapping[str, Any], reporter: Sayer) -> None:
        """Load the weights into the network."""
        if self.pretrained is not None:
            load_weights(pretrained_part(network), self.pretrained)
        if self.checkpoint is not None:
            reporter.say(f"starting from {self.config.init_from}")
            for line in take_over(network, facts, self.checkpoint):
                reporter.say(f"  {line}")


def find_start(config: RunConfig, reporter: Sayer) -> Start:
    """Raises ValueError where a file that was asked for cannot be had."""
    if config.init_from is not None:
        return _from_checkpoint(config, Path(config.init_from))
    state, found = find_pretrained(config, reporter)
    network = replace(config.network, weights="none" if state is None else config.network.weights)
    if network.name == "mtl" and network.norm == "auto":
        network = replace(network, norm="group" if state is None else "frozen")
    return Start(replace(config, network=network), state is not None, found, pretrained=state)


def _from_checkpoint(config: RunConfig, path: Path) -> Start:
    """Start from a checkpoint, with its norm unless another was given, and its image normalisation."""
    checkpoint = load_checkpoint(path)
    theirs, facts = checkpoint["config"]["network"], checkpoint["facts"]
    network = replace(config.network, weights="none")
    if network.name == "mtl" and network.norm == "auto":
        network = replace(network, norm=theirs["norm"] if theirs["name"] == "mtl" else "group")
    found = f"checkpoint {path}, epoch {checkpoint['progress']['epoch']}; before: {facts['weights']}"
    return Start(replace(config, network=network), facts["normalise"], found, checkpoint=checkpoint)


def find_pretrained(config: RunConfig, reporter: Sayer) -> tuple[dict[str, Tensor] | None, str]:
    """Return weights for `pretrained_part` or None, and a description of where the initial weights come from.

    A multi-task network has its backbone pretrained, DenseDepth its encoder, the other single-task networks nothing.
    """
    asked = config.network.weights
    if config.network.name == "mtl":
        name: str = config.network.backbone
        part = f"backbone {name}"
    elif config.task == "depth":
        part, name = f"encoder {DENSENET}", DENSENET
    else:
        network = NAMES[config.tasks[0]]
        if asked not in ("auto", "none"):
            raise ValueError(f"weights must be auto or none for {network}, got {asked}: no part of it is pretrained")
        return None, f"scratch: no part of {network} is pretrained"
    state, found = find_weights(name, asked)
    if asked == "auto" and state is None:
        reporter.say(
            f"!!! NO PRETRAINED WEIGHTS: the {part.partition(' ')[0]} starts from {found}; results will be worse, "
            "or take longer. --weights FILE takes a torchvision state dict, --weights none says that this is meant"
        )
    reporter.say(f"{part}: {found}")
    return state, found


def pretrained_part(network: MultiTaskNet) -> nn.Module:
    """Return the module that the weights of `find_pretrained` are for."""
    shared = dict(network.shared.named_children())
    return shared["backbone"] if "backbone" in shared else network.heads["depth"].get_submodule("encoder")


def take_over(network: MultiTaskNet, facts: Mapping[str, Any], checkpoint: Checkpoint) -> list[str]:
    """Load what fits of a checkpoint; a row of a class that both have is loaded, wherever either has it.

    Returns a line per part of the network: what was loaded, what starts anew and why. Raises ValueError where
    nothing fits.
    """
    own, theirs = network.state_dict(), checkpoint["weights"]
    taken = {key: theirs[key] for key, value in own.items() if key in theirs and theirs[key].shape == value.shape}
    notes: dict[str, str] = {}
    for task, (name, groups, others) in _CLASS_ROWS.items():
        here, there = facts[name], checkpoint["facts"][name]
        if task not in network.heads or here == there:
            continue
        for key in [f"heads.{task}.{found}" for found, _ in network.heads[task].named_parameters()][-2:]:  # last layer
            rows = _rows_by_class(own[key], theirs.get(key), here, there, groups, others)
            taken.pop(key, None)
            if rows is not None:
                taken[key] = rows
                notes[f"heads.{task}"] = f"of {len(here)} classes {len(set(here) & set(there))} by name"
    if not taken:
        raise ValueError("no tensor of --init-from fits this network: it has other parts, or another width or backbone")
    network.load_state_dict(taken, strict=False)
    lines = [_line(part, own, theirs, taken, notes.get(part)) for part in _parts(own)]
    left = [part for part in _parts(theirs) if part not in _parts(own)]
    return lines + ([f"left in the checkpoint: {', '.join(left)}"] if left else []) + _other_units(facts, checkpoint)


def _rows_by_class(
    own: Tensor, theirs: Tensor | None, here: Sequence[str], there: Sequence[str], groups: int, others: int
) -> Tensor | None:
    """(groups * (others + classes), ...): theirs for what belongs to no class and for classes of both, else our own."""
    expected = groups * (others + len(there))
    if theirs is None or theirs.shape[1:] != own.shape[1:] or len(theirs) != expected:
        return None
    rows, found = own.clone().unflatten(0, (groups, -1)), theirs.unflatten(0, (groups, -1))
    rows[:, :others] = found[:, :others]
    for place, name in enumerate(here):
        if name in there:
            rows[:, others + place] = found[:, others + there.index(name)]
    return rows.flatten(0, 1)


def _parts(state: Mapping[str, Tensor]) -> list[str]:
    """`shared.backbone`, `shared.neck`, `heads.steering`, ..."""
    return list(dict.fromkeys(_part(key) for key in state))


def _part(key: str) -> str:
    return ".".join(key.split(".")[:2])


def _line(part: str, own: Document, theirs: Mapping[str, Tensor], taken: Mapping[str, Tensor], note: str | None) -> str:
    """`heads.steering: 7 of 8 tensors; anew layers.1.weight (here (100, 256), there (100, 1024))`"""
    keys = [key for key in own if _part(key) == part]
    anew = [key for key in keys if key not in taken]
    line = f"{part}: {len(keys) - len(anew)} of {len(keys)} tensors"
    if note:
        line += f" ({note})"
    if not anew:
        return line
    if all(key not in theirs for key in keys):
        return f"{part}: starts anew, the checkpoint has none"
    named = [
        f"{key.removeprefix(f'{part}.')} (here {tuple(own[key].shape)}, "
        + (f"there {tuple(theirs[key].shape)})" if key in theirs else "there none)")
        for key in anew[:_NAMED]
    ]
    rest = len(anew) - len(named)
    return f"{line}; anew {', '.join(named)}" + (f" and {rest} more" if rest else "")


def _other_units(facts: Mapping[str, Any], checkpoint: Checkpoint) -> list[str]:
    there, here = checkpoint["facts"]["max_m"], facts["max_m"]
    if there == here:
        return []
    return [f"depth of 1 was {there:g} m there and is {here:g} m here: its head must learn the new scale"]
