"""Results as text, for people: the table of metrics beside their baselines, and an epoch in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

_HEADINGS = ("task", "metric", "unit", "value", "constant baseline", "better")
_LEFT = (True, True, True, False, True, True)  # which columns start at the left


def metrics_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per metric; `better` is yes where the value beats every constant prediction."""
    cells = [_HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    lines = ["  ".join(_pad(text, width, left) for text, width, left in zip(line, widths, _LEFT, strict=True)).rstrip()
             for line in cells]  # fmt: skip
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    constants = ", ".join(f"{_number(value)} ({what})" for what, value in row["baselines"].items())
    better = {True: "yes", False: "no", None: "-"}[row["better"]]
    return row["task"], row["metric"], row["unit"], _number(row["value"]), constants or "-", better


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if 0 < abs(value) < 1 else f"{value:.2f}"


def _pad(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


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
        lines.append(f"  {task:12s} " + ", ".join(_beside(row) for row in rows))
    return lines


def _beside(row: Mapping[str, Any]) -> str:
    unit = {"ratio": "", "%": " %"}.get(row["unit"], f" {row['unit']}")
    constants = "/".join(_number(value) for value in row["baselines"].values())
    return f"{row['metric']} {_number(row['value'])}{unit}" + (f" (constant {constants})" if constants else "")


def counts_line(counts: Mapping[str, Any]) -> str:
    """`updates shared 12, steering 20; 480 labels on 480 images; 31.2 s of training`"""
    updates = ", ".join(f"{part} {count}" for part, count in counts["updates"].items())
    return (
        f"{counts['epochs']} epochs; updates {updates}; {counts['items']} labels on {counts['images']} images read; "
        f"{counts['seconds']:.1f} s of training"
    )
