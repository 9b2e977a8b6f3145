"""The report's tables, as rows of texts that the page template prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shards.schema import TASKS
from train.report.runs import Cell, Column, RunResult, Spread, differing, mean_of, spread
from train.report.text import Row, best_constant, in_unit, number, shares
from train.tasks import DEFINITIONS, all_metrics
from train.tasks.definition import Metric

_DASH = "–"
_NOT_BETTER = " ▽"  # follows a value that a constant prediction reaches too

Network = tuple[str, str, int, int, float]  # name, task, parameters, those with a gradient, GMAC of a forward pass


class Best(str):
    """The text of a cell that is printed bold."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """A table of the page. A row with a single cell is a heading across the table."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1  # leading columns with words; the others hold numbers


def results_table(columns: Sequence[Column]) -> Table:
    """Table 4.1 of the thesis: each metric beside the best constant prediction."""
    rows: list[Sequence[str]] = []
    for metric in all_metrics():
        if any(metric.task in column.cells for column in columns):
            if [metric.task] not in rows:
                rows.append([metric.task])
            found = [_metric_rows(column.cells.get(metric.task, []), metric) for column in columns]
            arrow = "↑" if metric.higher_is_better else "↓"
            rows.append([f"{metric.name}{in_unit(metric.unit, ', ')} {arrow}",
                         *_values(found, metric.higher_is_better, name_constant=True)])  # fmt: skip
    return Table(
        "Metrics of the best checkpoints on the val split, after table 4.1 of the thesis: mean ± standard deviation "
        "over seeds. Bold: the best column. ▽: not better than the best constant prediction (of the train split). "
        "↑: higher is better, ↓: lower is better. Table 2 lists the training that each result took.",
        ["metric", "best constant", *(column.name for column in columns)],
        rows,
    )


def _metric_rows(runs: Cell, metric: Metric) -> list[Row]:
    """The metric's row in eval.json of each run."""
    return [line for run in runs for line in run.record["metrics"]
            if (line["task"], line["metric"]) == (metric.task, metric.name)]  # fmt: skip


def _values(found: Sequence[Sequence[Row]], higher_is_better: bool, *, name_constant: bool) -> list[str]:
    """The best constant, then a mean over seeds for each column. The best column is bold."""
    spreads = [spread([line["value"] for line in lines]) for lines in found]
    constants = dict.fromkeys(best for lines in found for line in lines if (best := best_constant(line)))
    means = [known.mean for known in spreads if known]
    tied = len(set(means)) < 2
    first = None if tied else max(means) if higher_is_better else min(means)
    told = [f"{number(value)} ({what})" if name_constant else number(value) for what, value in constants]
    cells = ["; ".join(told) or _DASH]
    for known, lines in zip(spreads, found, strict=True):
        reached = known and not all(_beats_constants(known.mean, line, higher_is_better) for line in lines)
        text = spread_text(known) + (_NOT_BETTER if reached else "")
        cells.append(Best(text) if known and known.mean == first else text)
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
    rows = []
    for column in columns:
        for cell in {id(cell): cell for cell in column.cells.values()}.values():
            tasks = [task for task in TASKS if column.cells.get(task) is cell]
            rows.append([column.name, "all" if len(tasks) == len(TASKS) else ", ".join(tasks), *_costs(cell)])
    return Table(
        "Training until the best checkpoint, means over seeds. Training time excludes validation. Regimes differ in "
        "updates, labels and images, so no result of table 1 stands without these numbers.",
        ["regime", "task", "best epoch", "optimizer updates", "labels trained on", "images read", "training time",
         "peak memory"],
        rows,
        words=2,
    )  # fmt: skip


def _costs(runs: Cell) -> list[str]:
    counts = [run.record["counts"] for run in runs]
    names = ("items", "images", "seconds")
    items, images, seconds = (mean_of([of_run.get(name) for of_run in counts]) for name in names)
    return [_epochs(runs), _updates(runs), whole(items), whole(images), duration(seconds), _memory(runs)]


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
    """Peak memory of the process, and of the GPU where there is one, in units of 10^9 bytes."""
    peaks = [run.record.get("peak_memory", {}) for run in runs]
    process, gpu = (mean_of([peak.get(name) for peak in peaks]) for name in ("process_bytes", "gpu_bytes"))
    found = [f"{name}{count / 1e9:.2f} GB" for name, count in (("", process), ("GPU ", gpu)) if count is not None]
    return ", ".join(found) or _DASH


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


