"""What a finished run leaves behind: eval.json and pictures of its best checkpoint, and the table."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch

from models.cost import forward_gmac, parameter_counts
from shards.reader import ShardSet
from shards.writer import write_whole
from train.config import RunConfig
from train.data.grouping import GROUPINGS, WHOLE
from train.engine.baselines import score_groups
from train.engine.checkpoint import Checkpoint, build_network, check_data, load_checkpoint
from train.engine.evaluate import evaluate
from train.engine.objective import Objective
from train.engine.provenance import provenance
from train.engine.run import (
    Reporter,
    Run,
    build_objective,
    find_device,
    open_shards,
    open_stream,
)
from train.presets import build_config
from train.report.model_card import write_card
from train.report.pictures import draw_curves, draw_samples
from train.report.text import counts_line, result_text
from train.run_folder import BEST, EVALUATION_FILE, METRICS_FILE, PICTURES, TABLE_FILE, metrics_lines


def finish(run: Run, reporter: Reporter) -> None:
    """Evaluation, pictures and table of `best.pt`, from the validation of its epoch."""
    held = load_checkpoint(run.folder / BEST)
    run.objective.network.load_state_dict(held["weights"])
    draw_samples(run.folder / PICTURES, run.objective, run.val if run.val.samples else run.train, run.tasks)
    draw_curves(run.folder / PICTURES / "losses.png", metrics_lines(run.folder / METRICS_FILE))
    record = {
        "checkpoint": BEST,
        "split": "val",
        **_origin(run.config, run.facts, run.shards, run.objective),
        **run.progress.best_result,  # of best.pt, its counts included
        "counts_at_end": run.counts,
        "peak_memory": peak_memory(run.objective.device),
    }
    write_whole(run.folder / EVALUATION_FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    card = write_card(run.folder / BEST, held, record)
    write_whole(run.folder / TABLE_FILE, (result_text(record, apart=True) + "\n").encode())
    say_result(record, f"best.pt, epoch {record['epoch']} of {run.progress.epoch}", reporter, apart=False)
    reporter.say(f"in {run.folder}: {BEST}, {EVALUATION_FILE}, {METRICS_FILE}, {PICTURES}/ and {TABLE_FILE}, "
                 "which also has the results by class, distance and angle")  # fmt: skip
    reporter.say(card)


def _origin(config: RunConfig, facts: Mapping[str, Any], shards: ShardSet, objective: Objective) -> dict[str, Any]:
    """Without which the numbers cannot be compared with others."""
    device = objective.device
    return {
        "mode": config.mode,
        "task": config.task,
        "network": config.network.name,
        "norm": "own" if config.network.name == "stl" else config.network.norm,
        "weights": facts["weights"],
        "order": config.stream.order,
        "seed": config.seed,
        "manifest_sha256": shards.sha256,
        "fingerprints": shards.manifest.get("fingerprints", {}),
        "totals": shards.manifest.get("totals", {}),  # samples and labels per split
        "size_px": facts["size_px"],
        "cost": network_cost(objective, facts["size_px"]),
        "notes": notes(config),
        "torch": torch.__version__,
        "made_by": provenance(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
    }


def network_cost(objective: Objective, size_px: int) -> dict[str, Any]:
    """Parameters, and giga multiply-adds of a forward of one image, per part."""
    counts = parameter_counts(objective.network, size_px)
    return {
        "parameters": counts.counted,
        "parameters_used": counts.used,  # those that a gradient reaches
        "gmac": forward_gmac(objective.network, size_px),
    }


def notes(config: RunConfig) -> list[str]:
    """What a reader of the metrics must know."""
    focus = config.loss.variance_focus
    if "depth" in config.tasks and focus >= 1:
        return [
            f"the depth loss had variance_focus {focus:g}, with which a global scale costs nothing and is not learnt: "
            "errors in metres, AbsRel and delta1 mean nothing here"
        ]
    return []


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """The most that this process held so far, in bytes: resident, and allocated on its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {"process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "gpu_bytes": gpu}


def say_result(record: Mapping[str, Any], what: str, reporter: Reporter, *, apart: bool = True) -> None:
    """The table, or that there is none; `apart`, also what it takes apart."""
    reporter.say("")
    if not record["metrics"]:
        reporter.say(f"{what}: split {record['split']} has no sample to be measured on")
        return
    reporter.say(f"{what}, on {record['val_samples']} samples of split {record['split']}")
    reporter.say(f"trained for {counts_line(record['counts'])}")
    reporter.say(f"backbone weights: {record['weights']}")
    reporter.say("")
    reporter.say(result_text(record, apart=apart))
    reporter.say("")


def _restored(config: RunConfig, checkpoint: Checkpoint, device: torch.device) -> Objective:
    network = build_network(config, checkpoint["facts"])
    network.load_state_dict(checkpoint["weights"])
    return build_objective(replace(config, compile=False), checkpoint["facts"], network, device)


def evaluate_checkpoint(
    path: Path,
    folder: Path,
    *,
    split: str,
    device_name: str,
    workers: int,
    by: str | None = None,
    stopping: Callable[[], bool],
    reporter: Reporter,
) -> dict[str, Any]:
    """A checkpoint's metrics on a split of any set of shards, beside constants from that set's train split.

    `by` camera or scene: those of each one too, from the same pass.
    """
    checkpoint = load_checkpoint(path)
    config, facts = build_config(checkpoint["config"]), checkpoint["facts"]
    shards = open_shards(folder)
    check_data(facts, shards, path)
    device = find_device(device_name)
    objective = _restored(config, checkpoint, device)
    stream, train = (open_stream(shards, shards.samples(name), workers, device, stopping) for name in (split, "train"))
    grouping = GROUPINGS[by] if by else None
    try:
        result = evaluate(
            objective,
            stream,
            checkpoint["tasks"],
            config.stream.batch_size,
            lambda done, total: reporter.progress(f"evaluating {split}", done, total, str),
            grouping,
        )
        baselines = score_groups(train, stream, checkpoint["tasks"], objective.context, grouping)
    finally:
        stream.close()
        train.close()
    record = {
        "checkpoint": str(path),
        "split": split,
        **_origin(config, facts, shards, objective),
        "epoch": checkpoint["progress"]["epoch"],
        "counts": checkpoint["counts"],
        **result.record(config.coefficient, baselines[WHOLE]),
        "peak_memory": peak_memory(device),
    }
    if split == "val":  # what is measured on training data is no result
        reporter.say(write_card(path, checkpoint, record))
    if by:
        groups = {name: group.record(config.coefficient, baselines[name]) for name, group in result.groups.items()}
        record |= {"by": by, "groups": groups}
    return record
