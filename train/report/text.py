"""Results as text, for people: tables of metrics beside their baselines, and an epoch in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any

from train.tasks import DEFINITIONS

Row = Mapping[str, Any]  # of `metrics` or `parts`, see train.evaluate


def metrics_table(rows: Sequence[Row]) -> str:
    """One line per metric; `better` is yes where the value beats every constant prediction. At most 80 columns."""
    headings = ("task", "metric", "value", "best constant", "better")
    return text_table(headings, [_cells(row) for row in rows], right=(2,))


def _cells(row: Row) -> tuple[str, ...]:
    best = best_constant(row)
    constant = f"{number(best[1])} ({best[0]})" if best else "-"
    better = {True: "yes", False: "no", None: "-"}[row["better"]]
    return row["task"], row["metric"] + in_unit(row["unit"], " "), number(row["value"]), constant, better


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
        title = f"{record['by']} {name}: {counted(group['val_samples'], 'sample')} ({labels})"
        blocks.append(f"{title}\n{metrics_table(group['metrics'])}")
    return "\n\n".join(blocks)


def result_lines(record: Mapping[str, Any], what: str, *, apart: bool) -> list[str]:
    """The evaluation of `what` for the terminal: its training, and the table as in `result_text`."""
    if not record["metrics"]:
        return ["", f"{what}: split {record['split']} has no sample to be measured on"]
    return [
        "",
        f"{what}, on {counted(record['val_samples'], 'sample')} of split {record['split']}",
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
    """The unit to write after a number or, with a space, after a name; empty for a ratio."""
    return "" if unit == "ratio" else f"{space}{unit}"


class EpochTable:
    """The validations of a run, one row each under a fixed header: the first metric of each task, and the loss."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._widths: list[int] = []

    def lines(self, record: Mapping[str, Any], best: bool) -> list[str]:
        """Return the row of a validation, `*` at the best so far; before the first row, header and best constants."""
        place = f"{record['epoch']}/{self.epochs}"
        if not record["val_samples"]:
            return [f"epoch {place} done"]
        rows = [next(of_task) for _, of_task in groupby(record["metrics"], key=lambda row: row["task"])]
        loss, time = record["val_loss"], clock(record["counts"]["seconds"])
        row = [place, time, *(number(row["value"]) for row in rows), "not finite" if loss is None else f"{loss:.4g}"]
        head = []
        if not self._widths:
            above = ["", "training", *(row["task"] for row in rows), "val"]
            below = ["epoch", "time", *(f"{row['metric']}{in_unit(row['unit'], ' ')}" for row in rows), "loss"]
            constants = [number(found[1]) if (found := best_constant(row)) else "-" for row in rows]
            head = [above, below, ["const.", "", *constants, ""]]
            self._widths = [max(7, *(len(cells[column]) for cells in (*head, row))) for column in range(len(row))]
        return [*map(self._line, head), self._line(row) + (" *" if best else "")]

    def _line(self, cells: Sequence[str]) -> str:
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True)).rstrip()


def clock(seconds: float) -> str:
    """Return `1:02:03`."""
    return str(timedelta(seconds=round(seconds)))


def counts_line(counts: Mapping[str, Any]) -> str:
    """`updates shared 12, steering 20; 480 labels on 480 images; 31.2 s of training`"""
    updates = ", ".join(f"{part} {count}" for part, count in counts["updates"].items())
    epochs, labels, images = (counted(counts[key], name) for key, name in
                              (("epochs", "epoch"), ("items", "label"), ("images", "image")))  # fmt: skip
    return f"{epochs}; updates {updates}; {labels} on {images} read; {counts['seconds']:.1f} s of training"


def counted(count: int, name: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
