"""The processes of a run: one, or as many as torchrun started; they follow one plan and sum their gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = timedelta(minutes=30)  # the main rank alone scores the baselines, while the others wait for it


class ProcessGroup:
    """This process's rank among those of the run; every collective is a no-op for a single process."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank  # its rank on its node, which decides its GPU

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and lines."""
        return self.rank == 0

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Sum each tensor over the ranks in place; every rank names the same tensors in the same order."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def all_reduce_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum gradients over the ranks. A parameter that no item reached on any rank stays without one."""
        if self.size == 1:
            return
        held = list(parameters)
        reached = torch.tensor([value.grad is not None for value in held], dtype=torch.int32)
        dist.all_reduce(reached)  # on the CPU, so that no GPU has to finish first
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

    def share_buffers(self, network: torch.nn.Module) -> None:
        """Give every rank the buffers of the main one; the statistics of batch norm differ between ranks."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def any(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set on any rank."""
        if self.size == 1:
            return list(flags)
        counts = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(counts)
        return [bool(count) for count in counts.tolist()]

    def all_gather(self, value: Any) -> list[Any]:
        """Return the plain value of each rank, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun or SLURM started; a single process where there are none.

    Gradients on GPUs travel by NCCL, everything on CPUs by gloo. A rank that fails ends without waiting for the
    others: PyTorch's shutdown would block until they arrive. Raises ValueError where the others are gone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ProcessGroup()
        return
    gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    local = local_device(int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count() if gpu else 0)
    if gpu:
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
    group = ProcessGroup(dist.get_rank(), dist.get_world_size(), local)
    try:
        yield group
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        raise ValueError(f"rank {group.rank} of {size} lost another one: {str(error).splitlines()[0]}") from error
    dist.destroy_process_group()


def local_device(local_rank: int, visible: int) -> int:
    """Return the number of a rank's GPU; a launcher that shows each rank its own GPU alone calls that one 0."""
    return 0 if visible == 1 else local_rank