def breakdown_rows(task: str, columns: Sequence[Column]) -> tuple[dict[str, float], list[list[Row]]]:
    """Each class or bin with its share in percent, and each column's breakdown rows of eval.json, over all its runs."""
    parts: dict[str, float] = {}  # classes that only some networks predict come last
    held: list[list[Row]] = []
    for column in columns:
        of_runs = [run.record.get("parts", {}).get(task, []) for run in column.cells.get(task, [])]
        held.append([row for rows in of_runs for row in rows])
        for of, share, _ in (part for rows in of_runs for part in shares(task, rows)):
            parts.setdefault(of, share)
    return parts, held


def breakdown_table(task: str, columns: Sequence[Column]) -> Table | None:
    """A task's results by class, distance or angle; None where no run has any."""
    parts, held = breakdown_rows(task, columns)
    if not parts:
        return None
    what = DEFINITIONS[task].breakdown
    rows = []
    for of, share in parts.items():
        for metric in what.metrics:
            found = [[row for row in rows_ if (row["of"], row["metric"]) == (of, metric.name)] for rows_ in held]
            first = [of, f"{metric.name}{in_unit(metric.unit, ', ')}", f"{share:.2f} %"]
            rows.append([*first, *_values(found, metric.higher_is_better, name_constant=False)])
    title = f"{task.capitalize()} by {what.by}, with the share of the {what.counted} in the val split."
    return Table(
        title, [what.by, "metric", "share", "best constant", *(column.name for column in columns)], rows, words=2
    )


def network_table(caption: str, single: Sequence[Network], multitask: Network) -> Table:
    """Table 4.2 of the thesis: parameters, and multiply-adds of a forward pass for one image."""
    counted, used, gmac = (sum(column) for column in zip(*(network[2:] for network in single), strict=True))
    total = ("sum of the single-task networks", "all", counted, used, gmac)
    rows = [[name, task, whole(all_), whole(with_gradient), f"{macs:,.2f}"]
            for name, task, all_, with_gradient, macs in (*single, total, multitask)]  # fmt: skip
    ratios = [Best(f"{one / other:.2f}") for one, other in zip((counted, used, gmac), multitask[2:], strict=True)]
    head = ["network", "task", "parameters counted", "of which used", "GMAC"]
    return Table(caption, head, [*rows, ["sum / multi-task", "", *ratios]], words=2)


def runs_table(runs: Sequence[RunResult]) -> Table:
    """Provenance of each run."""
    rows = []
    for run in runs:
        record = run.record
        held = [str(record.get(name, _DASH)) for name in ("epoch", "val_samples", "norm", "torch", "device", "threads")]
        *known, device, threads = held
        where = f"{device}, {threads} thread" + ("" if threads == "1" else "s")
        task, data = record.get("task") or "all", record["manifest_sha256"][:12]
        rows.append([run.folder.name, run.kind, task, str(run.seed), data, *known, where])
    head = ["run", "regime", "task", "seed", "data set", "best epoch", "val samples", "norm", "torch", "device"]
    return Table("", head, rows, words=len(head))


def settings_table(columns: Sequence[Column]) -> Table:
    """The settings in which the columns differ, with every value that a column's runs have."""
    settings = [[run.flat_config | run.settings for run in column.runs] for column in columns]
    known = ("out", "shards", "seed", "mode", "task", "network.name")  # in the column's name, or in the table of runs
    keys = [key for key in differing([one for of_column in settings for one in of_column]) if key not in known]
    rows = [[key, *(", ".join(dict.fromkeys(str(one.get(key, _DASH)) for one in of_column)) for of_column in settings)]
            for key in keys]  # fmt: skip
    head = ["setting", *(column.name for column in columns)]
    return Table("Settings in which the columns differ. The runs of a cell differ in their seed alone.", head, rows,
                 words=len(head))  # fmt: skip


def common_settings(runs: Sequence[RunResult]) -> str:
    """The settings that all runs share, in one line."""
    documents = [run.flat_config for run in runs]
    apart = {*differing(documents), "out", "shards"}
    return "; ".join(f"{key} = {value}" for key, value in documents[0].items() if key not in apart)
