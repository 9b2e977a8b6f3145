"""The report's tables: metrics beside what they cost, parts of them, networks, and the runs themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.footprint import Footprint
from shards.schema import TASKS
from train.report.page import caption, cell, row, table
from train.report.runs import Cell, Column, RunResult, Spread, differing, spread
from train.report.text import Row, best_constant, in_unit, number, shares
from train.tasks import DEFINITIONS, METRICS
from train.tasks.definition import Metric

_DASH = "–"
_WORSE = " ▽"  # behind a value that a constant reaches too


def results_table(columns: Sequence[Column]) -> str:
    """Table 4.1 of the thesis, each value beside the best constant's, and under each task what its results took."""
    rows = []
    for task in TASKS:
        if not any(task in column.cells for column in columns):
            continue
        rows.append(row([cell(task, head=True, span=3 + len(columns))], "group"))
        rows += [_metric_row(metric, columns) for metric in METRICS if metric.task == task]
        rows += [_cost_row(task, name, told, columns) for name, told in _COSTS.items()]
    head = [cell("metric", head=True), cell("", head=True), cell("best constant", "n", head=True)]
    return table([*head, *(cell(column.name, "n", head=True) for column in columns)], rows)


def _metric_row(metric: Metric, columns: Sequence[Column]) -> str:
    found = [_rows_of(column.cells.get(metric.task, []), metric) for column in columns]
    arrow = "↑" if metric.higher_is_better else "↓"
    name = cell(f"{metric.name}{in_unit(metric.unit, ', ')}")
    return row([name, cell(arrow), *_values(found, metric.higher_is_better, named=True)])


def _rows_of(runs: Cell, metric: Metric) -> list[Row]:
    """The metric's row of each run's `metrics`."""
    return [line for run in runs for line in run.record["metrics"]
            if (line["task"], line["metric"]) == (metric.task, metric.name)]  # fmt: skip


def _values(found: Sequence[Sequence[Row]], higher_is_better: bool, *, named: bool) -> list[str]:
    """The best constant, then a mean over seeds per column; the best is bold, what a constant reaches is marked."""
    spreads = [spread([line["value"] for line in lines]) for lines in found]
    constants = dict.fromkeys(best for lines in found for line in lines if (best := best_constant(line)))
    means = [known.mean for known in spreads if known]
    tied = len(set(means)) < 2
    first = None if tied else max(means) if higher_is_better else min(means)
    told = [f"{number(value)} ({what})" if named else number(value) for what, value in constants]
    cells = [cell("; ".join(told) or _DASH, "n")]
    for known, lines in zip(spreads, found, strict=True):
        reached = known and not all(_beats(known.mean, line, higher_is_better) for line in lines)
        text = spread_text(known) + (_WORSE if reached else "")
        cells.append(cell(text, "n best" if known and known.mean == first else "n"))
    return cells


def _beats(mean: float, line: Row, higher_is_better: bool) -> bool:
    """Whether the mean over seeds is better than every constant; true where there is none."""
    best = best_constant(line)
    return best is None or (mean > best[1] if higher_is_better else mean < best[1])


def spread_text(known: Spread | None) -> str:
    """`13.40 ± 0.52`, the deviation with the mean's decimals."""
    if known is None:
        return _DASH
    decimals = 4 if 0 < abs(known.mean) < 1 else 2
    return number(known.mean) + ("" if known.deviation is None else f" ± {known.deviation:.{decimals}f}")


def _mean_of(runs: Cell, value_of: Callable[[RunResult], float | None]) -> float | None:
    known = spread([value_of(run) for run in runs])
    return None if known is None else known.mean


def _count(runs: Cell, name: str) -> str:
    """The mean of a count of the best checkpoint."""
    return whole(_mean_of(runs, lambda run: run.record["counts"].get(name)))


def _updates(task: str, runs: Cell) -> str:
    """Optimizer steps: one number where all parts step together, else those of the head and of the shared part."""
    updates = [run.record["counts"]["updates"] for run in runs]
    parts = {part: sum(of_run[part] for of_run in updates) / len(updates) for part in updates[0]}
    if task in parts and "shared" in parts:
        return f"{whole(parts[task])} head, {whole(parts['shared'])} shared"
    return whole(next(iter(parts.values()), None))


def _epochs(task: str, runs: Cell) -> str:
    """`6, 8 of 8 (seeds 0, 1)`"""
    last = max(run.record["counts_at_end"]["epochs"] for run in runs)
    best, seeds = ([str(value) for value in values] for values in
                   ([run.record["counts"]["epochs"] for run in runs], [run.seed for run in runs]))  # fmt: skip
    return f"{', '.join(best)} of {last} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"


def _memory(task: str, runs: Cell) -> str:
    """Of the process, and of the GPU where there is one."""
    peaks = [run.record.get("peak_memory", {}) for run in runs]
    of_process, of_gpu = (spread([peak.get(name) for peak in peaks]) for name in ("process_bytes", "gpu_bytes"))
    return gigabytes(of_process) + (f", GPU {gigabytes(of_gpu)}" if of_gpu else "")


_COSTS: dict[str, Callable[[str, Cell], str]] = {
    "best epoch": _epochs,
    "optimizer updates until then": _updates,
    "labels trained on / images read": lambda task, runs: f"{_count(runs, 'items')} / {_count(runs, 'images')}",
    "training time": lambda task, runs: duration(_mean_of(runs, lambda run: run.record["counts"]["seconds"])),
    "peak memory": _memory,
}


