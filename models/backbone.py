"""The backbone: torchvision's ResNet without its classifier, its norm layers by choice, and its first weights.

Those of DenseDepth's encoder, a DenseNet, are found the same way.
"""

from __future__ import annotations

import http.client
import pickle
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet169_Weights, densenet169
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, ResNet18_Weights, ResNet50_Weights

from models.norms import convolve, norm_layer

BACKBONES = ("resnet50", "resnet18")
DENSENET = "densenet169"  # the encoder of DenseDepth, no backbone of the multi-task network
STRIDES = (4, 8, 16, 32)  # px of the image per pixel of each of the four maps

IMAGE_MEAN = (0.485, 0.456, 0.406)  # RGB of ImageNet in 0..1: what torchvision's weights were trained with
IMAGE_STD = (0.229, 0.224, 0.225)

FETCH_TIMEOUT_S = 15.0  # a firewall that drops packets must not hold a compute node

_PUBLISHED = {
    "resnet50": ResNet50_Weights.IMAGENET1K_V2,
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    DENSENET: DenseNet169_Weights.IMAGENET1K_V1,
}


class Folding(Bottleneck):
    """torchvision's block, whose frozen norms are part of its convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        maps = self.relu(convolve(self.conv1, self.bn1, x))
        maps = self.relu(convolve(self.conv2, self.bn2, maps))
        maps = convolve(self.conv3, self.bn3, maps)
        return _added(self.relu, maps, x, self.downsample)


class FoldingBasic(BasicBlock):
    """The same of the smaller ResNets."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        maps = self.relu(convolve(self.conv1, self.bn1, x))
        maps = convolve(self.conv2, self.bn2, maps)
        return _added(self.relu, maps, x, self.downsample)


def _added(activation: nn.Module, maps: Tensor, inputs: Tensor, downsample: nn.Module | None) -> Tensor:
    """Return the activation of the maps plus the block's input, brought to their shape where need be."""
    if downsample is not None:
        convolution, norm = downsample.children()
        assert isinstance(convolution, nn.Conv2d)
        inputs = convolve(convolution, norm, inputs)
    result: Tensor = activation(maps + inputs)
    return result


_ARCHITECTURES: dict[str, tuple[type[Folding | FoldingBasic], tuple[int, ...]]] = {
    "resnet50": (Folding, (3, 4, 6, 3)),
    "resnet18": (FoldingBasic, (2, 2, 2, 2)),
}


class Backbone(ResNet):
    """A ResNet (v1.5) under torchvision's own parameter names, without pooling and classifier.

    `channels`: those of its four maps, (256, 512, 1024, 2048) or (64, 128, 256, 512).
    """

    def __init__(self, name: str, norm: str) -> None:
        _check_name(name)
        block, depths = _ARCHITECTURES[name]
        super().__init__(block, list(depths), norm_layer=norm_layer(norm))
        del self.avgpool, self.fc
        self.channels = tuple(planes * block.expansion for planes in (64, 128, 256, 512))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) -> four (B, channels[i], S / STRIDES[i], S / STRIDES[i])."""
        maps = self.maxpool(self.relu(convolve(self.conv1, self.bn1, images)))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
            outputs.append(maps)
        return tuple(outputs)


def find_weights(name: str, weights: str) -> tuple[dict[str, Tensor] | None, str]:
    """The first weights of backbone `name`, or of DENSENET, and where they come from, for the record of the run.

    `auto`: ImageNet's as torchvision ships them, from its cache or fetched; `none`: none; else a file that
    holds the state dict of torchvision's network of that name. Returns (state dict that fits, description), or
    (None, "scratch: <reason>"). The norm's default follows from which: frozen needs statistics that were learnt.
    """
    if name != DENSENET:
        _check_name(name)
    if weights == "none":
        return None, "scratch: no weights were asked for"
    if weights != "auto":
        return _fitting(name, _read(Path(weights).expanduser()), weights), f"file {weights}"
    try:
        with _socket_timeout(FETCH_TIMEOUT_S):
            state = _PUBLISHED[name].get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, http.client.HTTPException, pickle.UnpicklingError, EOFError) as error:
        return None, f"scratch: {_PUBLISHED[name]} is not to be had ({_one_line(error)})"
    return _fitting(name, state, str(_PUBLISHED[name])), f"torchvision {_PUBLISHED[name]}"


def load_weights(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy what `find_weights` found; a group norm has no statistics, and takes scale and shift alone."""
    own = backbone.state_dict().keys()
    backbone.load_state_dict({key: value for key, value in state.items() if key in own})


def _check_name(name: str) -> None:
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {', '.join(BACKBONES)}, got {name!r}: no other is built in")


def _read(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        raise ValueError(
            f"backbone weights must be auto, none or a state dict that torch.save wrote, got {path}: "
            f"{error.strerror if isinstance(error, OSError) else 'damaged, or of another kind'}"
        ) from error


def _fitting(name: str, state: object, source: str) -> dict[str, Tensor]:
    """The entries of `state` that belong to backbone `name`; one clear line where they do not fit it."""
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(
            f"backbone weights must be a state dict of tensors, got {source}: it holds a {type(state).__name__}"
        )
    with torch.device("meta"):
        own = densenet169() if name == DENSENET else Backbone(name, "batch")
    expected = without_classifier(own.state_dict())
    found = without_classifier(state)
    problems = {
        "lacks": [key for key in expected if key not in found and not key.endswith("num_batches_tracked")],
        "has unexpected": [str(key) for key in found if key not in expected],
        "has other shapes in": [
            f"{key} {tuple(found[key].shape)} for {tuple(value.shape)}"
            for key, value in expected.items()
            if key in found and found[key].shape != value.shape
        ],
    }
    reasons = [f"{problem} {_first(keys)}" for problem, keys in problems.items() if keys]
    if reasons:
        raise ValueError(f"backbone weights must fit {name}, got {source}: it {'; it '.join(reasons)}")
    return found


def without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a torchvision network's features; a DenseNet's were once written as `norm.1`, now `norm1`."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", str(key)): value
        for key, value in state.items()
        if not str(key).startswith(("fc.", "classifier."))
    }


def _first(keys: list[str], shown: int = 3) -> str:
    rest = len(keys) - shown
    return ", ".join(keys[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _one_line(error: Exception) -> str:
    """`URLError: <urlopen error timed out>`: the type, and the first line of what may be a page."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torch.hub opens its sockets with no timeout of its own, so the process's default is set meanwhile."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
