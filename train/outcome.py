"""What a finished run leaves behind: eval.json and pictures of its best checkpoint, and the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import torch

from shards.writer import write_whole
from train.baselines import score_baselines
from train.checkpoint import BEST, Checkpoint, build_network, check_data, load_checkpoint
from train.config import RunConfig, build_config
from train.evaluate import evaluate
from train.objective import Objective
from train.pictures import draw_curves, draw_samples
from train.report import counts_line, metrics_table
from train.run import (
    EVALUATION_FILE,
    METRICS_FILE,
    Reporter,
    Run,
    build_objective,
    find_device,
    metrics_lines,
    open_shards,
    open_stream,
)

PICTURES = "pictures"
TABLE_FILE = "table.txt"


def finish(run: Run, reporter: Reporter) -> None:
    """Evaluation, pictures and table of `best.pt`, from the validation of its epoch."""
    run.objective.network.load_state_dict(load_checkpoint(run.folder / BEST)["weights"])
    draw_samples(run.folder / PICTURES, run.objective, run.val if run.val.samples else run.train, run.tasks)
    draw_curves(run.folder / PICTURES / "losses.png", metrics_lines(run.folder / METRICS_FILE))
    record = {
        "checkpoint": BEST,
        "split": "val",
        **_origin(run.config, run.facts, run.shards.sha256),
        **run.progress.best_result,  # of best.pt, its counts included
        "counts_at_end": run.counts,
    }
    write_whole(run.folder / EVALUATION_FILE, orjson.dumps(record, option=orjson.OPT_INDENT_2))
    write_whole(run.folder / TABLE_FILE, (metrics_table(record["metrics"]) + "\n").encode())
    say_result(record, f"best.pt, epoch {record['epoch']} of {run.progress.epoch}", reporter)
    reporter.say(f"in {run.folder}: {BEST}, {EVALUATION_FILE}, {TABLE_FILE}, {METRICS_FILE}, {PICTURES}/")


def _origin(config: RunConfig, facts: Mapping[str, Any], manifest_sha256: str) -> dict[str, Any]:
    """Without which the numbers cannot be compared with others."""
    return {
        "mode": config.mode,
        "task": config.task,
        "network": config.network.name,
        "norm": "own" if config.network.name == "stl" else config.network.norm,
        "weights": facts["weights"],
        "order": config.stream.order,
        "seed": config.seed,
        "manifest_sha256": manifest_sha256,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def say_result(record: Mapping[str, Any], what: str, reporter: Reporter) -> None:
    """The table, or that there is none."""
    reporter.say("")
    if not record["metrics"]:
        reporter.say(f"{what}: split {record['split']} has no sample to be measured on")
        return
    reporter.say(f"{what}, on {record['val_samples']} samples of split {record['split']}")
    reporter.say(f"trained for {counts_line(record['counts'])}")
    reporter.say(f"backbone weights: {record['weights']}")
    reporter.say("")
    reporter.say(metrics_table(record["metrics"]))
    reporter.say("")


def _restored(config: RunConfig, checkpoint: Checkpoint, device: torch.device) -> Objective:
    network = build_network(config, checkpoint["facts"])
    network.load_state_dict(checkpoint["weights"])
    return build_objective(config, checkpoint["facts"], network, device)


def evaluate_checkpoint(
    path: Path,
    folder: Path,
    *,
    split: str,
    device_name: str,
    workers: int,
    stopping: Callable[[], bool],
    reporter: Reporter,
) -> dict[str, Any]:
    """A checkpoint's metrics on a split of any set of shards, beside constants from that set's train split."""
    checkpoint = load_checkpoint(path)
    config, facts = build_config(checkpoint["config"]), checkpoint["facts"]
    shards = open_shards(folder)
    check_data(facts, shards, path)
    device = find_device(device_name)
    objective = _restored(config, checkpoint, device)
    stream, train = (open_stream(shards, shards.samples(name), workers, device, stopping) for name in (split, "train"))
    try:
        result = evaluate(
            objective,
            stream,
            checkpoint["tasks"],
            config.stream.batch_size,
            lambda done, total: reporter.progress(f"evaluating {split}", done, total, str),
        )
        baselines = score_baselines(train, stream, checkpoint["tasks"])
    finally:
        stream.close()
        train.close()
    return {
        "checkpoint": str(path),
        "split": split,
        **_origin(config, facts, shards.sha256),
        "epoch": checkpoint["progress"]["epoch"],
        "counts": checkpoint["counts"],
        **result.record(config.coefficient, baselines),
    }
