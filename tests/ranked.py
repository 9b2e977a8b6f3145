"""What a rank of test_ranks.py does: `torchrun ... -m tests.ranked OUT` trains every case and saves rank 0's states."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from shards.schema import TASKS
from tests.made_up import SIZE, MadeUp, items_of, objective_of
from tests.toy import ToyNet
from train.config import RunConfig
from train.data.order import group_reads
from train.data.plan import MicroBatch, plan_batches, share_of_rank
from train.data.regimes import plan_epoch
from train.engine.distributed import ProcessGroup, process_group
from train.engine.step import TrainingStep
from train.presets import build_config

PARTS = ("shared", *TASKS)
THRESHOLDS = {"shared": 20, "steering": 7, "segmentation": 5, "boxes": 3, "depth": 9}
CASES: dict[str, tuple[dict[str, Any], str | None]] = {
    "asymmetric": ({"mode": "asymmetric"}, "group"),
    "asymmetric, sample norm": ({"mode": "asymmetric", "measure_every": 2}, "sample"),
    "asymmetric, pcgrad": ({"mode": "asymmetric", "balance": {"method": "pcgrad"}}, None),
    "asymmetric, learnt": ({"mode": "asymmetric", "balance": {"method": "uncertainty"}}, None),
    "symmetric": (
        {"mode": "symmetric", "stream": {"batch_size": 5, "micro_batch": 3, "allow_missing": True}},
        "frozen",
    ),
    "single": ({"mode": "single", "task": "depth", "network": {"name": "mtl"}, "stream": {"batch_size": 3}}, "group"),
}
DATA = MadeUp(12)


def config_of(case: str) -> RunConfig:
    rates = dict.fromkeys((*PARTS, "all"), 1e-3)
    return build_config({"learning_rate": rates, "threshold": THRESHOLDS}, CASES[case][0])


def groups_of(config: RunConfig, steps: TrainingStep) -> list[MicroBatch]:
    items = sorted(items_of(90, len(DATA.images), dict.fromkeys(config.tasks, 1.0)), key=lambda item: item.sample % 5)
    if config.mode == "asymmetric":
        return plan_epoch(config, items, steps.counters)
    reads = group_reads(list(dict.fromkeys(sorted(items, key=lambda item: item.sample))), together=True)
    return plan_batches(reads, config.stream.batch_size, config.stream.micro_batch)


def steps_of(case: str, ranks: ProcessGroup) -> TrainingStep:
    torch.manual_seed(0)
    config = config_of(case)
    return TrainingStep(
        config, objective_of(ToyNet(config.tasks, size=SIZE, channels=32, norm=CASES[case][1]).double()), ranks
    )


def train(steps: TrainingStep, groups: list[MicroBatch], ranks: ProcessGroup) -> None:
    steps.objective.network.train()
    for group in groups:
        share = share_of_rank(group, ranks.rank, ranks.size)
        steps.run(share, DATA.batch(share.reads) if share.reads else None, "here")
    steps.losses()


def states(case: str, ranks: ProcessGroup) -> Iterator[dict[str, Any]]:
    """Weights and all else in the middle, where gradients are pending, and at the end."""
    steps = steps_of(case, ranks)
    groups = groups_of(config_of(case), steps)
    for part in (groups[:4], groups[4:]):
        train(steps, part, ranks)
        steps.gather_pending()
        yield copy.deepcopy({"weights": steps.objective.network.state_dict(), "steps": steps.state_dict()})


def main(out: str, victim: str = "") -> None:
    torch.set_num_threads(1)
    with process_group("cpu") as ranks:
        if victim == str(ranks.rank):
            os.kill(os.getpid(), signal.SIGKILL)
        found = {case: list(states(case, ranks)) for case in CASES}
        if ranks.is_main:
            torch.save(found, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
