"""The device of a run, and the seeds of all random generators."""

from __future__ import annotations

import random

import numpy as np
import torch

from train.engine.distributed import ProcessGroup


def find_device(name: str, ranks: ProcessGroup | None = None) -> torch.device:
    """`auto` is the GPU where there is one; each rank of a node has its own."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU that torch can use, and there is none: give --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", ranks.local_rank if ranks else 0)


def seed_everything(seed: int) -> None:
    """The first weights follow from it; the order of the data has a generator of its own."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that use the global one; ours use none
    torch.manual_seed(seed)
