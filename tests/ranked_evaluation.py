"""What a rank of test_ranks.py does: `torchrun ... -m tests.ranked_evaluation SHARDS OUT` measures the val split."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.made_up import objective_of
from tests.toy import ToyNet
from train.data.stream import Stream
from train.engine.distributed import ProcessGroup, process_group
from train.engine.evaluate import Evaluation, evaluate
from train.stop import Stopped


def measured(shards: ShardSet, ranks: ProcessGroup, stop: bool = False) -> Evaluation | None:
    """The toy network on the val split, also by odd and even; None where a stop was asked for."""
    torch.manual_seed(0)
    network = ToyNet(norm="batch")
    if not ranks.is_main:  # the statistics of the main rank are those of the checkpoint
        network.shared[1].running_mean.fill_(9.0)
    stream = Stream(shards, shards.samples("val"), stopping=lambda: stop)
    try:
        return evaluate(objective_of(network), stream, TASKS, 2, grouping=lambda key: key[-1], ranks=ranks)
    except Stopped:
        return None


def main(folder: str, out: str) -> None:
    """Measure twice; the second time, the last rank is asked to stop."""
    torch.set_num_threads(1)
    shards = ShardSet(Path(folder))
    with process_group("cpu") as ranks:
        results: list[Any] = [measured(shards, ranks), measured(shards, ranks, stop=ranks.rank == ranks.size - 1)]
        Path(f"{out}-{ranks.rank}").write_bytes(pickle.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
