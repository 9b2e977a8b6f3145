"""Finished runs, read from their folders, grouped into the columns of a comparison, averaged over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import orjson

from shards.schema import TASKS
from train.report.plots import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from train.run_folder import CONFIG_FILE, EVALUATION_FILE, FREE_KEYS, METRICS_FILE, metrics_lines, read_config

ASYMMETRIC, SYMMETRIC = "asymmetric", "symmetric"
OWN_NETWORKS, ONE_TASK = "single-task networks", "multi-task network on one task"
KINDS = {ASYMMETRIC: VERMILLION, SYMMETRIC: GREEN, OWN_NETWORKS: PURPLE, ONE_TASK: BLUE}  # columns of table 4.1
_FURTHER_COLOURS = (ORANGE, SKY, BLACK, "#999999")  # of a regime's second column and so on
_SEED_KEYS = {*FREE_KEYS, "seed"} - {"epochs"}  # config keys in which the runs of one cell may differ
_NEEDED = ("metrics", "counts", "manifest_sha256", "seed")
_NAMED_SETTINGS = 3  # settings that a column's name spells out, at most


@dataclass(frozen=True)
class RunResult:
    """A finished run, as its folder describes it."""

    folder: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]  # eval.json
    lines: list[dict[str, Any]]  # metrics.jsonl

    @property
    def kind(self) -> str:
        """One of KINDS, the columns of table 4.1."""
        if self.config["mode"] != "single":
            return str(self.config["mode"])
        return OWN_NETWORKS if self.config["network"]["name"] == "stl" else ONE_TASK

    @property
    def tasks(self) -> list[str]:
        """The tasks with a metric in eval.json."""
        return [task for task in TASKS if any(row["task"] == task for row in self.record["metrics"])]

    @property
    def seed(self) -> int:
        """The seed of the first weights and of the order of the data."""
        return int(self.record["seed"])

    @property
    def flat_config(self) -> dict[str, Any]:
        """The config as `network.norm` -> `group`, without keys that a single-task network does not use."""
        unused = ("network.backbone", "network.norm") if self.kind == OWN_NETWORKS else ()
        return {key: value for key, value in flat(self.config).items() if key not in unused}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything beside the seed that decides the result."""
        settings = {key: value for key, value in self.flat_config.items() if key not in _SEED_KEYS}
        return {**settings, "data set": self.record["manifest_sha256"][:12], "first weights": self.record["weights"]}


Cell = list[RunResult]  # runs that differ in their seed alone


@dataclass
class Column:
    """A column of the comparison: a regime in one configuration, with a cell for each task."""

    kind: str
    name: str
    colour: str
    cells: dict[str, Cell] = field(default_factory=dict)  # in a multi-task regime the same cell for every task

    @property
    def runs(self) -> list[RunResult]:
        """Each run once."""
        return list({id(run): run for cell in self.cells.values() for run in cell}.values())


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, and the standard deviation of the sample (n - 1) where there are several seeds."""

    mean: float
    deviation: float | None
    count: int


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are known; None where there is none."""
    known = spread(values)
    return None if known is None else known.mean


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean and standard deviation of the values that are known; None where there is none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def load_runs(folders: Sequence[Path]) -> tuple[list[RunResult], list[str]]:
    """The finished runs, each folder once, and a line for each path that holds none.

    Raises ValueError where there is no finished run at all.
    """
    runs, left_out = [], []
    for folder in {folder.resolve(): folder for folder in folders}.values():
        try:
            runs.append(load_run(folder))
        except ValueError as error:
            left_out.append(str(error))
    if not runs:
        raise ValueError("; ".join(left_out))
    return runs, left_out


def load_run(folder: Path) -> RunResult:
    """A run from its folder. Raises ValueError in one line where there is no run, or it is unfinished or damaged."""
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(f"{folder} holds no run: it has no {CONFIG_FILE}, which amtl-train writes into its run folder")
    path = folder / EVALUATION_FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds a run that is not finished: it has no {EVALUATION_FILE}; go on with --resume")
    try:
        record = orjson.loads(path.read_bytes())
        missing = [name for name in _NEEDED if name not in record]
    except (orjson.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): it is damaged") from error
    if missing:
        raise ValueError(f"{path} has no {missing[0]}: it was not written by amtl-train, or by another version")
    return RunResult(folder, read_config(folder), record, metrics_lines(folder / METRICS_FILE))


