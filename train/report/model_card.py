"""A checkpoint's model card: what it is and what it is for, its training data, its results and their provenance."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.schema import LABELS, TASKS
from shards.writer import write_whole
from train.report.templates import render
from train.report.text import best_constant, counted, counts_line, number
from train.run_folder import BEST, CARD_FILE
from train.tasks import DEFINITIONS

MARK = "<!-- Written by amtl-train and amtl-eval, which write it anew as long as this line is here. -->"

_REGIMES = {
    "asymmetric": "asymmetrically: one (image, label) at a time, each part of the network stepping by its own counter",
    "symmetric": "symmetrically: on the sum of the losses of images that have the labels of all tasks",
    "single": "on this one task alone",
}


def card_path(checkpoint: Path, record: Mapping[str, Any]) -> Path:
    """`model-card.md` beside `best.pt`; the name of any other checkpoint comes first: `last.model-card.md`.

    A card of another data set than the checkpoint was trained on ends in that set's hash: `model-card-1f2e3d4c.md`.
    """
    path = checkpoint.with_name(CARD_FILE if checkpoint.name == BEST else f"{checkpoint.stem}.{CARD_FILE}")
    measured = record["manifest_sha256"]
    other = measured != record.get("trained", record)["manifest_sha256"]
    return path.with_stem(f"{path.stem}-{measured[:8]}") if other else path


def write_card(checkpoint: Path, record: Mapping[str, Any], config_toml: str) -> str:
    """Write the card beside the checkpoint. Returns a line for people that says what was done.

    A card whose first line was changed belongs to whoever changed it and is kept. Neither that nor a folder that
    cannot be written is an error.
    """
    path = card_path(checkpoint, record)
    try:
        if path.exists() and not path.read_text("utf-8", errors="replace").startswith(MARK):
            return f"{path} is left as it is: its first line says that it is not ours any more"
        write_whole(path, model_card(checkpoint.name, record, config_toml).encode())
    except OSError as error:
        return f"no model card: {path} cannot be written ({error.strerror})"
    return f"model card: {path}"


def model_card(name: str, record: Mapping[str, Any], config_toml: str) -> str:
    """Markdown, from the content of `eval.json` (or of `amtl-eval --json`) and the text of `config.toml`."""
    config = tomllib.loads(config_toml)
    network, trained = config["network"], record.get("trained", record)
    makers = [("trained", trained.get("made_by")), ("measured", record.get("made_by"))]
    multitask = network["name"] == "mtl"
    return render(
        "model-card.md.jinja",
        mark=MARK,
        checkpoint=name,
        network=f"The multi-task network on {network['backbone']}" if multitask else "A single-task network",
        width=network["width"],
        parameters=record["cost"]["parameters_used"],
        size_px=record["size_px"],
        mode=config["mode"],
        seed=config["seed"],
        order=config["stream"]["order"],
        tasks=record.get("tasks") or [task for task in TASKS if task in record["cost"]["gmac"]],
        regimes=_REGIMES,
        words={task: definition.words for task, definition in DEFINITIONS.items()},
        trained=trained["manifest_sha256"],
        measured=record["manifest_sha256"],
        data_set=trained.get("data_set"),
        labels=_label_rows(record),
        counts=counts_line(record["counts"]),
        weights=record["weights"],
        epoch=record["epoch"],
        config="".join(line for line in config_toml.splitlines(keepends=True) if not line.startswith("#")),
        results=_result_rows(record["metrics"]),
        not_better=[f"{row['task']} {row['metric']}" for row in record["metrics"] if row["better"] is False],
        split=record["split"],
        val_samples=counted(record["val_samples"], "sample"),
        notes=record["notes"],
        makers=[_maker_row(what, made) for what, made in makers if made],
    )


def _label_rows(record: Mapping[str, Any]) -> list[Sequence[str]]:
    """Each label with its number of samples per split and the fingerprint of its conversion rule."""
    totals, prints = record["totals"], record["fingerprints"]
    rows: list[Sequence[str]] = []
    for label in LABELS:
        counts = [str(totals.get(split, {}).get("labels", {}).get(label, 0)) for split in ("train", "val")]
        rows.append((label, *counts, f"`{prints[label]}`" if label in prints else "-"))
    return rows


def _result_rows(metrics: Sequence[Mapping[str, Any]]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for row in metrics:
        best = best_constant(row)
        constant = f"{number(best[1])} ({best[0]})" if best else "-"
        better = {True: "yes", False: "**no**", None: "-"}[row["better"]]
        rows.append((row["task"], row["metric"], row["unit"], number(row["value"]), constant, better))
    return rows


def _maker_row(what: str, made: Mapping[str, Any]) -> Sequence[str]:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return what, versions, f"`{made['commit']}`" if made["commit"] else "no git checkout"
