"""The training loop, read top to bottom: epochs, groups of images, validation, checkpoints, what a run leaves."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import torch

from shards.schema import TASKS
from train.data.plan import MicroBatch
from train.data.regimes import epoch_items
from train.engine.checkpoint import CheckpointError, better_than
from train.engine.evaluate import LOSS, Evaluation, evaluate, loss_divisors
from train.engine.metrics_file import append_line, rewind_metrics
from train.engine.micro_batches import use_smaller_groups, with_batches
from train.engine.run import Listener, Progress, Reporter, Run, run_baselines
from train.engine.sample_predictions import choose_samples, predict_samples
from train.run_folder import BEST, LAST, METRICS_FILE
from train.stop import Stopped

_IN_EVALUATION = ("parts", "extremes", "details")  # eval.json has them, of the best epoch alone


def train(run: Run, reporter: Reporter, listener: Listener | None = None) -> None:
    """Train to the last epoch. Raises Stopped, with `last.pt` written, once a stop was asked for.

    The listener follows the run on the main rank; other ranks have none.
    """
    run.listener = listener
    if run.ranks.is_main:
        run.baselines = run_baselines(run, reporter)
        rewind_metrics(run.folder / METRICS_FILE, run.progress)
    if not run.val.samples:
        reporter.say("the val split is empty: nothing is measured, and best.pt is the last epoch's")
    while run.progress.epoch < run.config.epochs:
        train_epoch(run, reporter)
        run.save(LAST)
        validate_epoch(run, reporter)
        run.save(LAST)
    say_pending(run, reporter)
    if run.ranks.is_main and run.val.samples and run.progress.best is None:
        reporter.say("no val loss was finite in any epoch: best.pt is the last epoch's, chosen by nothing")


def say_pending(run: Run, reporter: Reporter) -> None:
    """Say which parameter groups end with gradients that no step has used; more epochs would use them."""
    pending = [f"{part} {count}" for part, count in run.steps.counters.items() if count]
    if pending and run.ranks.is_main:
        reporter.say(f"training ended with gradients that no step has used, of items: {', '.join(pending)}")


def train_epoch(run: Run, reporter: Reporter) -> None:
    """Train on the rest of the current epoch, in its order."""
    config, progress = run.config, run.progress
    items = epoch_items(config, run.samples, progress.epoch)
    total = len(items)
    what = f"epoch {progress.epoch + 1}/{config.epochs}"
    recent, unsaved, whole = Meter(), Meter(), Meter()  # since a line, a checkpoint, the start
    run.objective.network.train()
    saved = started = time.perf_counter()
    for micro_batch, share, batch, waited in with_batches(run, items):
        stop, save = run.ranks.any(run.stopping(), time.perf_counter() - saved > 60 * config.checkpoint_minutes)
        if stop or save:
            read_back(run, recent, unsaved, whole)
            log_metrics(run, "trained", unsaved)
            unsaved = Meter()
            save_in_epoch(run, reporter, final=stop)
            saved = time.perf_counter()
        if stop:
            raise Stopped
        try:
            run.steps.run(share, batch, f"{what}, micro-batch {progress.groups + 1}")
        except torch.OutOfMemoryError as error:
            use_smaller_groups(run, error.with_traceback(None), reporter)  # whose frames hold the step's tensors
            continue  # with the rest of the epoch, planned anew
        elapsed, started = time.perf_counter() - started, time.perf_counter()
        advance(progress, micro_batch, elapsed)
        for meter in (recent, unsaved, whole):
            meter.add_time(micro_batch, elapsed, waited)
        if progress.groups % config.log_every == 0:
            read_back(run, recent, unsaved, whole)
            log_metrics(run, "step", recent)
            recent = Meter()
        elif not whole.labels:
            read_back(run, recent, unsaved, whole)  # so that a loss can be shown early
        left = (config.epochs - progress.epoch) * total - progress.items
        reporter.progress(what, progress.items, total, partial(whole.facts, left, config.stream.order))
    read_back(run, recent, unsaved, whole)
    run.steps.balance.end_epoch()
    log_metrics(run, "trained", unsaved)


def save_in_epoch(run: Run, reporter: Reporter, *, final: bool) -> None:
    """Write `last.pt`; where that fails within an epoch, the next interval tries again."""
    try:
        run.save(LAST)
    except CheckpointError as error:
        if final:
            raise
        reporter.say(
            f"{error}; the last one is untouched, and the next try is in {run.config.checkpoint_minutes:g} min"
        )


def read_back(run: Run, *meters: Meter) -> None:
    """Give the losses so far to the meters. Raises ValueError where one is not a finite number."""
    losses = run.steps.losses()
    for meter in meters:
        meter.add_losses(losses)


def advance(progress: Progress, micro_batch: MicroBatch, seconds: float) -> None:
    """Count a group."""
    progress.groups += 1
    progress.items += micro_batch.items
    progress.total_items += micro_batch.items
    progress.images += len(micro_batch.reads)
    progress.seconds += seconds


def validate_epoch(run: Run, reporter: Reporter) -> None:
    """Finish the epoch: all ranks measure, and the first one keeps the checkpoint where it is the best yet."""
    progress = run.progress
    progress.epoch += 1
    progress.items = 0
    progress.counters = run.steps.counters
    what = f"epoch {progress.epoch}/{run.config.epochs}, validation"
    # Where it is stopped: last.pt was written before the epoch was finished, and it is measured again.
    result = evaluate(
        run.objective,
        run.val,
        run.tasks,
        run.config.stream.batch_size,
        lambda done, total: reporter.progress(what, done, total, str),
        ranks=run.ranks,
    )
    stopped = False
    if run.ranks.is_main:
        try:
            keep_result(run, result, reporter)
        except Stopped:  # while samples were read for pictures
            stopped = True
    if run.ranks.any(stopped)[0]:
        raise Stopped


def keep_result(run: Run, result: Evaluation, reporter: Reporter) -> None:
    """Write the best checkpoint and the epoch's lines."""
    config, progress = run.config, run.progress
    value = choose_by(run, result, reporter)
    record = evaluation_record(run, result)
    best = better_than(value, progress.best) or progress.best is None
    note_best_epochs(progress, result)
    progress.last_result = {name: record[name] for name in ("epoch", "val_losses", "val_loss", "metrics")}
    if best:
        progress.best, progress.best_result = value, record
        run.save(BEST)
    short = {name: value for name, value in record.items() if name not in _IN_EVALUATION}
    write_line(run, {"kind": "epoch", "best": best, **short})
    if run.listener is not None:
        if run.val.samples:
            shown = choose_samples(run.val.samples, run.tasks, count=2)
            for pieces in predict_samples(run.objective, run.val, run.tasks, shown):
                run.listener.sample(pieces, progress.groups)
        run.listener.epoch(record, config.epochs, best)


