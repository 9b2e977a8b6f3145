"""The processes of a run: one, or as many as torchrun started, which follow one plan and add up their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# Rank 0 alone validates, while the others wait for it in their next exchange.
PATIENCE = timedelta(hours=6)


class Ranks:
    """This process's place among those of the run; every exchange is a no-op where it is alone."""

    def __init__(self, rank: int = 0, count: int = 1, local: int = 0) -> None:
        self.rank = rank
        self.count = count
        self.local = local  # its place on its node, which is its GPU

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over the ranks, in place; every rank names the same ones, in one order."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def add_up_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum gradients over the ranks. A parameter that no item reached on any rank stays without one."""
        if self.count == 1:
            return
        held = list(parameters)
        reached = torch.tensor([value.grad is not None for value in held], dtype=torch.int32)
        dist.all_reduce(reached)  # on the CPU, so that no GPU is waited for
        by_kind: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for value, anywhere in zip(held, reached.tolist(), strict=True):
            if anywhere:
                value.grad = torch.zeros_like(value) if value.grad is None else value.grad
                by_kind.setdefault((value.dtype, value.device), []).append(value.grad)
        for gradients in by_kind.values():
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def any(self, *flags: bool) -> list[bool]:
        """Whether each is so on any rank."""
        if self.count == 1:
            return list(flags)
        told = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(told)
        return [bool(number) for number in told.tolist()]

    def collect(self, value: Any) -> list[Any]:
        """The plain value of each rank, on every rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """The place that torchrun gave this process; alone where it gave none.

    Gradients on GPUs travel by NCCL, everything on CPUs by gloo. A rank that fails leaves without a word to the
    others: torchrun names it and ends the rest. Raises ValueError where the others are gone.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1 or "RANK" not in os.environ:
        yield Ranks()
        return
    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), local)
    try:
        yield ranks
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise ValueError(f"rank {ranks.rank} of {count} lost another one: {str(error).splitlines()[0]}") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
