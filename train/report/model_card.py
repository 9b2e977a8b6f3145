"""A checkpoint's model card: what it is, what it was trained on and how, what it scores, what it is for and is not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shards.schema import LABELS
from shards.writer import write_whole
from train.config import RunConfig, dump_toml
from train.engine.checkpoint import Checkpoint
from train.presets import build_config
from train.report.text import best_constant, counts_line, number
from train.run_folder import BEST, CARD_FILE

MARK = "<!-- Written by amtl-train and amtl-eval, which write it anew as long as this line is here. -->"

_PREDICTS = {
    "steering": "ten angles of the steering wheel, in degrees",
    "segmentation": "a class for every pixel",
    "boxes": "boxes of 14 kinds of road users",
    "depth": "the distance of every pixel, in metres",
}
_REGIMES = {
    "asymmetric": "asymmetrically: one (image, label) at a time, each part of the network stepping by its own counter",
    "symmetric": "symmetrically: on the sum of the losses of images that have the labels of all tasks",
    "single": "on this one task alone",
}
_LIMITS = {
    "steering": "Steering angles are those of one car's wheel with its own steering ratio, on mostly straight roads: "
    "compare the error with that of always predicting 0. They steer nothing.",
    "segmentation": "Classes that are rare in the training data are found badly or never; `table.txt` and `eval.json` "
    "have the result of each.",
    "boxes": "Scores of boxes are no probabilities: they were not calibrated. A cell of an 8 x 8 grid holds ten boxes.",
    "depth": "Distances hold for the camera of the training images alone, as they follow from the size of "
    "things in its frame. Where LiDAR gave no return (sky, far away, above the road) nothing was ever learnt.",
}


def card_path(checkpoint: Path) -> Path:
    """`model-card.md` beside `best.pt`; any other checkpoint's has its name in front: `last.model-card.md`."""
    return checkpoint.with_name(CARD_FILE if checkpoint.name == BEST else f"{checkpoint.stem}.{CARD_FILE}")


def write_card(checkpoint: Path, held: Checkpoint, record: Mapping[str, Any]) -> str:
    """Beside the checkpoint, from its content and the evaluation's record. Returns what was done, for people.

    A card whose first line is not ours belongs to who changed it, and a folder may be another's: neither is an error.
    """
    path = card_path(checkpoint)
    try:
        if path.exists() and not path.read_text("utf-8", errors="replace").startswith(MARK):
            return f"{path} is left as it is: its first line says that it is not ours any more"
        write_whole(path, model_card(checkpoint.name, held, record).encode())
    except OSError as error:
        return f"no model card: {path} cannot be written ({error.strerror})"
    return f"model card: {path}"


def model_card(name: str, held: Checkpoint, record: Mapping[str, Any]) -> str:
    """Markdown. `record` is the content of `eval.json`, or what `amtl-eval --json` writes."""
    config = build_config(held["config"])
    blocks = [
        MARK,
        f"# Model card: {name}",
        _what(config, held, record),
        "## What it is for",
        _purpose(held["tasks"]),
        "## What it was trained on",
        *_data(held, record),
        "## How it was trained",
        *_training(config, held, record),
        "## What it scores",
        *_results(record),
        "## What made it",
        _makers(held, record),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _what(config: RunConfig, held: Checkpoint, record: Mapping[str, Any]) -> str:
    size, tasks = held["facts"]["size_px"], held["tasks"]
    network = config.network
    what = f"The multi-task network on {network.backbone}" if network.name == "mtl" else "A single-task network"
    predicts = "\n".join(f"- {task}: {_PREDICTS[task]}" for task in tasks)
    parameters = record["cost"]["parameters_used"] / 1e6
    return (
        f"{what}, width {network.width:g}, {parameters:.1f} M parameters, trained {_REGIMES[config.mode]}. "
        f"From one camera image, the whole frame squeezed to {size} x {size} pixels, it predicts\n\n{predicts}"
    )


def _purpose(tasks: Iterable[str]) -> str:
    lines = [
        "Meant for research: comparing ways of training one network for several tasks on driving data, and for showing "
        "what such a network learns. `amtl-predict` and `amtl-export` use it on other images.",
        "Not for driving, not for warning a driver, and for no other decision that somebody's safety hangs on: nothing "
        "was tested beyond the numbers below.",
        "It knows the roads, weather, daylight and the one car and camera of its training data. Other places, night, "
        "snow, other cameras or mounting heights: expect worse, by how much was not measured.",
        *(_LIMITS[task] for task in tasks),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data(held: Checkpoint, record: Mapping[str, Any]) -> list[str]:
    """The set and its rules; the record's are of the set that was measured on."""
    trained, measured = held["manifest_sha256"], record["manifest_sha256"]
    blocks = [f"Shards whose `manifest.json` has the sha256 `{trained}`."]
    if trained != measured:
        blocks.append(f"It was measured on **another set**, sha256 `{measured}`, of which the table speaks.")
    totals, prints = record["totals"], record["fingerprints"]
    rows = []
    for label in LABELS:
        counts = [str(totals.get(split, {}).get("labels", {}).get(label, 0)) for split in ("train", "val")]
        rows.append((label, *counts, f"`{prints[label]}`" if label in prints else "-"))
    blocks.append(_table(("label", "train samples", "val samples", "rule's fingerprint"), rows))
    blocks.append("A fingerprint names a conversion rule with its calibration: `a2d2-prep rules` prints both.")
    return blocks


def _training(config: RunConfig, held: Checkpoint, record: Mapping[str, Any]) -> list[str]:
    return [
        f"Mode {config.mode}, seed {config.seed}, order of the items: {config.stream.order}; "
        f"{counts_line(held['counts'])}.",
        f"First weights: {held['facts']['weights']}. This is the checkpoint after epoch {record['epoch']}.",
        f"<details><summary>The whole config</summary>\n\n```toml\n{dump_toml(config)}```\n\n</details>",
    ]


def _results(record: Mapping[str, Any]) -> list[str]:
    metrics = record["metrics"]
    if not metrics:
        return [f"Nothing was measured: split {record['split']} has no sample."]
    rows, worse = [], []
    for row in metrics:
        best = best_constant(row)
        constant = f"{number(best[1])} ({best[0]})" if best else "-"
        better = {True: "yes", False: "**no**", None: "-"}[row["better"]]
        rows.append((row["task"], row["metric"], row["unit"], number(row["value"]), constant, better))
        worse += [f"{row['task']} {row['metric']}"] if row["better"] is False else []
    said = f"A constant prediction does as well or better in {', '.join(worse)}."
    return [
        f"On the {record['val_samples']} samples of split {record['split']}, beside the best prediction that is "
        "the same for every image.",
        _table(("task", "metric", "unit", "value", "best constant", "better"), rows),
        said if worse else "",
        *(f"Note: {note}." for note in record["notes"]),
    ]


def _makers(held: Checkpoint, record: Mapping[str, Any]) -> str:
    rows = []
    for what, made in (("trained", held.get("made_by")), ("measured", record.get("made_by"))):
        if made:
            versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
            rows.append((what, versions, f"`{made['commit']}`" if made["commit"] else "no git checkout"))
    return _table(("", "versions", "commit"), rows) if rows else "Not recorded."


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
