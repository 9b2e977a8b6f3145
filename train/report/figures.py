"""The report's figures: losses and metrics over training, results by class or distance, and steering windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from shards.schema import TASKS
from shards.writer import write_whole
from train.report.plots import (
    BLUE,
    GREY,
    ORANGE,
    Curve,
    Plot,
    Point,
    bar_figure,
    line_figure,
    to_png,
    to_svg,
)
from train.report.runs import Column, mean_of
from train.report.tables import Table, breakdown_rows
from train.report.text import best_constant, in_unit, number
from train.tasks import DEFINITIONS, all_metrics
from train.tasks.definition import Metric

_SHOWN_PARTS = 16  # of a task's classes, the commonest; its table has all of them

Lines = Sequence[Mapping[str, Any]]  # of metrics.jsonl


def validation_points(lines: Lines, task: str, metric: str | None = None, *, over_images: bool = False) -> list[Point]:
    """(epoch or images seen, loss or metric of the task) of each validation that measured it."""
    points: list[Point] = []
    for line in lines:
        if line.get("kind") == "epoch":
            value = (line.get("val_losses") or {}).get(task)
            if metric is not None:
                rows = [row for row in line.get("metrics", ()) if (row["task"], row["metric"]) == (task, metric)]
                value = rows[0]["value"] if rows else None
            if value is not None:
                points.append((line["counts"]["images"] if over_images else line["epoch"], value))
    return points


def validation_curves(
    columns: Sequence[Column], task: str, metric: str | None = None, *, over_images: bool = False
) -> list[Curve]:
    """The columns' curves of a loss or metric: a thin one per seed with a dot at the best epoch, and their mean.

    Where there is one seed there is one curve. A mean ends where the shortest run ends.
    """
    curves: list[Curve] = []
    for column in columns:
        seeds = []
        for run in column.cells.get(task, []):
            points = validation_points(run.lines, task, metric, over_images=over_images)
            epochs = [epoch for epoch, _ in validation_points(run.lines, task, metric)]
            best = [point for point, epoch in zip(points, epochs, strict=True) if epoch == run.record.get("epoch")]
            seeds += [Curve(points, column.colour, thin=True, marked=best)] if points else []
        if len(seeds) > 1:
            together = list(zip(*(seed.points for seed in seeds), strict=False))
            mean = [(fmean(x for x, _ in at), fmean(y for _, y in at)) for at in together]
            curves += [*seeds, Curve(mean, column.colour)]
        else:
            curves += [replace(seed, thin=False) for seed in seeds]
    return curves


def loss_figure(columns: Sequence[Column]) -> str:
    """Figure 4.1 of the thesis: a row per task, over epochs and over images; empty where nothing was measured."""
    plots = []
    for task in TASKS:
        if curves := validation_curves(columns, task):
            plots.append(Plot(task, "epoch", DEFINITIONS[task].words.loss, curves))
            plots.append(Plot("", "images seen in training", "", validation_curves(columns, task, over_images=True)))
    return to_svg(line_figure(plots, 2, share_y="row", size_in=(5.6, 2.5)), "losses") if plots else ""


def loss_table(columns: Sequence[Column]) -> Table:
    """Validation losses of the first and last epoch, means over seeds."""
    rows = []
    for task in TASKS:
        for column in columns:
            if curves := validation_curves([column], task):
                values = [value for _, value in curves[-1].points]
                told = map(number, (values[0], values[-1], min(values)))
                rows.append([task, column.name, *told, f"{values[0] / values[-1]:.2f}" if values[-1] else "–"])
    head = ["loss", "regime", "first epoch", "last epoch", "lowest", "first / last"]
    return Table("Validation losses, means over seeds.", head, rows, words=2)


def metric_figure(columns: Sequence[Column]) -> str:
    """Every metric over the epochs beside the best constant prediction; empty where nothing was measured."""
    plots = []
    for metric in all_metrics():
        if curves := validation_curves(columns, metric.task, metric.name):
            epochs = [epoch for curve in curves for epoch, _ in curve.points]
            constant = _best_constant(columns, metric)
            if constant is not None:
                curves.append(Curve([(min(epochs), constant), (max(epochs), constant)], GREY, dashed=True))
            arrow = "↑" if metric.higher_is_better else "↓"
            label = f"{metric.name}{in_unit(metric.unit, ', ')}"
            plots.append(Plot(f"{metric.task} {metric.name} {arrow}", "epoch", label, curves))
    return to_svg(line_figure(plots, 4, linear=True, size_in=(2.8, 2.0)), "metrics") if plots else ""


def _best_constant(columns: Sequence[Column], metric: Metric) -> float | None:
    rows = [row for column in columns for run in column.cells.get(metric.task, []) for row in run.record["metrics"]]
    found = [best_constant(row) for row in rows if (row["task"], row["metric"]) == (metric.task, metric.name)]
    return next((best[1] for best in found if best), None)


def breakdown_figure(task: str, columns: Sequence[Column]) -> str:
    """Bars of the first metric by class, distance or angle, a bar per column; empty where no run has any."""
    parts, held = breakdown_rows(task, columns)
    if not parts:
        return ""
    breakdown = DEFINITIONS[task].breakdown
    metric, shown = breakdown.metrics[0], list(parts)[:_SHOWN_PARTS]
    series: list[tuple[str, str, list[float | None]]] = []
    constants: dict[str, float] = {}
    for column, of_column in zip(columns, held, strict=True):
        if task in column.cells:
            rows = [row for row in of_column if row["metric"] == metric.name]
            means = [mean_of([row["value"] for row in rows if row["of"] == of]) for of in shown]
            series.append((column.name, column.colour, means))
            constants |= {row["of"]: best[1] for row in rows if (best := best_constant(row))}
    marks = [constants.get(of) for of in shown]
    names = [f"{of} ({parts[of]:.1f} %)" for of in shown]
    label = f"{metric.name}{in_unit(metric.unit, ', ')}"
    return to_svg(bar_figure(names, series, label, marks), f"{task}-parts")


def draw_losses(path: Path, lines: Lines) -> None:
    """Write a PNG with each task's training and validation loss over the epochs; nothing where there is none."""
    train, plots = training_losses(lines), []
    for task in TASKS:
        curves = [
            Curve(train.get(task, []), BLUE, "train"),
            Curve(validation_points(lines, task), ORANGE, "validation"),
        ]
        if shown := [curve for curve in curves if curve.points]:
            plots.append(Plot(task, "epoch", DEFINITIONS[task].words.loss, shown))
    if plots:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_png(line_figure(plots, min(2, len(plots)))))


def training_losses(lines: Lines) -> dict[str, list[Point]]:
    """(epoch, mean training loss) by task.

    An epoch has a line for each stretch between two checkpoints; their means are weighted by the number of labels.
    Older runs have one line per epoch, without that number.
    """
    found: dict[str, dict[int, list[tuple[float, int]]]] = {}
    for line in lines:
        if line["kind"] == "trained":
            for task, loss in line["losses"].items():
                count = line.get("labels", {}).get(task, 1)
                found.setdefault(task, {}).setdefault(line["epoch"], []).append((loss, count))
    return {
        task: [
            (epoch, sum(loss * count for loss, count in stretches) / sum(count for _, count in stretches))
            for epoch, stretches in epochs.items()
        ]
        for task, epochs in found.items()
    }
