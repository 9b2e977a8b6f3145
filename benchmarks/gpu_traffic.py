"""Predicted traffic of training on a GPU, computed without one: bytes an item and the time in which they can move.

    T=$(python -c "import torch; print(torch.__path__[0])")
    g++ -std=c++20 -shared -fPIC -I$T/include tests/fake_cuda_hooks.cpp -o hooks.so -L$T/lib -lc10
    LD_PRELOAD=./hooks.so python -m benchmarks.gpu_traffic

Every kernel of whole micro-batches is counted on fake CUDA tensors (tests/fake_cuda.py) as reading its inputs and
writing its outputs once. The floor is those bytes at the bandwidth of the GPU's memory; arithmetic is not counted. To
compare two versions of the code, run the script in each. Nothing here is measured.
"""

from __future__ import annotations

import warnings

import click

from models.multitask import build_multitask
from models.norms import NORMS
from shards.classes import SEGMENTATION_CLASSES
from shards.schema import TASKS
from tests.fake_cuda import CUDA, fake_gpu
from tests.made_up import CONTEXT, MadeUp
from train.data.order import Item, SampleRequest
from train.data.regimes import plan_epoch
from train.engine.objective import Objective
from train.engine.step import TrainingStep
from train.presets import build_config


def traffic(
    norm: str, precision: str, *, backbone: str, size: int, width: float, micro_batch: int
) -> tuple[float, float]:
    """Return GB moved an item, and the share of image tensors that are written outside channels-last."""
    with fake_gpu() as recorder:
        network = build_multitask(
            size=size, classes=len(SEGMENTATION_CLASSES), backbone=backbone, width=width, norm=norm
        ).train()
        objective = Objective(network, device=CUDA, normalise=True, context=CONTEXT, precision=precision)
        thresholds = {"shared": 2 * micro_batch, **dict.fromkeys(TASKS, micro_batch // 2)}
        config = build_config({"mode": "asymmetric", "stream": {"micro_batch": micro_batch}, "measure_every": 0},
                              {"threshold": thresholds})  # fmt: skip
        items = [Item(position, TASKS[position % len(TASKS)]) for position in range(2 * micro_batch)]
        steps = TrainingStep(config, objective)
        steps.undo.on = False  # its copies come once for each size of micro-batch
        data = MadeUp(1, size=size)
        groups = plan_epoch(config, items, steps.counters)
        batches = [data.batch([SampleRequest(0, read.tasks) for read in group.reads]).to(CUDA) for group in groups]
        recorder.operations.clear()
        for group, batch in zip(groups, batches, strict=True):
            steps.run(group, batch, "benchmark")
        moved = sum(operation.moved_bytes for operation in recorder.operations)
        images = [out for _, out in recorder.images(2**13)]
        outside = sum(not out.channels_last for out in images)
    return moved / len(items) / 1e9, outside / len(images)


@click.command()
@click.option("--backbone", default="resnet50", show_default=True)
@click.option("--size", default=1024, show_default=True, help="Side of the images, px.")
@click.option("--width", default=1.0, show_default=True)
@click.option("--micro-batch", default=8, show_default=True)
@click.option("--bandwidth", default=3.35, show_default=True, help="Of the GPU's memory, TB/s; 3.35 is an H100's.")
@click.option("--norm", "norms", multiple=True, default=NORMS, show_default=True)
@click.option("--precision", "precisions", multiple=True, default=("fp32", "bf16"), show_default=True)
def main(
    backbone: str,
    size: int,
    width: float,
    micro_batch: int,
    bandwidth: float,
    norms: tuple[str, ...],
    precisions: tuple[str, ...],
) -> None:
    """Print a table of norms and precisions."""
    warnings.simplefilter("ignore")
    print(f"computed: {backbone}, {size} px, micro-batches of {micro_batch}, {bandwidth} TB/s")
    print("| norm | precision | GB an item | at most, items/s | maps outside channels-last |")
    print("|---|---|---:|---:|---:|")
    for norm in norms:
        for precision in precisions:
            gigabytes, outside = traffic(
                norm, precision, backbone=backbone, size=size, width=width, micro_batch=micro_batch
            )
            print(f"| {norm} | {precision} | {gigabytes:.2f} | {1e3 * bandwidth / gigabytes:.0f} | {outside:.1%} |")


if __name__ == "__main__":
    main()
