"""The report's figures: losses and metrics over training, results by class or distance, and steering windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from train.report.runs import Cell, Column, RunResult, mean_of
from train.report.tables import Table, breakdown_rows
from train.report.text import best_constant, in_unit, number
from train.tasks import DEFINITIONS, all_metrics
from train.tasks.definition import Metric

_SHOWN_PARTS = 16  # of a task's classes, the commonest; its table has all of them

PointsOf = Callable[[RunResult], list[Point]]


def validation_points(run: RunResult, x: str, value_of: Callable[[Mapping[str, Any]], float | None]) -> list[Point]:
    """(epochs or images seen, value) of each validation where the value was measured."""
    found = [(line.get("counts", {}).get(x), value_of(line)) for line in run.lines if line.get("kind") == "epoch"]
    return [(float(place), value) for place, value in found if place is not None and value is not None]


def _loss_of(task: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda line: line.get("val_losses", {}).get(task)


def _value_of(metric: Metric) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda line: next((row["value"] for row in line.get("metrics", ())
                              if (row["task"], row["metric"]) == (metric.task, metric.name)), None)  # fmt: skip


def seed_curves(colour: str, runs: Cell, points_of: PointsOf) -> list[Curve]:
    """A thin curve per seed and their mean over them, or one curve where there is one seed.

    A dot marks each run's best epoch. The mean ends where the shortest run ends.
    """
    held = [(run, points) for run in runs if (points := points_of(run))]
    if not held:
        return []
    marked = [_at_best_epoch(run, points) for run, points in held]
    if len(held) == 1:
        return [Curve(held[0][1], colour, marked=marked[0])]
    steps = range(min(len(points) for _, points in held))
    mean = [(fmean(points[i][0] for _, points in held), fmean(points[i][1] for _, points in held)) for i in steps]
    seeds = [Curve(points, colour, thin=True, marked=dots) for (_, points), dots in zip(held, marked, strict=True)]
    return [*seeds, Curve(mean, colour)]


def _at_best_epoch(run: RunResult, points: Sequence[Point]) -> list[Point]:
    """The point of the epoch whose weights are in best.pt, if it was measured."""
    measured = [line["epoch"] for line in run.lines if line.get("kind") == "epoch"]
    best = run.record.get("epoch")
    return [points[measured.index(best)]] if best in measured and len(measured) == len(points) else []


def loss_figure(columns: Sequence[Column]) -> str:
    """Figure 4.1 of the thesis: a row per task, over epochs and over images; empty where nothing was measured."""
    plots = []
    for task in TASKS:
        curves = _task_curves(columns, task, "epochs", _loss_of(task))
        if curves:
            plots.append(Plot(task, "epoch", DEFINITIONS[task].words.loss, curves))
            over_images = _task_curves(columns, task, "images", _loss_of(task))
            plots.append(Plot("", "images seen in training", "", over_images))
    return to_svg(line_figure(plots, 2, share_y="row", size_in=(5.6, 2.5)), "losses") if plots else ""


def _task_curves(
    columns: Sequence[Column], task: str, x: str, value_of: Callable[[Mapping[str, Any]], float | None]
) -> list[Curve]:
    curves = []
    for column in columns:
        runs = column.cells.get(task, [])
        curves += seed_curves(column.colour, runs, lambda run: validation_points(run, x, value_of))
    return curves


def loss_table(columns: Sequence[Column]) -> Table:
    """Validation losses of the first and last epoch, means over seeds."""
    rows = []
    for task in TASKS:
        for column in columns:
            curves = _task_curves([column], task, "epochs", _loss_of(task))
            if curves:
                values = [value for _, value in curves[-1].points]
                told = map(number, (values[0], values[-1], min(values)))
                rows.append([task, column.name, *told, f"{values[0] / values[-1]:.2f}"])
    head = ["loss", "regime", "first epoch", "last epoch", "lowest", "first / last"]
    return Table("Validation losses, means over seeds.", head, rows, words=2)


def metric_figure(columns: Sequence[Column]) -> str:
    """Every metric over the epochs beside the best constant prediction; empty where nothing was measured."""
    plots = []
    for metric in all_metrics():
        curves = _task_curves(columns, metric.task, "epochs", _value_of(metric))
        if curves:
            last = max(x for curve in curves for x, _ in curve.points)
            first = min(x for curve in curves for x, _ in curve.points)
            constant = _best_constant(columns, metric)
            if constant is not None:
                curves.append(Curve([(first, constant), (last, constant)], GREY, dashed=True))
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


def draw_losses(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG with each task's training and validation loss over the epochs; nothing where there is none."""
    train, val = training_losses(lines), _validation_losses(lines)
    plots = []
    for task in TASKS:
        curves = [Curve(train.get(task, []), BLUE, "train"), Curve(val.get(task, []), ORANGE, "validation")]
        if any(curve.points for curve in curves):
            plots.append(Plot(task, "epoch", DEFINITIONS[task].words.loss, [curve for curve in curves if curve.points]))
    if plots:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_png(line_figure(plots, min(2, len(plots)))))


def training_losses(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
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


def _validation_losses(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = {}
    for line in lines:
        if line["kind"] == "epoch":
            for task, loss in (line.get("val_losses") or {}).items():
                points.setdefault(task, []).append((line["epoch"], loss))
    return points
