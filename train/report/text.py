"""Results as text, for people: tables of metrics beside their baselines, and an epoch in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from train.tasks import DEFINITIONS

Row = Mapping[str, Any]  # of `metrics` or `parts`, see train.evaluate


def metrics_table(rows: Sequence[Row]) -> str:
    """One line per metric; `better` is yes where the value beats every constant prediction."""
    headings = ("task", "metric", "unit", "value", "constant baseline", "better")
    return text_table(headings, [_cells(row) for row in rows], right=(3,))


def _cells(row: Row) -> tuple[str, ...]:
    constants = ", ".join(f"{number(value)} ({what})" for what, value in row["baselines"].items())
    better = {True: "yes", False: "no", None: "-"}[row["better"]]
    return row["task"], row["metric"], row["unit"], number(row["value"]), constants or "-", better


def parts_table(task: str, rows: Sequence[Row]) -> str:
    """A task's results taken apart: how much of each class or bin there is, and each metric beside its best constant.

    Classes come with the commonest first, bins of angle and distance in their order.
    """
    breakdown = DEFINITIONS[task].breakdown
    headings = [breakdown.by, f"% of {breakdown.counted}"]
    for metric in breakdown.metrics:
        headings += [f"{metric.name}{in_unit(metric.unit, ' ')}", "best constant"]
    lines = []
    for of, share, of_part in shares(task, rows):
        cells = [of, f"{share:.2f}"]
        for row in of_part:
            best = best_constant(row)
            cells += [number(row["value"]), number(best[1]) if best else "-"]
        lines.append(cells)
    return text_table(headings, lines, right=range(1, len(headings)))


def shares(task: str, rows: Sequence[Row]) -> list[tuple[str, float, list[Row]]]:
    """Per part: what it is, its share of all that was counted in percent, and its rows, one a metric."""
    parts = [list(group) for _, group in groupby(rows, key=lambda row: row["of"])]
    total = sum(part[0]["count"] for part in parts)
    if DEFINITIONS[task].breakdown.by == "class":
        parts.sort(key=lambda part: -part[0]["count"])
    return [(part[0]["of"], 100 * part[0]["count"] / max(1, total), part) for part in parts]


def best_constant(row: Row) -> tuple[str, float] | None:
    """The constant that scores best, in words, and its score."""
    known = [(what, value) for what, value in row["baselines"].items() if value is not None]
    if not known:
        return None
    return (max if row["higher_is_better"] else min)(known, key=lambda constant: constant[1])


def result_text(record: Mapping[str, Any], *, apart: bool) -> str:
    """The table and its notes; `apart`, also by class, angle and distance, and the table of each group."""
    blocks = [metrics_table(record["metrics"])]
    if record.get("notes"):
        blocks.append("\n".join(f"note: {note}" for note in record["notes"]))
    if apart:
        for task, rows in record["parts"].items():
            blocks.append(f"{task} by {DEFINITIONS[task].breakdown.by}\n{parts_table(task, rows)}")
    for name, group in record.get("groups", {}).items():
        labels = ", ".join(f"{task} {count}" for task, count in group["val_labels"].items())
        title = f"{record['by']} {name}: {group['val_samples']} samples ({labels})"
        blocks.append(f"{title}\n{metrics_table(group['metrics'])}")
    return "\n\n".join(blocks)


def result_lines(record: Mapping[str, Any], what: str, *, apart: bool) -> list[str]:
    """The evaluation of `what` for the terminal: its training, and the table as in `result_text`."""
    if not record["metrics"]:
        return ["", f"{what}: split {record['split']} has no sample to be measured on"]
    return [
        "",
        f"{what}, on {record['val_samples']} samples of split {record['split']}",
        f"trained for {counts_line(record['counts'])}",
        f"backbone weights: {record['weights']}",
        "",
        result_text(record, apart=apart),
        "",
    ]


def text_table(headings: Sequence[str], lines: Sequence[Sequence[str]], *, right: Sequence[int]) -> str:
    """Columns two spaces apart; those of the numbers `right` are flush right."""
    cells = [headings, *lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(headings))]
    rows = []
    for line in cells:
        padded = [
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        rows.append("  ".join(padded).rstrip())
    return "\n".join([rows[0], "  ".join("-" * width for width in widths), *rows[1:]])


def number(value: float | None) -> str:
    """Two decimals, four below 1; `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if 0 < abs(value) < 1 else f"{value:.2f}"


def in_unit(unit: str, space: str = "") -> str:
    """What follows a number, or with a space a name: nothing for a ratio."""
    return "" if unit == "ratio" else f"{space}{unit}"


def epoch_lines(record: Mapping[str, Any], epochs: int, best: bool) -> list[str]:
    """An epoch's validation: the losses, then a line per task with each metric beside its best constant."""
    if not record["val_samples"]:
        return [f"epoch {record['epoch']}/{epochs} done"]
    losses = ", ".join(f"{task} {loss:.4g}" for task, loss in record["val_losses"].items())
    total = record["val_loss"]
    summed = "not finite" if total is None else f"{total:.5g}"
    lines = [f"epoch {record['epoch']}/{epochs}: val loss {losses}; sum of loss / coefficient {summed}"
             + (" (best so far)" if best else "")]  # fmt: skip
    for task, rows in groupby(record["metrics"], key=lambda row: row["task"]):
        lines.append(f"  {task:12s} {_task_line(list(rows))}")
    return lines


def _task_line(rows: Sequence[Row]) -> str:
    """`MAE 5.01 m (12.90), RMSE 8.20 m (17.33); in brackets the best constant, median 21.50 m`"""
    found = [best_constant(row) for row in rows]
    names = {best[0] for best in found if best}
    parts = []
    for row, best in zip(rows, found, strict=True):
        name = "" if len(names) == 1 or not best else f"{best[0]}: "
        constant = f" ({name}{number(best[1])})" if best else ""
        parts.append(f"{row['metric']} {number(row['value'])}{in_unit(row['unit'], ' ')}{constant}")
    told = {0: "", 1: "; in brackets the best constant, " + "".join(names)}.get(
        len(names), "; best constants in brackets"
    )
    return ", ".join(parts) + told


def counts_line(counts: Mapping[str, Any]) -> str:
    """`updates shared 12, steering 20; 480 labels on 480 images; 31.2 s of training`"""
    updates = ", ".join(f"{part} {count}" for part, count in counts["updates"].items())
    return (
        f"{counts['epochs']} epochs; updates {updates}; {counts['items']} labels on {counts['images']} images read; "
        f"{counts['seconds']:.1f} s of training"
    )
