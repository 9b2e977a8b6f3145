"""The evaluation of a finished run's best checkpoint, and of any checkpoint on any set of shards."""

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
from train.config import RunConfig, dump_toml
from train.data.grouping import GROUPINGS, WHOLE
from train.data.open_set import open_shards, open_stream
from train.engine.baselines import score_groups
from train.engine.checkpoint import Checkpoint, build_network, check_data, load_checkpoint
from train.engine.device import find_device
from train.engine.evaluate import evaluate, loss_divisors
from train.engine.objective import Objective
from train.engine.provenance import provenance
from train.engine.run import Reporter, Run, build_objective
from train.engine.sample_predictions import save_extremes, save_predictions
from train.engine.seen import check_unseen, count_seen, seen_line
from train.presets import build_config
from train.run_folder import BEST, EVALUATION_FILE, EXTREMES, PICTURES, PIECES


def finish(run: Run) -> dict[str, Any]:
    """Write `eval.json`, from the validation of the epoch of `best.pt`, and predictions of some samples.

    Returns the content of `eval.json`.
    """
    held = load_checkpoint(run.folder / BEST)
    run.objective.network.load_state_dict(held["weights"])
    stream = run.val if run.val.samples else run.train
    save_predictions(run.folder / PICTURES / PIECES, run.objective, stream, run.tasks)
    extremes = run.progress.best_result.get("extremes", {})  # older runs have none
    save_extremes(run.folder / PICTURES / EXTREMES, run.objective, run.val, extremes)
    record = {
        "checkpoint": BEST,
        "split": "val",
        **_origin(run.config, run.facts, run.shards, run.objective),
        "tasks": list(run.tasks),
        "trained": _trained(held),
        **run.progress.best_result,  # of best.pt, its counts included
        "best_epochs": run.progress.best_epochs,  # of each task by its own val loss
        "last": run.progress.last_result,  # the last epoch's results
        "chosen_by": run.config.best,
        "chosen_on": "val",
        "counts_at_end": run.counts,
        "peak_memory": peak_memory(run.objective.device),
    }
    write_whole(run.folder / EVALUATION_FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    return record


def _origin(config: RunConfig, facts: Mapping[str, Any], shards: ShardSet, objective: Objective) -> dict[str, Any]:
    """Provenance: the configuration, data and machine that a comparison with other results needs."""
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
        "data_set": shards.manifest.get("data_set"),  # such as synthetic, where the set says it
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


def _trained(checkpoint: Checkpoint) -> dict[str, Any]:
    """Provenance of the weights, which may come from another data set and another version than the evaluation."""
    return {
        "manifest_sha256": checkpoint["manifest_sha256"],
        "data_set": checkpoint.get("data_set"),
        "made_by": checkpoint.get("made_by"),
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
    """Return notes that a reader of the metrics must know."""
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
    allow_seen: bool = False,
    stopping: Callable[[], bool],
    reporter: Reporter,
) -> tuple[dict[str, Any], str]:
    """A checkpoint's metrics on a split of any set of shards, beside constants from that set's train split.

    `by` camera or scene: those of each one too, from the same pass. Returns the record, as in `eval.json`, and the
    config of the checkpoint's run as TOML. Raises ValueError where the checkpoint was trained on samples of a split
    that is not train, unless `allow_seen`.
    """
    checkpoint = load_checkpoint(path)
    config, facts = build_config(checkpoint["config"]), checkpoint["facts"]
    shards = open_shards(folder)
    check_data(facts, shards, path)
    keys, what = [ref.key for ref in shards.samples(split)], f"{split} of {folder}"
    seen = count_seen(checkpoint, keys)
    if split != "train" and not allow_seen:
        check_unseen(path, seen, len(keys), what)
    reporter.say(seen_line(path, seen, len(keys), what))
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
    divisors = loss_divisors(checkpoint["progress"].get("first_losses", {}), config.coefficient)
    record = {
        "checkpoint": str(path),
        "split": split,
        "seen": seen,  # samples of the split that the checkpoint was trained on
        **_origin(config, facts, shards, objective),
        "tasks": list(checkpoint["tasks"]),
        "trained": _trained(checkpoint),
        "epoch": checkpoint["progress"]["epoch"],
        "counts": checkpoint["counts"],
        **result.record(divisors, baselines[WHOLE]),
        "peak_memory": peak_memory(device),
    }
    if by:
        groups = {name: group.record(divisors, baselines[name]) for name, group in result.groups.items()}
        record |= {"by": by, "groups": groups}
    return record, dump_toml(config)
