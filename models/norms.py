"""Norm layers, and the convolution that a frozen one is part of; every norm has a scale and a shift per channel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS = ("frozen", "group", "sample", "batch")
NORM_GROUPS = 32  # of Wu and He, "Group normalization"; divides every channel count of a ResNet


def norm_layer(norm: str) -> Callable[[int], nn.Module]:
    """Return a function from a number of channels to a norm layer."""
    if norm == "frozen":
        return FrozenNorm
    if norm == "group":
        return partial(GroupNorm, NORM_GROUPS)
    if norm == "sample":
        return SampleNorm
    if norm == "batch":
        return nn.BatchNorm2d
    raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}: no other is built in")


class FrozenNorm(nn.BatchNorm2d):
    """Batch norm by its running statistics alone, in training too; scale and shift stay trainable.

    In training mode on one image, a batch norm would be an instance norm, and another function in eval mode.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return F.batch_norm(
            maps, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return (C,) each: the layer gives maps * scale + shift."""
        assert self.running_var is not None
        assert self.running_mean is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale


def convolve(convolution: nn.Conv2d, norm: nn.Module, maps: Tensor) -> Tensor:
    """Return norm(convolution(maps)), (B, C, H, W); the convolution has no bias of its own.

    A frozen norm is a scale and a shift per channel: they go into the weights and the bias of the convolution, which
    saves the norm's passes over the maps, forward and backward, and their memory.
    """
    if not isinstance(norm, FrozenNorm):
        result: Tensor = norm(convolution(maps))
        return result
    scale, shift = norm.scale_and_shift()
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    assert not isinstance(convolution.padding, str)
    return F.conv2d(maps, weight, shift, convolution.stride, convolution.padding, convolution.dilation,
                    convolution.groups)  # fmt: skip


class GroupNorm(nn.GroupNorm):
    """PyTorch's group norm; on a GPU in the format and precision of its input, see `group_norm`."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if not maps.is_cuda:
            return super().forward(maps)
        return group_norm(maps, self.num_groups, self.weight, self.bias, self.eps)[0]


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
        self.row_weights: Tensor | None = None  # (B,) of `order`, see `row_weights`
        self.ranks = 1

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if not self.training:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        channels = maps.shape[1]
        if maps.is_cuda:
            result, means, variances = group_norm(maps, channels, self.weight, self.bias, self.eps)
            pixels = maps.shape[2] * maps.shape[3]
            self.advance(means, variances * (pixels / (pixels - 1)))
            return result
        self.follow(maps.detach())
        # A group per channel: the same function, and F.instance_norm gives wrong gradients for a batch of one in
        # channels-last format (torch 2.14; a test compares with batch norm).
        return F.group_norm(maps, channels, self.weight, self.bias, self.eps)

    @torch.compiler.disable()
    @torch.no_grad()
    def follow(self, maps: Tensor) -> None:
        """Move the running statistics by the images of (B, C, H, W); the order changes with every group."""
        variances, means = torch.var_mean(maps.to(self.running_mean.dtype), (2, 3), correction=1)
        self.advance(means, variances)

    @torch.compiler.disable()
    @torch.no_grad()
    def advance(self, means: Tensor | None = None, variances: Tensor | None = None) -> None:
        """Move the running statistics by the images' own, (B, C) each; without any, as a rank without images does."""
        order = self.order if self.order is not None else range(0 if means is None else len(means))
        kept = (1 - self.momentum) ** len(order)
        self.num_batches_tracked += len(order)
        weights = self.row_weights if self.order is not None else row_weights(order, self.momentum, self.running_mean)
        for running, own in ((self.running_mean, means), (self.running_var, variances)):
            running.mul_(kept / self.ranks)
            if own is not None:
                assert weights is not None
                running.add_(weights @ own.to(weights.dtype))


def row_weights(order: Sequence[int], momentum: float, like: Tensor) -> Tensor:
    """Return (B,): how much of each row's statistics is left in the running ones after all images of `order`."""
    weights = [0.0] * (max(order, default=-1) + 1)
    for place, row in enumerate(order):
        if row >= 0:
            weights[row] += momentum * (1 - momentum) ** (len(order) - 1 - place)
    return on_device(weights, like.dtype, like.device)


def on_device(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the numbers as a tensor; the copy to a GPU comes from pinned memory and does not block."""
    return torch.tensor(values, dtype=dtype, pin_memory=device.type == "cuda").to(device, non_blocking=True)


def follow_stream(network: nn.Module, order: Sequence[int], ranks: int = 1) -> list[SampleNorm]:
    """Tell the network's sample norms which images come up, and when. Returns them."""
    layers = [layer for layer in network.modules() if isinstance(layer, SampleNorm)]
    shared: dict[float, Tensor] = {}  # copied once for all layers
    for layer in layers:
        if layer.momentum not in shared:
            shared[layer.momentum] = row_weights(order, layer.momentum, layer.running_mean)
        layer.order, layer.ranks, layer.row_weights = order, ranks, shared[layer.momentum]
    return layers


def group_norm(maps: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """F.group_norm that reads and writes (B, C, H, W) in its own format and precision; statistics are float32.

    PyTorch's own leaves the channels-last format on a GPU, and autocast runs it in float32. Also returns mean and
    variance (biased) of each image's groups, (B, groups), without a gradient.
    """
    with torch.autocast(maps.device.type, enabled=False):
        found: tuple[Tensor, Tensor, Tensor] = _GroupNorm.apply(maps, weight, bias, groups, eps)
    return found


class _GroupNorm(torch.autograd.Function):
    """The passes over the maps: one or two to sum, one to normalise; backward two to sum, two for the gradient."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> tuple[Tensor, ...]:
        mean, variance = moments(maps, groups)  # (B, G)
        inverse = torch.rsqrt(variance + eps)
        scale = per_channel(inverse, weight) * weight  # (B, C)
        result = affine(maps, scale, bias - per_channel(mean, weight) * scale)
        ctx.save_for_backward(maps, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, inverse = ctx.saved_tensors
        kind, groups = mean.dtype, mean.shape[1]
        of_values = maps[0].numel() // groups
        sums = gradient.sum((2, 3), dtype=kind)  # (B, C)
        products = (gradient * maps).sum((2, 3), dtype=kind)  # (B, C)
        means, inverses = per_channel(mean, weight), per_channel(inverse, weight)
        normalised = (products - means * sums) * inverses  # (B, C): sums of gradient * normalised maps
        shift = (sums * weight).unflatten(1, (groups, -1)).sum(2)  # (B, G)
        slope = (normalised * weight).unflatten(1, (groups, -1)).sum(2)
        of_maps = -inverse.square() * slope / of_values  # (B, G): what each value is multiplied by
        constant = -inverse * shift / of_values - mean * of_maps
        partly = affine(maps, per_channel(of_maps, weight), per_channel(constant, weight))
        whole = affine(gradient, inverses * weight, partly)
        return whole, normalised.sum(0), sums.sum(0), None, None


def moments(maps: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each image's groups, (B, groups), in float32 at least."""
    if maps.dtype in (torch.float32, torch.float64):
        variance, mean = torch.var_mean(maps.unflatten(1, (groups, -1)), (2, 3, 4), correction=0)
        return mean, variance
    count = maps[0].numel() // groups
    sums = maps.sum((2, 3), dtype=torch.float32)
    squares = torch.linalg.vector_norm(maps, dim=(2, 3), dtype=torch.float32).square()
    mean, square = (value.unflatten(1, (groups, -1)).sum(2) / count for value in (sums, squares))
    return mean, (square - mean.square()).clamp(min=0)


def per_channel(values: Tensor, weight: Tensor) -> Tensor:
    """(B, groups) -> (B, C), each group's value for each of its channels."""
    return values.repeat_interleave(len(weight) // values.shape[1], dim=1)


def affine(maps: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return maps * scale + shift in one pass, computed in float32 at least and rounded once to the maps' precision.

    maps (B, C, H, W); scale (B, C); shift (B, C), or (B, C, H, W).
    """
    wide_shift = shift if shift.ndim == 4 else shift[:, :, None, None]
    return torch.addcmul(wide_shift, maps, scale[:, :, None, None], out=torch.empty_like(maps))
