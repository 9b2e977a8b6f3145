"""What test_gpu.py looks at: `python -m tests.fake_gpu_cases OUT` runs every case on a fake GPU and writes a report.

The network is the real one at 256 px, an eighth wide; the data and their shards are real, the GPU is fake_cuda.py's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from models.multitask import build_multitask
from models.singletask import build_singletask
from shards.classes import SEGMENTATION_CLASSES
from shards.reader import ShardSet
from shards.schema import TASKS
from tests.fake_cuda import CUDA, Recorder, fake_gpu
from tests.made_up import CONTEXT, MadeUp
from tests.tiny_shards import write_tiny_shards
from train.cli.console import Console
from train.config import RunConfig
from train.data.order import Item, group_reads
from train.data.plan import MicroBatch, plan_batches
from train.data.regimes import plan_epoch
from train.data.stream import Stream
from train.engine import run as running
from train.engine.baselines import score_groups
from train.engine.evaluate import evaluate
from train.engine.loop import train
from train.engine.objective import Objective
from train.engine.step import TrainingStep
from train.presets import build_config

SIDE = 256
LARGE = 2**13  # values of a map that is worth a look
PRECISIONS = ("fp32", "bf16")
THRESHOLDS = {"shared": 6, "steering": 2, "segmentation": 2, "boxes": 2, "depth": 2}
STEP_CASES: dict[str, dict[str, Any]] = {
    **{f"asymmetric, {norm} norm": {"network": {"norm": norm}} for norm in ("frozen", "group", "sample", "batch")},
    **{f"asymmetric, {way}": {"balance": {"method": way}} for way in ("epoch", "uncertainty", "pcgrad")},
    "asymmetric, measured": {"measure_every": 1},
    "symmetric": {"mode": "symmetric", "stream": {"batch_size": 4, "micro_batch": 3}},
    **{
        f"single, {task}": {"mode": "single", "task": task, "stream": {"batch_size": 2}}
        for task in ("segmentation", "boxes")
    },
}


@dataclass
class Report:
    """What was seen in a case; JSON keeps it on the way to the test."""

    error: str = ""
    waits: list[str] = field(default_factory=list)  # between two lines of the log
    outside_channels_last: list[str] = field(default_factory=list)
    float32: list[str] = field(default_factory=list)  # maps between the first and the last layer


def config_of(changes: dict[str, Any], precision: str) -> RunConfig:
    """A run with small thresholds, so that every part steps within a few micro-batches."""
    base = {"mode": "asymmetric", "precision": precision, "measure_every": 0, "threshold": THRESHOLDS}
    network = {"backbone": "resnet18", "norm": "frozen", "width": 0.125, **changes.get("network", {})}
    return build_config(base, {**changes, "network": network if changes.get("mode") != "single" else {"width": 0.125}})


def objective_of(config: RunConfig) -> Objective:
    """The run's network on the fake GPU."""
    options = config.network
    if options.name == "stl":
        network = build_singletask(config.tasks[0], size=SIDE, classes=len(SEGMENTATION_CLASSES), width=options.width)
    else:
        network = build_multitask(size=SIDE, classes=len(SEGMENTATION_CLASSES), backbone=options.backbone,
                                  width=options.width, norm=options.norm, tasks=config.tasks)  # fmt: skip
    network.train()
    return Objective(network, device=CUDA, normalise=True, context=CONTEXT, precision=config.precision)


def groups_of(config: RunConfig, counters: dict[str, int], images: int) -> list[MicroBatch]:
    """A few micro-batches of the regime."""
    tasks = config.tasks
    items = [Item(position % images, tasks[position % len(tasks)]) for position in range(12)]
    if config.mode == "asymmetric":
        return plan_epoch(config, items, counters)
    reads = group_reads(list(dict.fromkeys(sorted(items, key=lambda item: item.sample))), together=True)
    return plan_batches(reads, config.stream.batch_size, config.stream.micro_batch)


