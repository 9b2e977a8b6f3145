"""The report's tables, as rows of cells that the page template prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shards.schema import TASKS
from train.report.runs import Cell, Column, RunResult, Spread, differing, mean_of, spread
from train.report.text import Row, best_constant, in_unit, number, shares
from train.tasks import DEFINITIONS, all_metrics
from train.tasks.definition import Metric

_DASH = "–"
_NOT_BETTER = " ▽"  # follows a value that a constant prediction reaches too


@dataclass(frozen=True)
class TableCell:
    """A text; `kind` is its class in the style sheet, such as `n` for a number."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class TableRow:
    """A row of cells; a row of kind `group` is a heading across the whole table."""

    cells: Sequence[TableCell]
    kind: str = ""


@dataclass
class Table:
    """A table of the page."""

    caption: str
    head: list[TableCell]
    rows: list[TableRow] = field(default_factory=list)

    def add(self, *cells: TableCell, kind: str = "") -> None:
        """Append a row."""
        self.rows.append(TableRow(cells, kind))


@dataclass(frozen=True)
class NetworkCost:
    """Parameters and arithmetic of one network."""

    name: str
    task: str
    counted: int  # parameters
    used: int  # parameters that receive a gradient
    gmac: float  # giga multiply-adds of a forward pass for one image


@dataclass(frozen=True)
class NetworkComparison:
    """The single-task networks beside the multi-task network, at one image size and width."""

    caption: str
    single: list[NetworkCost]
    multitask: NetworkCost


def texts(*values: str, kind: str = "") -> list[TableCell]:
    """A cell for each text."""
    return [TableCell(value, kind) for value in values]


def results_table(columns: Sequence[Column]) -> Table:
    """Table 4.1 of the thesis: each metric beside the best constant prediction."""
    head = [*texts("metric", ""), *texts("best constant", *(column.name for column in columns), kind="n")]
    table = Table(
        "Metrics of the best checkpoints on the val split, after table 4.1 of the thesis: mean ± standard deviation "
        "over seeds. Bold: the best column. ▽: not better than the best constant prediction (of the train split). "
        "↑: higher is better, ↓: lower is better. Table 2 lists the training that each result took.", head)  # fmt: skip
    for task in TASKS:
        metrics = [metric for metric in all_metrics() if metric.task == task]
        if any(task in column.cells for column in columns):
            table.add(TableCell(task), kind="group")
            for metric in metrics:
                found = [_metric_rows(column.cells.get(task, []), metric) for column in columns]
                name = f"{metric.name}{in_unit(metric.unit, ', ')}"
                arrow = "↑" if metric.higher_is_better else "↓"
                table.add(*texts(name, arrow), *_value_cells(found, metric.higher_is_better, name_constant=True))
    return table


def _metric_rows(runs: Cell, metric: Metric) -> list[Row]:
    """The metric's row in eval.json of each run."""
    return [line for run in runs for line in run.record["metrics"]
            if (line["task"], line["metric"]) == (metric.task, metric.name)]  # fmt: skip


def _value_cells(found: Sequence[Sequence[Row]], higher_is_better: bool, *, name_constant: bool) -> list[TableCell]:
    """The best constant, then a mean over seeds for each column. The best column is bold."""
    spreads = [spread([line["value"] for line in lines]) for lines in found]
    constants = dict.fromkeys(best for lines in found for line in lines if (best := best_constant(line)))
    means = [known.mean for known in spreads if known]
    tied = len(set(means)) < 2
    first = None if tied else max(means) if higher_is_better else min(means)
    told = [f"{number(value)} ({what})" if name_constant else number(value) for what, value in constants]
    cells = [TableCell("; ".join(told) or _DASH, "n")]
    for known, lines in zip(spreads, found, strict=True):
        reached = known and not all(_beats_constants(known.mean, line, higher_is_better) for line in lines)
        text = spread_text(known) + (_NOT_BETTER if reached else "")
        cells.append(TableCell(text, "n best" if known and known.mean == first else "n"))
    return cells


