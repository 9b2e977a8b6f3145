"""A run made ready: data opened, network built or taken from a checkpoint, the run folder claimed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from models.multitask import MultiTaskNet
from shards.reader import SampleRef, ShardSet
from shards.writer import write_whole
from train.config import ConfigError, Document, RunConfig, dump_toml, to_document
from train.data.open_set import open_set, open_stream
from train.data.regimes import choose_samples, count_labels, plan_warnings, slow_parts
from train.data.stream import Stream, worker_count
from train.engine.baselines import Baselines, load_baselines, save_baselines, score_baselines
from train.engine.checkpoint import (
    Checkpoint,
    build_network,
    check_resumable,
    load_checkpoint,
    network_facts,
    save_checkpoint,
    task_context,
)
from train.engine.device import find_device, seed_everything
from train.engine.distributed import ProcessGroup
from train.engine.evaluate import check_criterion
from train.engine.initial_weights import find_start
from train.engine.objective import Objective
from train.engine.precision import set_float32_mode, settle_precision
from train.engine.provenance import provenance
from train.engine.seen import SEEN, count_seen, digests, joined, seen_by, seen_line
from train.engine.step import TrainingStep
from train.run_folder import BASELINES_FILE, BEST, CONFIG_FILE, EVALUATION_FILE, LAST, METRICS_FILE
from train.sample_pieces import Pieces

_CONFIG_HEADING = "# The effective config of this run; --config takes it unchanged."
_OF_A_RUN = (CONFIG_FILE, METRICS_FILE, LAST, BEST, EVALUATION_FILE)


class Reporter(Protocol):
    """Where a run tells people how it goes; only the command line prints."""

    def say(self, line: str) -> None:
        """A line to keep."""

    def progress(self, what: str, done: int, total: int, facts: Callable[[], Sequence[str]]) -> None:
        """Show the progress of `what`; called for every step, `facts` only when it is shown."""


class Listener(Protocol):
    """Follows a training run on its first rank: event files, pictures, lines for people."""

    def line(self, line: Mapping[str, Any]) -> None:
        """A line was added to `metrics.jsonl`."""

    def epoch(self, record: Mapping[str, Any], epochs: int, best: bool) -> None:
        """A validation is done; `best` says that its weights are now `best.pt`."""

    def sample(self, pieces: Pieces, step: int) -> None:
        """Labels and predictions of a val sample after `step` groups of images."""


@dataclass
class Progress:
    """The progress and the cost of a run; saved with every checkpoint."""

    epoch: int = 0  # epochs finished, validation included
    items: int = 0  # labels trained on in the epoch that is under way
    counters: dict[str, int] = field(default_factory=dict)  # of the parts when the epoch began: they shape its groups
    groups: int = 0  # of images that went through the network together, so far
    total_items: int = 0  # labels trained on so far
    images: int = 0  # images read for training so far
    seconds: float = 0.0  # of training, validation left out
    best: float | None = None  # the lowest criterion of config.best yet
    best_result: dict[str, Any] = field(default_factory=dict)  # the evaluation and counts of best.pt
    first_losses: dict[str, float] = field(default_factory=dict)  # by task, of the first validation
    best_epochs: dict[str, dict[str, float]] = field(default_factory=dict)  # task -> epoch and val loss of its best
    last_result: dict[str, Any] = field(default_factory=dict)  # losses and metrics of the last validation


@dataclass
class Run:
    """All that the loop needs."""

    config: RunConfig
    facts: Document  # see network_facts
    shards: ShardSet
    tasks: tuple[str, ...]  # those with a label to train on
    samples: list[SampleRef]  # of the train split, those of the regime
    train: Stream
    val: Stream
    objective: Objective
    steps: TrainingStep
    progress: Progress
    ranks: ProcessGroup
    stopping: Callable[[], bool]  # whether a signal asked this process to stop
    seen: Tensor  # digests of the keys of all samples that the weights were trained on
    baselines: Baselines = field(default_factory=dict)
    listener: Listener | None = None  # on the first rank, while it trains

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.out)

    @property
    def counts(self) -> dict[str, Any]:
        """The cost of the weights so far; regimes differ in it, so every result states it."""
        return {
            "epochs": self.progress.epoch,
            "updates": self.steps.updates,  # optimizer steps per part
            "items": self.progress.total_items,  # labels trained on
            "images": self.progress.images,  # read for training
            "seconds": round(self.progress.seconds, 3),  # of training, validation left out
        }

    def save(self, name: str) -> None:
        """Write a checkpoint. `best.pt` has what using the network takes, `last.pt` what going on takes too.

        Every rank calls it for `last.pt`, as each holds a part of what is pending; the first one writes.
        """
        if name == LAST:
            self.steps.gather_pending()
        if not self.ranks.is_main:
            return
        checkpoint: Checkpoint = {
            "config": to_document(self.config),
            "facts": self.facts,
            "manifest_sha256": self.shards.sha256,
            "data_set": self.shards.manifest.get("data_set"),
            "weights": self.objective.network.state_dict(),
            "progress": asdict(self.progress),
            "tasks": list(self.tasks),
            "counts": self.counts,
            "made_by": provenance(),
            SEEN: self.seen,
        }
        if name == LAST:
            checkpoint["steps"] = self.steps.state_dict()
        save_checkpoint(self.folder / name, checkpoint, older=self.config.older_checkpoints if name == LAST else 0)

    def close(self) -> None:
        """End the reading threads and close the shards."""
        self.train.close()
        self.val.close()
        self.shards.close()


def prepare(
    config: RunConfig,
    *,
    resume: bool,
    stopping: Callable[[], bool],
    reporter: Reporter,
    ranks: ProcessGroup | None = None,
) -> Run:
    """Everything before the first step. Raises ValueError where the run cannot be.

    The order matters: what is wrong is found before anything slow, and the folder is claimed before that too.
    """
    ranks = ranks or ProcessGroup()
    check_criterion(config.best, config.tasks)
    if not resume and config.init_from is not None and not Path(config.init_from).is_file():
        raise ConfigError(f"--init-from must be a checkpoint, got {config.init_from}: there is no such file")
    checkpoint = claim_folder(Path(config.out), resume, reporter)
    ranks.any(False)  # no rank claims the folder before all have looked
    config, shards = open_set(config, reporter.say)
    if checkpoint is not None:
        check_resumable(checkpoint, config, shards.sha256, Path(config.out) / LAST)
    val_samples = shards.samples("val")
    if val_samples:
        check_criterion(config.best, config.tasks, count_labels(config, val_samples))
    samples, lines = choose_samples(config, shards.samples("train"))
    for text in (*lines, *slow_parts(config, samples)):
        reporter.say(text)
    device = find_device(config.device, ranks)
    precision, line = settle_precision(config.precision, device)
    config = replace(config, precision=precision)
    if line is not None:
        reporter.say(line)
    seed_everything(config.seed)
    if checkpoint is None:
        config, facts, network, seen = new_network(config, shards, reporter)
    else:
        facts, network = checkpoint["facts"], build_network(config, checkpoint["facts"])
        network.load_state_dict(checkpoint["weights"])
        seen = seen_by(checkpoint)
    if ranks.is_main:
        write_config(config, facts)
    for text in plan_warnings(config, ranks.size):
        reporter.say(text)

    objective = build_objective(config, facts, network, device)
    steps = TrainingStep(config, objective, ranks)
    progress = Progress(counters=steps.counters)
    if checkpoint is not None:
        steps.load_state_dict(checkpoint["steps"])
        progress = Progress(**checkpoint["progress"])
        place = f"epoch {progress.epoch + 1}, {progress.items} items in"
        if progress.epoch >= config.epochs:
            place = f"all {config.epochs} epochs are done, and more --epochs would go on"
        reporter.say(f"resuming after {progress.groups} micro-batches: {place}")
    workers = worker_count(config.workers, device)  # the loop asks all ranks before it stops, so the stream does not
    train = Stream(shards, samples, workers=workers, device=device, augment=config.augment, seed=config.seed)
    val = open_stream(shards, val_samples, config.workers, device, stopping)
    tasks = trained_tasks(config, samples, reporter)
    seen = joined(seen, digests(ref.key for ref in samples))
    return Run(config, facts, shards, tasks, samples, train, val, objective, steps, progress, ranks, stopping, seen)


def claim_folder(folder: Path, resume: bool, reporter: Reporter) -> Checkpoint | None:
    """The checkpoint to go on from, if any. Raises ValueError where the folder holds a run and must not, or must."""
    held = [name for name in _OF_A_RUN if (folder / name).exists()]
    if not resume:
        if held and not (held == [CONFIG_FILE] and _is_ours(folder / CONFIG_FILE)):  # else it ended before a step
            raise ValueError(f"{folder} holds a run ({held[0]}): give --resume to go on with it, or another --out")
        return None
    if not held:
        raise ValueError(f"{folder} holds no run to resume: start it without --resume")
    if LAST not in held:
        reporter.say(f"{folder} was stopped before its first checkpoint: it starts from the beginning")
        return None
    return load_checkpoint(folder / LAST)


def _is_ours(config_file: Path) -> bool:
    return config_file.read_bytes().startswith(_CONFIG_HEADING.encode())


def new_network(
    config: RunConfig, shards: ShardSet, reporter: Reporter
) -> tuple[RunConfig, Document, MultiTaskNet, Tensor]:
    """Return the config with `auto` replaced, the network with its first weights, and what those were trained on."""
    start = find_start(config, reporter)
    facts = network_facts(shards.size_px, shards.max_m, normalise=start.normalise, weights=start.found)
    network = build_network(start.config, facts)
    start.load(network, facts, reporter)
    if start.checkpoint is not None:
        keys = [ref.key for ref in shards.samples("val")]
        count = count_seen(start.checkpoint, keys)
        reporter.say(seen_line(Path(str(config.init_from)), count, len(keys), f"val of {config.shards}"))
    return start.config, facts, network, seen_by(start.checkpoint)


def write_config(config: RunConfig, facts: Document) -> None:
    """`config.toml`, which from now on says that the folder holds a run."""
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    comment = f"{_CONFIG_HEADING}\n# backbone weights: {facts['weights']}\n"
    write_whole(folder / CONFIG_FILE, (comment + dump_toml(config)).encode())


def build_objective(config: RunConfig, facts: Document, network: MultiTaskNet, device: torch.device) -> Objective:
    """The network on its device, with the units that its config and facts give."""
    set_float32_mode(config.precision)
    return Objective(
        network,
        device=device,
        normalise=facts["normalise"],
        context=task_context(config, facts),
        precision=config.precision,
        compiled=config.compile,
    )


def trained_tasks(config: RunConfig, samples: Sequence[SampleRef], reporter: Reporter) -> tuple[str, ...]:
    """The tasks that some sample trains; a head that none trains is not measured either."""
    tasks = tuple(task for task in config.tasks if any(task in ref.labels for ref in samples))
    for task in config.tasks:
        if task not in tasks:
            reporter.say(f"no train sample has a label of {task}: its head is not trained, and not measured")
    return tasks


def run_baselines(run: Run, reporter: Reporter) -> Baselines:
    """Return the baselines from the run folder, or compute and keep them. Constants come from the whole train split."""
    if not run.val.samples:
        return {}
    path = run.folder / BASELINES_FILE
    kept = load_baselines(path, run.shards.sha256, run.tasks)
    if kept is not None:
        return kept
    reporter.say("scoring constant predictions, the baselines, over the labels of both splits")
    device = run.objective.device
    workers = worker_count(run.config.workers, device)
    train = Stream(run.shards, run.shards.samples("train"), workers=workers, device=device, stopping=run.val.stopping)
    try:
        baselines = score_baselines(train, run.val, run.tasks, run.objective.context)
    finally:
        train.close()
    save_baselines(path, run.shards.sha256, run.tasks, baselines)
    return baselines
