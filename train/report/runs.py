"""Runs set beside each other: read from their folders, put into columns by regime, averaged over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import orjson

from shards.schema import TASKS
from train.report.curves import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION
from train.run_folder import CONFIG_FILE, EVALUATION_FILE, FREE_KEYS, METRICS_FILE, metrics_lines, read_config

ASYMMETRIC, SYMMETRIC = "asymmetric", "symmetric"
OWN_NETWORKS, ONE_TASK = "single-task networks", "multi-task network on one task"
KINDS = {ASYMMETRIC: VERMILLION, SYMMETRIC: GREEN, OWN_NETWORKS: PURPLE, ONE_TASK: BLUE}  # table 4.1's columns
_FURTHER = (ORANGE, SKY, BLACK, "#999999")  # colours of a regime's second column and so on
_OF_A_SEED = {*FREE_KEYS, "seed"} - {"epochs"}  # keys of a config that runs of one cell may differ in
_NEEDED = ("metrics", "counts", "manifest_sha256", "seed")
_NAMED = 3  # differences that a column's name spells out


@dataclass(frozen=True)
class RunResult:
    """What a finished run's folder says."""

    folder: Path
    config: Mapping[str, Any]
    record: Mapping[str, Any]  # eval.json
    epochs: list[dict[str, Any]]  # the lines of metrics.jsonl about validation

    @property
    def kind(self) -> str:
        """Which of the four columns of table 4.1 it belongs to."""
        if self.config["mode"] != "single":
            return str(self.config["mode"])
        return OWN_NETWORKS if self.config["network"]["name"] == "stl" else ONE_TASK

    @property
    def tasks(self) -> list[str]:
        """The tasks that it was measured on."""
        return [task for task in TASKS if any(row["task"] == task for row in self.record["metrics"])]

    @property
    def seed(self) -> int:
        """Of its first weights and its order."""
        return int(self.record["seed"])

    @property
    def flat_config(self) -> dict[str, Any]:
        """`network.norm` -> `group`, without what a single-task network has no use for."""
        unused = ("network.backbone", "network.norm") if self.kind == OWN_NETWORKS else ()
        return {key: value for key, value in flat(self.config).items() if key not in unused}

    @property
    def settings(self) -> dict[str, Any]:
        """What, beside the seed, decides its result."""
        settings = {key: value for key, value in self.flat_config.items() if key not in _OF_A_SEED}
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
    """A mean over seeds, and their standard deviation (n - 1) where there are several."""

    mean: float
    deviation: float | None
    count: int


def spread(values: Sequence[float | None]) -> Spread | None:
    """None where nothing was measured."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None, len(known))


def load_runs(folders: Sequence[Path]) -> list[RunResult]:
    """Each folder once. Raises ValueError where one holds no finished run."""
    return [load_run(folder) for folder in {folder.resolve(): folder for folder in folders}.values()]


def load_run(folder: Path) -> RunResult:
    """A run from its folder. Raises ValueError in one line where it is none, unfinished or damaged."""
    if not (folder / CONFIG_FILE).is_file():
        raise ValueError(
            f"{folder} holds no run: it has no {CONFIG_FILE}, which amtl-train writes into its --out folder"
        )
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
    lines = [line for line in metrics_lines(folder / METRICS_FILE) if line.get("kind") == "epoch"]
    return RunResult(folder, read_config(folder), record, lines)


def build_columns(runs: Sequence[RunResult]) -> list[Column]:
    """Columns in the order of table 4.1; a regime in several configurations has several.

    Single-task runs of one configuration make one column, and so do those of several configurations as long as each
    task has one of them.
    """
    columns: list[Column] = []
    for kind in KINDS:
        of_kind: list[Column] = []
        for cell in _cells([run for run in runs if run.kind == kind]):
            tasks = cell[0].tasks
            column = next((column for column in of_kind if _belongs(cell, column)), None)
            if column is None:
                colour = (KINDS[kind], *_FURTHER)[min(len(of_kind), len(_FURTHER))]
                of_kind.append(column := Column(kind, kind, colour))
            column.cells |= dict.fromkeys(tasks, cell)
        _tell_apart(of_kind)
        columns += of_kind
    return columns


def _cells(runs: Sequence[RunResult]) -> list[Cell]:
    """Runs whose settings are equal, by growing seed."""
    cells: list[Cell] = []
    for run in runs:
        cell = next((cell for cell in cells if cell[0].settings == run.settings), None)
        if cell is None:
            cells.append(cell := [])
        cell.append(run)
    return [sorted(cell, key=lambda run: run.seed) for cell in cells]


def _belongs(cell: Cell, column: Column) -> bool:
    """Whether the column has room for the cell's task; multi-task runs fill a column of their own."""
    return cell[0].config["mode"] == "single" and not set(cell[0].tasks) & set(column.cells)


def _tell_apart(columns: Sequence[Column]) -> None:
    """Name columns of one regime by the settings in which they differ."""
    if len(columns) < 2:
        return
    of_column = [next(iter(column.cells.values()))[0].settings for column in columns]
    different = [key for key in differing(of_column) if key != "task"]
    for column, settings in zip(columns, of_column, strict=True):
        named = [f"{key} = {settings.get(key, 'none')}" for key in different[:_NAMED]]
        column.name = f"{column.kind} ({', '.join(named)}{', ...' if len(different) > _NAMED else ''})"


def differing(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys, in their order, that do not have one value in all of the documents."""
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
    """What stands against comparing these runs, a line each."""
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