def _beats_constants(mean: float, line: Row, higher_is_better: bool) -> bool:
    best = best_constant(line)
    return best is None or (mean > best[1] if higher_is_better else mean < best[1])


def spread_text(known: Spread | None) -> str:
    """`13.40 ± 0.52`, the deviation with as many decimals as the mean."""
    if known is None:
        return _DASH
    decimals = 4 if 0 < abs(known.mean) < 1 else 2
    return number(known.mean) + ("" if known.deviation is None else f" ± {known.deviation:.{decimals}f}")


def cost_table(columns: Sequence[Column]) -> Table:
    """The training that each column's results took: a row per column, or per task where each has runs of its own."""
    heads = ("best epoch", "optimizer updates", "labels trained on", "images read", "training time", "peak memory")
    table = Table(
        "Training until the best checkpoint, means over seeds. Training time excludes validation. Regimes differ in "
        "updates, labels and images, so no result of table 1 stands without these numbers.",
        [*texts("regime", "task"), *texts(*heads, kind="n")])  # fmt: skip
    for column in columns:
        for cell in {id(cell): cell for cell in column.cells.values()}.values():
            tasks = [task for task in TASKS if column.cells.get(task) is cell]
            name = "all" if len(tasks) == len(TASKS) else ", ".join(tasks)
            table.add(*texts(column.name, name), *texts(*_costs(cell), kind="n"))
    return table


def _costs(runs: Cell) -> tuple[str, ...]:
    counts = [run.record["counts"] for run in runs]
    names = ("items", "images", "seconds")
    items, images, seconds = (mean_of([of_run.get(name) for of_run in counts]) for name in names)
    return _epochs(runs), _updates(runs), whole(items), whole(images), duration(seconds), _memory(runs)


def _updates(runs: Cell) -> str:
    """`9 shared, 4 steering, ...`, or one number where all parts step together."""
    updates = [run.record["counts"]["updates"] for run in runs]
    parts = {part: whole(sum(of_run[part] for of_run in updates) / len(updates)) for part in updates[0]}
    if len(parts) == 1:
        return next(iter(parts.values()))
    return ", ".join(f"{count} {part}" for part, count in parts.items())


def _epochs(runs: Cell) -> str:
    """`6, 8 of 8 (seeds 0, 1)`"""
    last = max(run.record["counts_at_end"]["epochs"] for run in runs)
    best = ", ".join(str(run.record["counts"]["epochs"]) for run in runs)
    return f"{best} of {last} (seed{'s' if len(runs) > 1 else ''} {', '.join(str(run.seed) for run in runs)})"


def _memory(runs: Cell) -> str:
    """Peak memory of the process, and of the GPU where there is one."""
    peaks = [run.record.get("peak_memory", {}) for run in runs]
    process, gpu = (spread([peak.get(name) for peak in peaks]) for name in ("process_bytes", "gpu_bytes"))
    return gigabytes(process) + (f", GPU {gigabytes(gpu)}" if gpu else "")


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


def breakdown_rows(task: str, columns: Sequence[Column]) -> tuple[dict[str, float], list[list[list[Row]]]]:
    """Each class or bin with its share in percent, and the breakdown rows of eval.json by column and run."""
    held = [[run.record.get("parts", {}).get(task, []) for run in column.cells.get(task, [])] for column in columns]
    parts: dict[str, float] = {}  # classes that only some networks predict come last
    for rows in (rows for of_column in held for rows in of_column):
        for of, share, _ in shares(task, rows):
            parts.setdefault(of, share)
    return parts, held