def choose_by(run: Run, result: Evaluation, reporter: Reporter) -> float | None:
    """Return the criterion of best.pt, which is to be minimised."""
    config, progress = run.config, run.progress
    if not progress.best_result:
        known = {task: loss for task, loss in result.losses.items() if math.isfinite(loss) and loss > 0}
        progress.first_losses = known
    divisors = loss_divisors(progress.first_losses, config.coefficient)
    value = result.criterion(config.best, divisors)
    if value is None and config.best != LOSS and run.val.samples:
        reporter.say(f"val gives no {config.best}, as no label of it holds anything to measure: the val loss decides")
        return result.total(divisors)
    return value


def note_best_epochs(progress: Progress, result: Evaluation) -> None:
    """Keep for each task the epoch with its lowest val loss."""
    for task, loss in result.losses.items():
        best = progress.best_epochs.get(task)
        if better_than(loss, best["loss"] if best else None):
            progress.best_epochs[task] = {"epoch": progress.epoch, "loss": loss}


def evaluation_record(run: Run, result: Evaluation) -> dict[str, Any]:
    """An epoch's validation as plain values: losses, metrics beside their baselines, and what it took so far."""
    progress = run.progress
    return {
        "epoch": progress.epoch,
        "step": progress.groups,
        **result.record(loss_divisors(progress.first_losses, run.config.coefficient), run.baselines),
        "counts": run.counts,
    }


@dataclass
class Meter:
    """Mean losses and speed over a stretch of groups."""

    sums: dict[str, float] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    items: int = 0
    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # of the seconds, for data

    def add_time(self, micro_batch: MicroBatch, seconds: float, waited: float) -> None:
        """Take what a group held and took."""
        self.waited += waited
        self.items += micro_batch.items
        self.images += len(micro_batch.reads)
        self.seconds += seconds

    def add_losses(self, losses: Mapping[str, Sequence[float]]) -> None:
        """Take undivided losses, by task."""
        for task, values in losses.items():
            self.sums[task] = self.sums.get(task, 0.0) + sum(values)
            self.labels[task] = self.labels.get(task, 0) + len(values)

    @property
    def means(self) -> dict[str, float]:
        """Undivided."""
        return {task: self.sums[task] / self.labels[task] for task in TASKS if task in self.sums}

    @property
    def speed(self) -> dict[str, float]:
        """Per second: labels trained on, and images that went in; and the share of the time that went into waiting."""
        seconds = max(self.seconds, 1e-9)
        return {
            "items_per_s": self.items / seconds,
            "samples_per_s": self.images / seconds,
            "waiting": self.waited / seconds,
        }

    def facts(self, left: int, order: str) -> list[str]:
        """Return the run's time left, its speed with the order of the items, and mean losses, for people."""
        speed = self.speed["items_per_s"]
        losses = " ".join(f"{task} {mean:.4g}" for task, mean in self.means.items())
        time_left = timedelta(seconds=round(left / max(speed, 1e-9)))
        return [
            f"{time_left} left of the run",
            f"{speed:.2f} labels/s, order {order}",
            f"loss {losses}" if losses else "",
        ]


def log_metrics(run: Run, kind: str, meter: Meter) -> None:
    """Write a line about training to `metrics.jsonl`, unless no loss was read since the last one.

    Lines of kind `step` come every log interval. Those of kind `trained` divide an epoch at its checkpoints, so that
    each item counts in exactly one of them, whenever the run was stopped or killed.
    """
    if not run.ranks.is_main or not meter.labels:
        return
    line = {
        "kind": kind,
        "epoch": run.progress.epoch + 1,
        "step": run.progress.groups,
        "items": run.progress.items,
        "losses": meter.means,
        "labels": meter.labels,  # how many losses each mean is of
        "counters": run.steps.describe(),
        "updates": run.steps.updates,
        "coefficients": run.steps.balance.current(),
        "learning_rates": run.config.learning_rate,
        "gradients": run.steps.shared.agreement,
        **meter.speed,
        "order": run.config.stream.order,
        "seconds": run.progress.seconds,
    }
    write_line(run, line)


def write_line(run: Run, line: dict[str, Any]) -> None:
    """Append to `metrics.jsonl`, and tell the listener."""
    append_line(run.folder / METRICS_FILE, line)
    if run.listener is not None:
        run.listener.line(line)
