"""The first weights of a new run: pretrained ones where the network has a part that they exist for."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from models.backbone import DENSENET, find_weights
from models.multitask import MultiTaskNet
from models.singletask import NAMES
from train.config import RunConfig


class Sayer(Protocol):
    """Who tells people a line."""

    def say(self, line: str) -> None:
        """A line to keep."""


def find_pretrained(config: RunConfig, reporter: Sayer) -> tuple[dict[str, Tensor] | None, str]:
    """Weights for `pretrained_part`, or None, and where the first weights come from, for the record of the run.

    A multi-task network has its backbone pretrained, DenseDepth its encoder, the other single-task networks nothing.
    """
    asked = config.network.weights
    if config.network.name == "mtl":
        part, name = f"backbone {config.network.backbone}", config.network.backbone
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
    """The module that `find_pretrained` finds weights for."""
    shared = dict(network.shared.named_children())
    return shared["backbone"] if "backbone" in shared else network.heads["depth"].get_submodule("encoder")