def breakdown_table(task: str, columns: Sequence[Column]) -> Table | None:
    """A task's results by class, distance or angle; None where no run has any."""
    parts, held = breakdown_rows(task, columns)
    if not parts:
        return None
    what = DEFINITIONS[task].breakdown
    head = [TableCell(what.by), TableCell("share", "n"), TableCell("metric"), TableCell("best constant", "n"),
            *texts(*(column.name for column in columns), kind="n")]  # fmt: skip
    title = f"{task.capitalize()} by {what.by}, with the share of the {what.counted} in the val split."
    table = Table(title, head)
    for of, share in parts.items():
        for metric in what.metrics:
            found = [[line for rows in of_column for line in rows if (line["of"], line["metric"]) == (of, metric.name)]
                     for of_column in held]  # fmt: skip
            first = metric is what.metrics[0]
            name = TableCell(f"{metric.name}{in_unit(metric.unit, ', ')}")
            table.add(TableCell(of if first else ""), TableCell(f"{share:.2f} %" if first else "", "n"), name,
                      *_value_cells(found, metric.higher_is_better, name_constant=False))  # fmt: skip
    return table


def network_table(compared: NetworkComparison) -> Table:
    """Table 4.2 of the thesis: parameters, and multiply-adds of a forward pass for one image."""
    head = [*texts("network", "task"), *texts("parameters counted", "of which used", "GMAC", kind="n")]
    table = Table(compared.caption, head)
    single, multitask = compared.single, compared.multitask
    total = NetworkCost("sum of the single-task networks", "all", sum(cost.counted for cost in single),
                        sum(cost.used for cost in single), sum(cost.gmac for cost in single))  # fmt: skip
    for cost, kind in (*((cost, "") for cost in single), (total, "total"), (multitask, "")):
        numbers = texts(whole(cost.counted), whole(cost.used), f"{cost.gmac:,.2f}", kind="n")
        table.add(*texts(cost.name, cost.task), *numbers, kind=kind)
    ratios = (total.counted / multitask.counted, total.used / multitask.used, total.gmac / multitask.gmac)
    table.add(
        *texts("sum / multi-task", ""), *texts(*(f"{ratio:.2f}" for ratio in ratios), kind="n best"), kind="total"
    )
    return table


def runs_table(runs: Sequence[RunResult]) -> Table:
    """Provenance of each run."""
    names = ("run", "regime", "task", "seed", "best epoch", "data set", "val samples", "norm", "torch", "device")
    table = Table("", texts(*names))
    for run in runs:
        record = run.record
        held = [str(record.get(name, _DASH)) for name in ("epoch", "val_samples", "norm", "torch", "device", "threads")]
        epoch, samples, norm, torch, device, threads = held
        where = f"{device}, {threads} threads"
        task, data = record.get("task") or "all", record["manifest_sha256"][:12]
        table.add(*texts(run.folder.name, run.kind, task, str(run.seed), epoch, data, samples, norm, torch, where))
    return table


def settings_table(columns: Sequence[Column]) -> Table:
    """The settings in which the columns differ, with every value that a column's runs have."""
    settings = [[run.flat_config | run.settings for run in column.runs] for column in columns]
    known = ("out", "shards", "seed", "mode", "task", "network.name")  # in the column's name, or in the table of runs
    keys = [key for key in differing([one for of_column in settings for one in of_column]) if key not in known]
    caption = "Settings in which the columns differ. The runs of a cell differ in their seed alone."
    table = Table(caption, texts("setting", *(column.name for column in columns)))
    for key in keys:
        table.add(*texts(key, *(", ".join(dict.fromkeys(_setting(one, key) for one in of_column))
                                for of_column in settings)))  # fmt: skip
    return table


def _setting(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key]) if key in settings else _DASH


def common_settings(runs: Sequence[RunResult]) -> str:
    """The settings that all runs share, in one line."""
    documents = [run.flat_config for run in runs]
    apart = {*differing(documents), "out", "shards"}
    return "; ".join(f"{key} = {value}" for key, value in documents[0].items() if key not in apart)
