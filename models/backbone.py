"""The backbone: torchvision's ResNet without its classifier, its norm layers by choice, and its first weights.

Those of DenseDepth's encoder, a DenseNet, are found the same way.
"""

from __future__ import annotations

import http.client
import pickle
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.densenet import DenseNet169_Weights, densenet169
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet, ResNet18_Weights, ResNet50_Weights

BACKBONES = ("resnet50", "resnet18")
DENSENET = "densenet169"  # the encoder of DenseDepth, no backbone of the multi-task network
NORMS = ("frozen", "group", "sample", "batch")
STRIDES = (4, 8, 16, 32)  # px of the image per pixel of each of the four maps

IMAGE_MEAN = (0.485, 0.456, 0.406)  # RGB of ImageNet in 0..1: what torchvision's weights were trained with
IMAGE_STD = (0.229, 0.224, 0.225)

NORM_GROUPS = 32  # of Wu and He, "Group normalization"; divides every channel count of a ResNet
FETCH_TIMEOUT_S = 15.0  # a firewall that drops packets must not hold a compute node

_ARCHITECTURES = {"resnet50": (Bottleneck, (3, 4, 6, 3)), "resnet18": (BasicBlock, (2, 2, 2, 2))}
_PUBLISHED = {
    "resnet50": ResNet50_Weights.IMAGENET1K_V2,
    "resnet18": ResNet18_Weights.IMAGENET1K_V1,
    DENSENET: DenseNet169_Weights.IMAGENET1K_V1,
}


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm by its running statistics alone, in training too; scale and shift stay trainable.

    In training mode on one image, a batch norm would be an instance norm, and another function in eval mode.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return F.batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class SampleNorm(nn.Module):
    """Every image by its own mean and variance in training, as batch norm does with a batch of one.

    The running statistics, which eval mode uses, move as if the images had come one at a time in `order`, an image
    once for each time that it comes up there: the row of each, negative where another of `ranks` processes holds it.
    Ranks add their running statistics up after every forward pass. Parameters and buffers are named as batch norm's.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        self.order: Sequence[int] | None = None  # None: every row once
        self.ranks = 1

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if not self.training:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        self.follow(maps.detach())
        # A group per channel: the same function, and F.instance_norm gives wrong gradients for a batch of one in
        # channels-last format (torch 2.14; a test compares with batch norm).
        return F.group_norm(maps, maps.shape[1], self.weight, self.bias, self.eps)

    @torch.compiler.disable()
    @torch.no_grad()
    def follow(self, maps: Tensor) -> None:
        """Move the running statistics by the images of (B, C, H, W); the order changes with every group."""
        variances, means = torch.var_mean(maps.to(self.running_mean.dtype), (2, 3), correction=1)
        self.advance(means, variances)

    @torch.no_grad()
    def advance(self, means: Tensor | None = None, variances: Tensor | None = None) -> None:
        """Move the running statistics by the images' own, (B, C) each; without any, as a rank without images does."""
        order = self.order if self.order is not None else range(0 if means is None else len(means))
        kept = (1 - self.momentum) ** len(order)
        self.num_batches_tracked += len(order)
        for running, own in ((self.running_mean, means), (self.running_var, variances)):
            running.mul_(kept / self.ranks)
            if own is not None:
                weights = [0.0] * len(own)
                for place, row in enumerate(order):
                    if row >= 0:
                        weights[row] += self.momentum * (1 - self.momentum) ** (len(order) - 1 - place)
                running.add_(own.new_tensor(weights) @ own)


def follow_stream(network: nn.Module, order: Sequence[int], ranks: int = 1) -> list[SampleNorm]:
    """Tell the network's sample norms which images come up, and when. Returns them."""
    layers = [layer for layer in network.modules() if isinstance(layer, SampleNorm)]
    for layer in layers:
        layer.order, layer.ranks = order, ranks
    return layers


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
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        outputs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps = stage(maps)
            outputs.append(maps)
        return tuple(outputs)


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """A function from a number of channels to a norm layer; every norm has a scale and a shift per channel."""
    if norm == "frozen":
        return FrozenNorm
    if norm == "group":
        return partial(nn.GroupNorm, NORM_GROUPS)
    if norm == "sample":
        return SampleNorm
    if norm == "batch":
        return nn.BatchNorm2d
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}: no other is built in")


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