def watch_steps(name: str, precision: str, recorder: Recorder) -> Report:
    """Train on a few micro-batches, then read the losses back."""
    config = config_of(STEP_CASES[name], precision)
    data = MadeUp(5, size=SIDE)
    steps = TrainingStep(config, objective_of(config))
    groups = groups_of(config, steps.counters, len(data.images))
    batches = [data.batch(group.reads).to(CUDA) for group in groups]
    recorder.operations.clear()
    recorder.waits.clear()
    for group, batch in zip(groups, batches, strict=True):
        steps.run(group, batch, "here")
    report = Report(waits=list(recorder.waits))
    assert steps.losses(), "the losses are read back at a line of the log"
    assert all(steps.updates.values()), "every part steps"
    images = list(recorder.images(LARGE))
    report.outside_channels_last = [name for name, out in images if not out.channels_last]
    ends = (3, len(SEGMENTATION_CLASSES))  # channels of images before the network, and of logits in the loss
    report.float32 = [name for name, out in images if out.dtype == torch.float32 and out.shape[1] not in ends]
    return report


def watch_measuring(precision: str, recorder: Recorder) -> Report:
    """The stream of the device, evaluation of all tasks, and constants as amtl-train and amtl-eval score them."""
    config = config_of({}, precision)
    with tempfile.TemporaryDirectory() as folder:
        shards = ShardSet(write_tiny_shards(Path(folder) / "shards"))
        train, val = (Stream(shards, shards.samples(split), device=CUDA) for split in ("train", "val"))
        result = evaluate(objective_of(config), val, TASKS, 2, grouping=lambda key: key[-1])
        groups = score_groups(train, val, TASKS, CONTEXT, lambda key: key[-1])
        assert set(result.scores) == set(TASKS)
        assert set(next(iter(groups.values()))) == set(TASKS)
        shards.close()
    return Report()


def watch_command(precision: str, recorder: Recorder) -> Report:
    """`amtl-train`, first step to last line; checkpoints, which no fake tensor can be written to, are left out."""
    with tempfile.TemporaryDirectory() as folder:
        shards = write_tiny_shards(Path(folder) / "shards")
        config = build_config(
            {"mode": "asymmetric", "shards": str(shards), "out": str(Path(folder) / "run"), "precision": precision,
             "epochs": 1, "device": "cuda", "threshold": THRESHOLDS, "measure_every": 1,
             "network": {"weights": "none", "backbone": "resnet18", "width": 0.125}})  # fmt: skip
        with mock.patch.object(running, "save_checkpoint"):
            run = running.prepare(config, resume=False, stopping=lambda: False, reporter=Console(quiet=True))
            train(run, Console(quiet=True))
            run.close()
        assert run.progress.epoch == 1
        assert run.objective.device == CUDA
    return Report()


def cases() -> dict[str, Callable[[Recorder], Report]]:
    """Every case by its name."""
    found: dict[str, Callable[[Recorder], Report]] = {
        f"{name}, {precision}": partial(watch_steps, name, precision)
        for name in STEP_CASES
        for precision in (PRECISIONS if name.endswith(("group norm", "sample norm")) else ("bf16",))
    }
    found["measuring"] = partial(watch_measuring, "bf16")
    found["command"] = partial(watch_command, "bf16")
    return found


def main(out: str, only: str = "") -> None:
    """Run the cases, each on a fake GPU of its own."""
    warnings.simplefilter("ignore")
    reports = {}
    for name, watch in cases().items():
        if only and name not in only.split(";"):
            continue
        with fake_gpu() as recorder:
            try:
                report = watch(recorder)
            except Exception:  # the test of this case tells it
                report = Report(error=traceback.format_exc())
        reports[name] = vars(report)
    Path(out).write_text(json.dumps(reports))


if __name__ == "__main__":
    main(*sys.argv[1:])