def build_columns(runs: Sequence[RunResult]) -> list[Column]:
    """Columns in the order of table 4.1. A regime that was run in several configurations has several columns.

    Single-task runs share a column as long as each task has only one configuration.
    """
    columns: list[Column] = []
    for kind in KINDS:
        of_kind: list[Column] = []
        for cell in _cells([run for run in runs if run.kind == kind]):
            tasks = cell[0].tasks
            column = next((column for column in of_kind if _belongs(cell, column)), None)
            if column is None:
                colour = (KINDS[kind], *_FURTHER_COLOURS)[min(len(of_kind), len(_FURTHER_COLOURS))]
                of_kind.append(column := Column(kind, kind, colour))
            column.cells |= dict.fromkeys(tasks, cell)
        _tell_apart(of_kind)
        columns += of_kind
    return columns


def _cells(runs: Sequence[RunResult]) -> list[Cell]:
    """Groups of runs with equal settings, each sorted by seed."""
    cells: list[Cell] = []
    for run in runs:
        cell = next((cell for cell in cells if cell[0].settings == run.settings), None)
        if cell is None:
            cells.append(cell := [])
        cell.append(run)
    return [sorted(cell, key=lambda run: run.seed) for cell in cells]


def _belongs(cell: Cell, column: Column) -> bool:
    """Whether the column has no cell yet for the single task of `cell`. Multi-task runs have a column of their own."""
    return cell[0].config["mode"] == "single" and not set(cell[0].tasks) & set(column.cells)


def _tell_apart(columns: Sequence[Column]) -> None:
    """Add to the names of a regime's columns the settings in which they differ."""
    if len(columns) < 2:
        return
    of_column = [next(iter(column.cells.values()))[0].settings for column in columns]
    different = [key for key in differing(of_column) if key != "task"]
    for column, settings in zip(columns, of_column, strict=True):
        named = [f"{key} = {settings.get(key, 'none')}" for key in different[:_NAMED_SETTINGS]]
        column.name = f"{column.kind} ({', '.join(named)}{', ...' if len(different) > _NAMED_SETTINGS else ''})"


def differing(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose value is not the same in all documents."""
    keys = dict.fromkeys(key for document in documents for key in document)
    return [key for key in keys if len({str(document.get(key)) for document in documents}) > 1]


def flat(document: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested tables -> `table.key`."""
    plain: dict[str, Any] = {}
    for key, value in document.items():
        plain |= flat(value, f"{where}{key}.") if isinstance(value, Mapping) else {where + key: value}
    return plain


_COMPARED: tuple[tuple[str, str, Callable[[RunResult], Any]], ...] = (
    ("data sets", "no two of these results can be compared", lambda run: run.record["manifest_sha256"][:12]),
    ("sample sizes", "results and costs are those of other images", lambda run: run.record.get("size_px")),
    ("norms of the multi-task network", "columns differ by more than their regime", lambda run: _of_mtl(run, "norm")),
    ("backbones of the multi-task network", "columns differ by more than their regime",
     lambda run: _of_mtl(run, "backbone")),
    ("widths", "networks are of other sizes", lambda run: run.config["network"].get("width")),
    ("first weights of the multi-task network", "columns differ by more than their regime",
     lambda run: None if run.kind == OWN_NETWORKS else run.record["weights"]),
    ("depth losses (variance_focus)", "depth errors are those of other losses",
     lambda run: run.config["loss"]["variance_focus"] if "depth" in run.tasks else None),
    ("devices", "times and memory cannot be compared", lambda run: run.record.get("device")),
    ("thread counts", "times cannot be compared", lambda run: run.record.get("threads")),
    ("versions of torch", "times, and last digits, may differ", lambda run: run.record.get("torch")),
)  # fmt: skip


def _of_mtl(run: RunResult, key: str) -> Any:
    return None if run.kind == OWN_NETWORKS else run.config["network"].get(key)


def warnings(runs: Sequence[RunResult], columns: Sequence[Column]) -> list[str]:
    """Reasons why these runs cannot be compared as they are, a line each."""
    lines = []
    for what, why, value_of in _COMPARED:
        holders: dict[str, list[str]] = {}
        for run in runs:
            if (value := value_of(run)) is not None:
                holders.setdefault(str(value), []).append(run.folder.name)
        if len(holders) > 1:
            told = "; ".join(f"{value} in {', '.join(names)}" for value, names in holders.items())
            lines.append(f"The {what} differ, so {why}: {told}.")
    lines += dict.fromkeys(f"{note[0].upper()}{note[1:]}." for run in runs for note in run.record.get("notes", ()))
    for column in columns:
        for cell in {id(cell): cell for cell in column.cells.values()}.values():
            seeds = [run.seed for run in cell]
            if len(set(seeds)) < len(seeds):
                names = ", ".join(run.folder.name for run in cell)
                lines.append(f"A seed counts twice, so the deviation of {column.name} is too small: {names}.")
    if any(len(cell) < 2 for column in columns for cell in column.cells.values()):
        lines.append(
            "Where there is one seed there is no deviation: a difference between two such results may be chance."
        )
    return lines
