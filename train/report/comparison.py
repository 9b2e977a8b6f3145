"""The report of several runs: what stands against comparing them, tables, curves, pictures, and what the runs are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase

from models.footprint import footprints
from shards.classes import SEGMENTATION_CLASSES
from shards.writer import write_whole
from train.report.figures import loss_figures, picture_figures
from train.report.page import caption, document, paragraph, section
from train.report.runs import OWN_NETWORKS, Column, RunResult, build_columns, load_runs, warnings
from train.report.tables import common_settings, network_table, parts_tables, results_table, runs_table, settings_table

TITLE = "Asymmetric multi-task learning on A2D2: runs compared"


def write_report(folders: Sequence[Path], out: Path) -> tuple[int, list[str]]:
    """One self-contained HTML file. Returns how many runs it shows, and its warnings."""
    runs = load_runs(folders)
    columns = build_columns(runs)
    told = warnings(runs, columns)
    write_whole(out, document(TITLE, _sections(runs, columns, told)).encode())
    return len(runs), told


def _sections(runs: Sequence[RunResult], columns: Sequence[Column], told: Sequence[str]) -> list[str]:
    networks = [
        (int(run.record["size_px"]), float(run.config["network"]["width"]), _backbone(run, runs))
        for run in runs
        if "size_px" in run.record
    ]
    found = footprints(networks, len(SEGMENTATION_CLASSES))
    sizes = []
    for letter, one in zip(ascii_lowercase, found, strict=False):
        sizes += [caption(f"Table 2{letter}", f"{one.what}."), network_table(one)]
    return [
        paragraph(_summary(runs), "soft"),
        *(paragraph(line, "warning") for line in told),
        section("Results", caption("Table 1", _TABLE_1), results_table(columns)),
        section("Networks", paragraph(_TABLE_2, "caption"), *sizes),
        section("Validation losses", *_with(caption("Figure 1", _FIGURE_1), loss_figures(columns))),
        section("The same samples side by side", *picture_figures(columns, 2)),
        section("By class, distance and angle", *parts_tables(columns, 3)),
        section(
            "The runs",
            runs_table(runs),
            caption("Settings", "in which the columns differ. The runs of a cell differ in their seed alone."),
            settings_table(columns),
            paragraph(f"Common to all: {common_settings(runs)}", "soft"),
            paragraph(_fingerprints(runs), "soft"),
        ),
    ]


_TABLE_1 = (
    "Metrics of the best checkpoints on the val split, after table 4.1 of the thesis: mean ± standard deviation over "
    "seeds. Bold is the best column, ▽ what the best constant prediction (of the train split) reaches as well. "
    "The regimes differ in updates, labels and images, so each result stands above what it took; validation is not "
    "in the training time. ↑ higher is better, ↓ lower is better."
)
_TABLE_2 = (
    "After table 4.2 of the thesis. Counted are the layers that the thesis counts, used are those that a gradient "
    "reaches. GMAC: giga multiply-adds of a forward of one image, for all tasks of the network."
)
_FIGURE_1 = (
    "Undivided validation losses, after figure 4.1 of the thesis. Strong lines are means over seeds, thin lines are "
    "single seeds. Left over epochs, right over the images that the network was trained on."
)


def _with(head: str, parts: Sequence[str]) -> list[str]:
    return [head, *parts] if parts else []


def _backbone(run: RunResult, runs: Sequence[RunResult]) -> str:
    """That of the multi-task runs, with which a single-task network is compared; its own config names none."""
    of_mtl = [other.config["network"]["backbone"] for other in runs if other.kind != OWN_NETWORKS]
    own = run.config["network"]["backbone"]
    return str(of_mtl[0] if run.kind == OWN_NETWORKS and of_mtl else own)


def _summary(runs: Sequence[RunResult]) -> str:
    sets = dict.fromkeys(run.record["manifest_sha256"][:12] for run in runs)
    totals = runs[0].record.get("totals", {})
    sizes = ", ".join(f"{split} {of.get('samples', 0):,}" for split, of in totals.items())
    samples = f" (samples: {sizes})" if sizes else ""
    return f"{len(runs)} runs; data set {', '.join(sets)}{samples}; {runs[0].record.get('size_px', '?')} px"


def _fingerprints(runs: Sequence[RunResult]) -> str:
    """Of the conversion rules of each label, of each data set once."""
    sets = {run.record["manifest_sha256"][:12]: run.record.get("fingerprints", {}) for run in runs}
    return " ".join(
        f"Labels of data set {name} were converted by the rules {', '.join(f'{k} {v[:12]}' for k, v in found.items())}."
        for name, found in sets.items()
        if found
    )
