"""The choice of best.pt: every task counts alike, and a criterion that cannot be computed does not decide."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.test_checkpoint import Quiet, config_of
from tests.tiny_shards import ALL, write_tiny_shards
from tests.toy import ToyNet
from train.config import ConfigError
from train.engine import loop
from train.engine import run as run_room
from train.engine.checkpoint import load_checkpoint
from train.engine.evaluate import Evaluation
from train.engine.outcome import finish
from train.engine.run import Run, prepare
from train.run_folder import BEST, EVALUATION_FILE, LAST

Patch = pytest.MonkeyPatch
LOSSES = [  # of each epoch's validation: steering gets worse, and everything else much better
    {"steering": 1.0, "segmentation": 3.0, "boxes": 40.0, "depth": 2.0},
    {"steering": 1.5, "segmentation": 1.5, "boxes": 20.0, "depth": 1.0},
    {"steering": 1.6, "segmentation": 2.9, "boxes": 39.0, "depth": 0.5},
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("criterion") / "shards", train=((ALL,),), val=((ALL,),))


def trained(tiny: Path, out: Path, patch: Patch, results: list[Any], **changes: Any) -> tuple[Run, Quiet]:
    """A run whose validations find these losses."""
    patch.setattr(run_room, "build_network", lambda config, facts: ToyNet(config.tasks))
    found = iter(results)

    def evaluated(*_: Any, **__: Any) -> Evaluation:
        losses = next(found)
        scores, parts = {task: {} for task in losses}, {task: [] for task in losses}
        return Evaluation(1, dict.fromkeys(losses, 1), losses, scores, parts, {})

    def recorded(run: Run, result: Evaluation) -> dict[str, Any]:
        record = {"epoch": run.progress.epoch, "val_losses": result.losses, "val_loss": None}
        return {**record, "metrics": [], "counts": run.counts}

    patch.setattr(loop, "evaluate", evaluated)
    patch.setattr(loop, "evaluation_record", recorded)
    reporter = Quiet(None)
    config = config_of("asymmetric", tiny, out, epochs=len(results), **changes)
    run = prepare(config, resume=False, stopping=lambda: False, reporter=reporter)
    loop.train(run, reporter)
    return run, reporter


def test_every_task_counts_alike(tiny: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    """With the coefficients of training, steering alone would decide for the first epoch."""
    run, _ = trained(tiny, tmp_path / "run", monkeypatch, LOSSES)
    coefficients = run.config.coefficient
    by_coefficient = [sum(loss / coefficients[task] for task, loss in losses.items()) for losses in LOSSES]
    assert by_coefficient.index(min(by_coefficient)) == 0
    assert load_checkpoint(tmp_path / "run" / BEST)["progress"]["epoch"] == 2
    assert run.progress.best == pytest.approx(1.5 + 0.5 + 0.5 + 0.5)
    run.close()


def test_each_task_s_best_epoch_and_the_last_results_are_kept(tiny: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    run, _ = trained(tiny, tmp_path / "run", monkeypatch, LOSSES)
    epochs = {task: best["epoch"] for task, best in run.progress.best_epochs.items()}
    assert epochs == {"steering": 1, "segmentation": 2, "boxes": 2, "depth": 3}
    assert load_checkpoint(tmp_path / "run" / LAST)["progress"]["best_epochs"] == run.progress.best_epochs
    record = finish(run)
    run.close()
    assert (tmp_path / "run" / EVALUATION_FILE).exists()
    assert (record["best_epochs"], record["last"]["val_losses"]) == (run.progress.best_epochs, LOSSES[2])
    assert record["chosen_by"] == "loss"


def test_losses_that_are_never_finite_leave_the_last_epoch(tiny: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    never = [{**losses, "depth": math.inf} for losses in LOSSES]
    run, _ = trained(tiny, tmp_path / "run", monkeypatch, never)
    run.close()
    assert load_checkpoint(tmp_path / "run" / BEST)["progress"]["epoch"] == 3, "and not the first for ever"


def test_a_metric_that_val_never_has_lets_the_loss_decide(tiny: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    """Box labels without any object: mAP is measured on nothing."""
    run, reporter = trained(tiny, tmp_path / "run", monkeypatch, LOSSES, best="boxes mAP50")
    run.close()
    assert sum("val gives no boxes mAP50" in line for line in reporter.lines) >= 1
    assert load_checkpoint(tmp_path / "run" / BEST)["progress"]["epoch"] == 2


def test_a_metric_without_a_label_in_val_is_refused_at_the_start(tmp_path: Path) -> None:
    shards = write_tiny_shards(tmp_path / "shards", train=((ALL,),), val=((("steering", "depth"),),))
    config = config_of("asymmetric", shards, tmp_path / "run", best="boxes mAP50")
    with pytest.raises(ConfigError, match=r"got 'boxes mAP50': no val sample has boxes"):
        prepare(config, resume=False, stopping=lambda: False, reporter=Quiet(None))
    assert not (tmp_path / "run").exists()
