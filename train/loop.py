"""The training loop, read top to bottom: epochs, steps, validation, checkpoints, and what a run leaves behind."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from shards.schema import TASKS
from shards.writer import write_whole
from train.checkpoint import BEST, LAST, better_than
from train.evaluate import Evaluation, evaluate
from train.regimes import epoch_items, train_batches
from train.report import epoch_lines
from train.run import METRICS_FILE, Progress, Reporter, Run, metrics_lines, run_baselines
from train.stream import Batch, Stopped


def train(run: Run, reporter: Reporter) -> None:
    """Train to the last epoch. Raises Stopped, with `last.pt` written, once a stop was asked for."""
    run.baselines = run_baselines(run, reporter)
    rewind_metrics(run.folder / METRICS_FILE, run.progress)
    if not run.val.samples:
        reporter.say("the val split is empty: nothing is measured, and best.pt is the last epoch's")
    while run.progress.epoch < run.config.epochs:
        train_epoch(run, reporter)
        run.save(LAST)
        validate_epoch(run, reporter)
        run.save(LAST)


def train_epoch(run: Run, reporter: Reporter) -> None:
    """What is left of the epoch under way, in its order."""
    config, progress = run.config, run.progress
    items = epoch_items(config, run.samples, progress.epoch)
    batches = train_batches(config, items[progress.items :])
    what = f"epoch {progress.epoch + 1}/{config.epochs}"
    recent, whole = Meter(), Meter()
    run.objective.network.train()
    try:
        started = time.perf_counter()
        for batch in run.train.batches(batches):
            where = f"{what}, step {progress.step + 1}"
            losses = run.steps.step(batch.to(run.objective.device), where)
            elapsed, started = time.perf_counter() - started, time.perf_counter()
            advance(progress, batch, elapsed)
            recent.add(losses, batch, elapsed)
            whole.add(losses, batch, elapsed)
            reporter.progress(what, progress.items, len(items), lambda: f"{whole.describe(config.stream.order)} | "
                              f"{run.steps.describe()}")  # fmt: skip
            if progress.step % config.log_every == 0:
                log_metrics(run, "step", recent)
                recent = Meter()
    except Stopped:
        run.save(LAST)
        raise
    if whole.labels:
        log_metrics(run, "trained", whole)


def advance(progress: Progress, batch: Batch, seconds: float) -> None:
    """Count a step."""
    progress.step += 1
    progress.items += batch.items
    progress.total_items += batch.items
    progress.images += len(batch.keys)
    progress.seconds += seconds


def validate_epoch(run: Run, reporter: Reporter) -> None:
    """Measure, keep the checkpoint where it is the best yet, and finish the epoch."""
    config, progress = run.config, run.progress
    what = f"epoch {progress.epoch + 1}/{config.epochs}, validation"
    result = evaluate(
        run.objective,
        run.val,
        run.tasks,
        config.stream.batch_size,
        lambda done, total: reporter.progress(what, done, total, str),
    )
    total = result.total(config.coefficient)
    progress.epoch += 1
    progress.items = 0
    record = evaluation_record(run, result)
    best = better_than(total, progress.best) or not run.val.samples or not progress.best_result
    if best:
        progress.best, progress.best_result = total, record
        run.save(BEST)
    append_line(run.folder / METRICS_FILE, {"kind": "epoch", "best": best, **record})
    for line in epoch_lines(record, config.epochs, best):
        reporter.say(line)


def evaluation_record(run: Run, result: Evaluation) -> dict[str, Any]:
    """An epoch's validation as plain values: losses, metrics beside their baselines, and what it took so far."""
    progress = run.progress
    return {
        "epoch": progress.epoch,
        "step": progress.step,
        **result.record(run.config.coefficient, run.baselines),
        "counts": run.counts,
    }


@dataclass
class Meter:
    """Mean losses and speed over a stretch of steps."""

    sums: dict[str, float] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0

    def add(self, losses: Mapping[str, float], batch: Batch, seconds: float) -> None:
        """Take a step's losses, each the mean over the batch's samples with that label."""
        for task, loss in losses.items():
            count = len(batch.rows[task])
            self.sums[task] = self.sums.get(task, 0.0) + loss * count
            self.labels[task] = self.labels.get(task, 0) + count
        self.images += len(batch.keys)
        self.seconds += seconds

    @property
    def means(self) -> dict[str, float]:
        """Undivided."""
        return {task: self.sums[task] / self.labels[task] for task in TASKS if task in self.sums}

    @property
    def speed(self) -> dict[str, float]:
        """Per second: labels trained on, and images that went in."""
        seconds = max(self.seconds, 1e-9)
        return {"items_per_s": sum(self.labels.values()) / seconds, "samples_per_s": self.images / seconds}

    def describe(self, order: str) -> str:
        """For the log; a speed is never without its order."""
        means = " ".join(f"{task} {mean:.4g}" for task, mean in self.means.items())
        speed = self.speed
        return (
            f"loss {means} | {speed['samples_per_s']:.2f} samples/s, {speed['items_per_s']:.2f} labels/s, order {order}"
        )


def log_metrics(run: Run, kind: str, meter: Meter) -> None:
    """A line of `metrics.jsonl` about training."""
    line = {
        "kind": kind,  # step: since the last such line; trained: since the epoch began or was resumed
        "epoch": run.progress.epoch + 1,
        "step": run.progress.step,
        "items": run.progress.items,
        "losses": meter.means,
        "counters": run.steps.describe(),
        "updates": run.steps.updates,
        **meter.speed,
        "order": run.config.stream.order,
        "seconds": run.progress.seconds,
    }
    append_line(run.folder / METRICS_FILE, line)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """One JSON object on a line of its own."""
    with path.open("ab") as file:
        file.write(orjson.dumps(line) + b"\n")


def rewind_metrics(path: Path, progress: Progress) -> None:
    """Lines beyond the checkpoint are of steps that will be done again."""
    lines = metrics_lines(path)
    kept = [
        line
        for line in lines
        if (line["epoch"] <= progress.epoch if line["kind"] == "epoch" else line["step"] <= progress.step)
    ]
    if kept != lines or path.exists():
        write_whole(path, b"".join(orjson.dumps(line) + b"\n" for line in kept))