def _cost_row(task: str, name: str, told: Callable[[str, Cell], str], columns: Sequence[Column]) -> str:
    texts = [told(task, column.cells[task]) if task in column.cells else _DASH for column in columns]
    if set(texts) == {_DASH}:
        return ""
    return row([cell(name), cell(""), cell(""), *(cell(text, "n") for text in texts)], "cost")


def whole(value: float | None) -> str:
    """`12,497`."""
    return _DASH if value is None else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """`41 s`, `12.3 min` or `5.2 h`."""
    if seconds is None:
        return _DASH
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def gigabytes(count: Spread | None) -> str:
    """`1.23 GB`, of 10^9 bytes."""
    return _DASH if count is None else f"{count.mean / 1e9:.2f} GB"


def parts_tables(columns: Sequence[Column], first_number: int) -> list[str]:
    """A table per task by class, distance or angle."""
    tables: list[str] = []
    for task in TASKS:
        cells = [column.cells.get(task, []) for column in columns]
        if any(run.record.get("parts", {}).get(task) for runs in cells for run in runs):
            what = DEFINITIONS[task].breakdown
            title = f"{task.capitalize()} by {what.by}, with the share of the {what.counted} in the val split."
            tables += [caption(f"Table {first_number + len(tables) // 2}", title), _parts_table(task, columns)]
    return tables


def _parts_table(task: str, columns: Sequence[Column]) -> str:
    breakdown = DEFINITIONS[task].breakdown
    held = [[run.record.get("parts", {}).get(task, []) for run in column.cells.get(task, [])] for column in columns]
    shown: dict[str, float] = {}  # part -> share: classes that one network alone predicts come after the others
    for rows in (rows for of_column in held for rows in of_column):
        for of, share, _ in shares(task, rows):
            shown.setdefault(of, share)
    lines = []
    for of, share in shown.items():
        for metric in breakdown.metrics:
            found = [[line for rows in of_column for line in rows if (line["of"], line["metric"]) == (of, metric.name)]
                     for of_column in held]  # fmt: skip
            first = [cell(of), cell(f"{share:.2f} %", "n")] if metric is breakdown.metrics[0] else [cell(""), cell("")]
            measure = cell(f"{metric.name}{in_unit(metric.unit, ', ')}")
            lines.append(row([*first, measure, *_values(found, metric.higher_is_better, named=False)]))
    head = [cell(breakdown.by, head=True), cell("share", "n", head=True), cell("metric", head=True),
            cell("best constant", "n", head=True)]  # fmt: skip
    return table([*head, *(cell(column.name, "n", head=True) for column in columns)], lines)


def network_table(found: Footprint) -> str:
    """Table 4.2 of the thesis: parameters counted and used, and multiply-adds of a forward of one image."""
    head = [cell("network", head=True), cell("task", head=True)]
    head += [cell(name, "n", head=True) for name in ("parameters counted", "of which used", "GMAC")]
    rows = [_network_row(name, task, cost) for name, task, cost in found.networks]
    rows.append(_network_row("sum of the single-task networks", "all", found.total, "total"))
    rows.append(_network_row("multi-task network", "all", found.multitask))
    ratios = [
        f"{of_sum / of_one:.2f}"
        for of_sum, of_one in (
            (found.total.counted, found.multitask.counted),
            (found.total.used, found.multitask.used),
            (found.total.gmac, found.multitask.gmac),
        )
    ]
    rows.append(row([cell("sum / multi-task"), cell(""), *(cell(ratio, "n best") for ratio in ratios)], "total"))
    return table(head, rows)


def _network_row(name: str, task: str, cost: Any, kind: str = "") -> str:
    numbers = (whole(cost.counted), whole(cost.used), f"{cost.gmac:,.2f}")
    return row([cell(name), cell(task), *(cell(text, "n") for text in numbers)], kind)


def runs_table(runs: Sequence[RunResult]) -> str:
    """Where each result comes from."""
    names = ("run", "regime", "task", "seed", "best epoch", "data set", "val samples", "norm", "torch", "device")
    rows = []
    for run in runs:
        record = run.record
        where = f"{record.get('device', _DASH)}, {record.get('threads', _DASH)} threads"
        texts = (run.folder.name, run.kind, record.get("task") or "all", str(run.seed), str(record.get("epoch", _DASH)),
                 record["manifest_sha256"][:12], str(record.get("val_samples", _DASH)), str(record.get("norm", _DASH)),
                 str(record.get("torch", _DASH)), where)  # fmt: skip
        rows.append(row([cell(text) for text in texts]))
    return table([cell(name, head=True) for name in names], rows)


def settings_table(columns: Sequence[Column]) -> str:
    """The settings in which the columns differ: each in every configuration that its runs have."""
    settings = [[run.flat_config | run.settings for run in column.runs] for column in columns]
    apart = ("out", "shards", "seed", "mode", "task", "network.name")  # told by the column, or by the table of runs
    keys = [key for key in differing([one for of_column in settings for one in of_column]) if key not in apart]
    rows = []
    for key in keys:
        texts = [", ".join(dict.fromkeys(_setting(one, key) for one in of_column)) for of_column in settings]
        rows.append(row([cell(key), *(cell(text) for text in texts)]))
    head = [cell("setting", head=True), *(cell(column.name, head=True) for column in columns)]
    return table(head, rows) if rows else ""


def _setting(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else _DASH


def common_settings(runs: Sequence[RunResult]) -> str:
    """Those that all runs share, in one line."""
    documents = [run.flat_config for run in runs]
    different = set(differing(documents))
    shared = {
        key: value for key, value in documents[0].items() if key not in different and key not in ("out", "shards")
    }
    return "; ".join(f"{key} = {value}" for key, value in shared.items())
