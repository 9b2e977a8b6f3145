"""The comparison of several runs: one HTML file with everything inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shards.schema import TASKS
from shards.writer import write_whole
from train.report.extremes import build_extremes
from train.report.figures import breakdown_figure, loss_figure, loss_table, metric_figure
from train.report.gallery import Gallery, build_gallery, curve_figure, load_samples
from train.report.runs import OWN_NETWORKS, Column, RunResult, build_columns, warnings
from train.report.tables import (
    Table,
    breakdown_table,
    common_settings,
    cost_table,
    results_table,
    runs_table,
    settings_table,
)
from train.report.templates import render
from train.report.text import counted
from train.tasks import DEFINITIONS

TITLE = "Asymmetric multi-task learning: runs compared"


def write_report(
    runs: Sequence[RunResult], networks: Sequence[Table], out: Path, notes: Sequence[str] = ()
) -> list[str]:
    """Write the page. Returns its warnings, which begin with `notes`."""
    columns = build_columns(runs)
    told = [*notes, *warnings(runs, columns)]
    galleries, curves = _samples(columns)
    page = render(
        "report.html.jinja",
        title=title_of(runs),
        summary=summary_of(runs),
        warnings=told,
        regimes=[(column.name, column.colour) for column in columns],
        results=results_table(columns),
        costs=cost_table(columns),
        networks=networks,
        losses=loss_figure(columns),
        loss_values=loss_table(columns),
        metrics=metric_figure(columns),
        galleries=galleries,
        curves=curves,
        extremes=[found for task in TASKS if (found := build_extremes(task, columns))],
        breakdowns=_breakdowns(columns),
        runs=runs_table(runs),
        settings=settings_table(columns),
        common=common_settings(runs),
        fingerprints=_fingerprints(runs),
    )
    try:
        write_whole(out, page.encode())
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error.strerror}") from error
    return told


def title_of(runs: Sequence[RunResult]) -> str:
    """The title, which names the data set where all runs have one that names itself."""
    names = {run.record.get("data_set") for run in runs}
    return f"{TITLE} on {names.pop()} data" if len(names) == 1 and None not in names else TITLE


def network_shapes(runs: Sequence[RunResult]) -> list[tuple[int, float, str]]:
    """(image size in px, width, backbone) of each run, for which the costs of the networks are compared."""
    return [
        (int(run.record["size_px"]), float(run.config["network"]["width"]), _backbone(run, runs))
        for run in runs
        if "size_px" in run.record
    ]


def _backbone(run: RunResult, runs: Sequence[RunResult]) -> str:
    """The run's backbone. A single-task network has none: it is compared with that of the multi-task runs."""
    multitask = [other.config["network"]["backbone"] for other in runs if other.kind != OWN_NETWORKS]
    own = run.config["network"]["backbone"]
    return str(multitask[0] if run.kind == OWN_NETWORKS and multitask else own)


def _samples(columns: Sequence[Column]) -> tuple[list[Gallery], list[tuple[str, str]]]:
    """Pictures of each task whose values are pictures; caption and plots of each other task."""
    galleries, curves = [], []
    colours = {column.name: column.colour for column in columns}
    for task in TASKS:
        samples = load_samples(columns, task)
        if samples and (gallery := build_gallery(task, samples)):
            galleries.append(gallery)
        elif samples:
            curves.append((DEFINITIONS[task].words.pictured, curve_figure(task, samples, colours)))
    return galleries, curves


def _breakdowns(columns: Sequence[Column]) -> list[tuple[str, str, Table]]:
    """For each task: bars, their caption, and the table."""
    found = []
    for task in TASKS:
        table = breakdown_table(task, columns)
        if table is not None:
            what = DEFINITIONS[task].breakdown
            share = f"with the share of the {what.counted} in the val split; means over seeds."
            text = f"{task.capitalize()}: {what.metrics[0].name} by {what.by}, {share}"
            found.append((breakdown_figure(task, columns), text, table))
    return found


def summary_of(runs: Sequence[RunResult]) -> str:
    """`3 runs; data set 12ab34cd56ef (samples: train 240, val 60); 256 px`"""
    names = {run.record["manifest_sha256"][:12]: run.record.get("data_set") for run in runs}
    sets = [f"{digest} ({name})" if name else digest for digest, name in names.items()]
    totals = runs[0].record.get("totals", {})
    sizes = ", ".join(f"{split} {of.get('samples', 0):,}" for split, of in totals.items())
    samples = f" (samples: {sizes})" if sizes else ""
    return f"{counted(len(runs), 'run')}; data set {', '.join(sets)}{samples}; {runs[0].record.get('size_px', '?')} px"


def _fingerprints(runs: Sequence[RunResult]) -> Mapping[str, str]:
    """Data set -> the fingerprints of its conversion rules by label."""
    sets = {run.record["manifest_sha256"][:12]: run.record.get("fingerprints", {}) for run in runs}
    return {name: ", ".join(f"{label} {print_[:12]}" for label, print_ in found.items())
            for name, found in sets.items() if found}  # fmt: skip
