"""Items per second of the asymmetric regime: the thesis's loop against planned groups, side by side in one run.

    python benchmarks/train_step.py                                                  # two CPU cores
    python benchmarks/train_step.py --device cuda --backbone resnet50 --size 1024    # a GPU

Every way trains the same items in the order `items` with the thesis's thresholds, from data already in memory: what
is timed is the network: on a CPU by the process's CPU time, which other work on the machine changes little. Ways take
turns in each round; a ratio is the median over the rounds of its own round's ratio.

    thesis      batch of one, all four heads run, as the author's code does; PyTorch's defaults (on a GPU: float32 with
                TF32 convolutions), contiguous tensors, Adam unfused
    labelled    the same, only the labelled head runs
    planned     groups of up to --micro-batch images, as amtl-train does it; also in bf16
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests/plain_loop.py is the reference of the tests too

from models.multitask import build_multitask
from shards.classes import SEGMENTATION_CLASSES
from shards.schema import TASKS
from tests.made_up import CONTEXT, MadeUp, items_of
from tests.plain_loop import PlainLoop
from train.data.order import Item, SampleRequest
from train.data.regimes import plan_epoch
from train.engine.objective import Objective
from train.engine.step import TrainingStep
from train.presets import build_config

Way = Callable[[], None]


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--backbone", default="resnet18", show_default=True)
@click.option("--size", default=256, show_default=True, help="Side of the images, px.")
@click.option("--width", default=1.0, show_default=True)
@click.option("--micro-batch", default=8, show_default=True)
@click.option("--items", "count", default=48, show_default=True, help="Items a way trains in a round: whole windows.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--bf16/--no-bf16", default=True, show_default=True, help="Also planned groups in bf16.")
@click.option("--repeat-images", is_flag=True, help="Few images, so that several labels of one fall together.")
def main(
    device: str,
    backbone: str,
    size: int,
    width: float,
    micro_batch: int,
    count: int,
    rounds: int,
    bf16: bool,
    repeat_images: bool,
) -> None:
    """Time the ways of training and print a table."""
    place = torch.device(device)
    data = MadeUp(4 if repeat_images else count, size=size)
    items = items_of(count, 4, dict.fromkeys(TASKS, 1.0))
    if not repeat_images:  # an image an item, as in a data set much larger than a group
        items = [Item(position, item.task) for position, item in enumerate(items)]

    def objective(precision: str = "fp32") -> Objective:
        torch.manual_seed(0)
        network = build_multitask(size=size, classes=len(SEGMENTATION_CLASSES), backbone=backbone, width=width)
        network.train()
        return Objective(network, device=place, normalise=False, context=CONTEXT, precision=precision)

    ways: dict[str, Way] = {
        "thesis": plain(objective(), data, items, all_heads=True),
        "labelled": plain(objective(), data, items, all_heads=False),
        "planned": planned(objective(), data, items, micro_batch),
    }
    if bf16:
        ways["planned, bf16"] = planned(objective("bf16"), data, items, micro_batch)
    report(ways, rounds, count, place)


def plain(objective: Objective, data: MadeUp, items: list[Item], *, all_heads: bool) -> Way:
    """The batch-of-one loop, in PyTorch's own memory format."""
    config = build_config({"mode": "asymmetric"})
    objective.network.to(memory_format=torch.contiguous_format)
    loop = PlainLoop(objective, config.threshold, config.coefficient, config.learning_rate, all_heads=all_heads)

    def run() -> None:
        for item in items:
            loop.item(data.batch([SampleRequest(item.sample, (item.task,))]).to(objective.device))

    return run


def planned(objective: Objective, data: MadeUp, items: list[Item], micro_batch: int) -> Way:
    """Groups, as amtl-train forms them."""
    config = build_config({"mode": "asymmetric", "stream": {"micro_batch": micro_batch}, "measure_every": 0})
    steps = TrainingStep(config, objective)

    def run() -> None:
        for group in plan_epoch(config, items, steps.counters):
            steps.run(group, data.batch(group.reads).to(objective.device), "benchmark")
        steps.losses()

    return run


def report(ways: dict[str, Way], rounds: int, count: int, device: torch.device) -> None:
    """Take turns, then print medians and the ratios within the rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            clock = time.process_time if device.type == "cpu" else time.perf_counter
            started = clock()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() / 2**30
            if turn:  # the first turn warms up
                seconds[name].append(clock() - started)
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, medians of {rounds} rounds of {count}"
    )
    print("| way | items/s | against thesis | lowest, highest | peak GiB |")
    print("|---|---|---|---|---|")
    for name, times in seconds.items():
        ratios = [first / own for first, own in zip(seconds["thesis"], times, strict=True)]
        print(f"| {name} | {count / statistics.median(times):.2f} | {statistics.median(ratios):.2f} | "
              f"{min(ratios):.2f}, {max(ratios):.2f} | {peaks.get(name, float('nan')):.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
