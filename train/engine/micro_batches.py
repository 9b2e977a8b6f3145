"""The micro-batches of an epoch with their data, and smaller ones once the GPU's memory was not enough."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import torch

from train.data.batch import Batch
from train.data.order import Item
from train.data.plan import MicroBatch, share_of_rank
from train.data.regimes import plan_rest
from train.engine.memory import free_memory, with_smaller_groups
from train.engine.run import Reporter, Run, write_config


def with_batches(run: Run, items: Sequence[Item]) -> Iterator[tuple[MicroBatch, MicroBatch, Batch | None, float]]:
    """Yield each micro-batch, this rank's share of it, the share's data on the device, and the seconds waited for it.

    They go on where the progress of the run stands in `items`, the epoch's; where its config has changed, the rest is
    planned by the new one. The data is None where this rank has no image of the micro-batch.
    """
    config = None
    while config is not run.config:
        config = run.config
        micro_batches = plan_rest(config, items, run.progress.items, run.progress.counters, run.steps.counters)
        with closing(_read_batches(run, micro_batches)) as batches:
            for batch in batches:
                yield batch
                if run.config is not config:
                    break


def _read_batches(
    run: Run, micro_batches: Sequence[MicroBatch]
) -> Generator[tuple[MicroBatch, MicroBatch, Batch | None, float]]:
    shares = [share_of_rank(micro_batch, run.ranks.rank, run.ranks.size) for micro_batch in micro_batches]
    reads = [list(share.reads) for share in shares if share.reads]
    batches = iter(run.train.batches(reads, epoch=run.progress.epoch))
    for micro_batch, share in zip(micro_batches, shares, strict=True):
        asked = time.perf_counter()
        batch = next(batches) if share.reads else None
        yield micro_batch, share, batch, time.perf_counter() - asked


def use_smaller_groups(run: Run, error: torch.OutOfMemoryError, reporter: Reporter) -> None:
    """Undo the step that failed and make the micro-batches of the run smaller.

    Raises the error where that step cannot be undone or nothing smaller is left.
    """
    smaller = with_smaller_groups(run.config)
    if smaller is None or not run.steps.undo.undo(run.steps):
        raise error
    run.config = smaller
    free_memory(run.objective.device)
    write_config(smaller, run.facts)
    reporter.say(
        "the GPU's memory is not enough for this micro-batch: the run goes on with --micro-batch "
        f"{smaller.stream.micro_batch}, which changes speed and not results"
    )
