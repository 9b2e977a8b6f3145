"""Checkpoints, and going on from them: bitwise the run that was never stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_shards import ALL, TRAIN, write_tiny_shards
from tests.toy import ToyHead, ToyNet
from train.config import RunConfig, to_document
from train.data.open_set import open_shards
from train.engine import loop as loop_room
from train.engine import run as run_room
from train.engine.checkpoint import (
    BEST,
    LAST,
    CheckpointError,
    better_than,
    check_data,
    check_resumable,
    config_differences,
    load_checkpoint,
    save_checkpoint,
)
from train.engine.loop import train
from train.engine.run import Run, prepare
from train.presets import build_config
from train.report.figures import training_losses
from train.run_folder import METRICS_FILE, metrics_lines
from train.stop import Stopped

TINY_STEPS = {"shared": 4, "steering": 2, "segmentation": 3, "boxes": 2, "depth": 3}
RATES = {"shared": 1e-2, "steering": 1e-2, "segmentation": 1e-2, "boxes": 1e-2, "depth": 1e-2}


class Quiet:
    """Keeps the lines, and asks for a stop after a number of training steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.lines: list[str] = []
        self.left = stop_after

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, what: str, done: int, total: int, facts: Any) -> None:
        assert 0 < done <= total
        assert all(isinstance(fact, str) for fact in facts())
        if self.left is not None and "validation" not in what:
            self.left -= 1

    def stopping(self) -> bool:
        return self.left is not None and self.left <= 0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("checkpoint") / "shards", train=(TRAIN[0],), val=((ALL,),))


@pytest.fixture(autouse=True)
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_room, "build_network", lambda config, facts: ToyNet(config.tasks))


def config_of(mode: str, tiny: Path, out: Path, **changes: Any) -> RunConfig:
    rates = RATES if mode == "asymmetric" else {"all": 1e-2}
    own = {"threshold": TINY_STEPS} if mode == "asymmetric" else {}
    document = {"mode": mode, "shards": str(tiny), "out": str(out), "epochs": 2, "learning_rate": rates, **own,
                "device": "cpu", "network": {"name": "mtl", "weights": "none"}, "log_every": 3, "precision": "fp32",
               "measure_every": 2, "stream": {"micro_batch": 1}}  # fmt: skip
    return build_config(document, changes)


def go(config: RunConfig, *, resume: bool = False, stop_after: int | None = None) -> tuple[Run, Quiet]:
    """Train until the end, or until stopped."""
    reporter = Quiet(stop_after)
    run = prepare(config, resume=resume, stopping=reporter.stopping, reporter=reporter)
    try:
        train(run, reporter)
    except Stopped:
        assert stop_after is not None
    finally:
        run.close()
    return run, reporter


def assert_same(first: Any, second: Any, where: str = "") -> None:
    """Bitwise, but for seconds."""
    assert type(first) is type(second), where
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            if "seconds" not in str(key):
                assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


CASES = {
    "asymmetric items": ("asymmetric", {}),
    "asymmetric samples": ("asymmetric", {"stream": {"order": "samples", "micro_batch": 2}}),
    "balanced by epoch": ("asymmetric", {"balance": {"method": "epoch"}}),
    "learnt balance": ("asymmetric", {"balance": {"method": "uncertainty"}, "stream": {"repeat_rare": 2}}),
    "pcgrad": ("asymmetric", {"balance": {"method": "pcgrad"}, "stream": {"micro_batch": 2}}),
    "symmetric": ("symmetric", {"stream": {"batch_size": 2, "allow_missing": True}}),
    "symmetric pcgrad": ("symmetric", {"balance": {"method": "pcgrad"}, "stream": {"batch_size": 2, "micro_batch": 1}}),
    "single": ("single", {"task": "depth", "stream": {"batch_size": 2}}),
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_any_step_and_resumed_is_the_same_run(case: str, tiny: Path, tmp_path: Path):
    mode, changes = CASES[case]
    uncut, _ = go(config_of(mode, tiny, tmp_path / "uncut", **changes))
    steps = uncut.progress.groups
    expected = load_checkpoint(tmp_path / "uncut" / LAST)
    best = load_checkpoint(tmp_path / "uncut" / BEST)
    lines = (tmp_path / "uncut" / "metrics.jsonl").read_bytes().splitlines()
    stops = range(1, steps + 1) if case in ("asymmetric items", "symmetric") else {2, steps // 2, steps - 1}
    for stop_after in stops:  # the epochs' ends too
        out = tmp_path / f"cut{stop_after}"
        out.mkdir()
        shutil.copy(tmp_path / "uncut" / "baselines.json", out)  # they are not what this is about
        config = config_of(mode, tiny, out, **changes)
        stopped, _ = go(config, stop_after=stop_after)
        assert stopped.progress.groups == stop_after
        held = build_config(load_checkpoint(out / LAST)["config"])
        go(held, resume=True)
        for found, wanted in ((load_checkpoint(out / LAST), expected), (load_checkpoint(out / BEST), best)):
            found["config"]["out"] = wanted["config"]["out"]
            assert_same(found, wanted)
        epochs = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
        assert_same(
            {line["epoch"]: line for line in epochs if line["kind"] == "epoch"},
            {line["epoch"]: line for line in map(json.loads, lines) if line["kind"] == "epoch"},
        )


def test_only_the_labelled_head_runs(tiny: Path, tmp_path: Path):
    run, _ = go(config_of("asymmetric", tiny, tmp_path / "run", epochs=1))
    network = run.objective.network
    assert set(network.images) == {1}
    assert sorted(network.asked[:11]) == ["boxes"] * 3 + ["depth"] * 3 + ["segmentation"] * 3 + ["steering"] * 2
    assert run.progress.total_items == 11


def test_samples_order_reads_an_image_once(tiny: Path, tmp_path: Path):
    run, _ = go(
        config_of("asymmetric", tiny, tmp_path / "run", epochs=1, stream={"order": "samples", "micro_batch": 8})
    )
    assert run.progress.total_items == 11
    assert run.progress.images == 3, "no step of the shared part falls between two labels of an image"


def test_lines_after_the_checkpoint_are_of_steps_done_again(tiny: Path, tmp_path: Path):
    """A kill leaves lines beyond last.pt, the last one cut short."""
    out = tmp_path / "run"
    config = config_of("asymmetric", tiny, out)
    go(config, stop_after=7)
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind":"step","epoch":1,"step":9,"losses":{}}\n{"kind":"st')
    run, _ = go(build_config(load_checkpoint(out / LAST)["config"]), resume=True)
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert steps == sorted(steps)
    assert steps.count(9) == 1
    assert run.progress.total_items == 22


def test_a_finished_run_can_be_given_more_epochs(tiny: Path, tmp_path: Path):
    go(config_of("single", tiny, tmp_path / "run", task="boxes", epochs=1))
    more = build_config(load_checkpoint(tmp_path / "run" / LAST)["config"], {"epochs": 2})
    run, reporter = go(more, resume=True)
    assert run.progress.epoch == 2
    assert reporter.lines[1].startswith("resuming after 3 micro-batches: epoch 2, 0 items in")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"seed \(0 there, 1 here\)"),
        ({"network": {"width": 0.5}}, r"network.width \(1.0 there, 0.5 here\)"),
        ({"threshold": {"depth": 5}}, r"threshold.depth \(3 there, 5 here\)"),
    ],
    ids=["seed", "width", "threshold"],
)
def test_another_config_is_refused_with_the_difference(change, message, tiny: Path, tmp_path: Path):
    config = config_of("asymmetric", tiny, tmp_path / "run")
    go(config, stop_after=1)
    held = load_checkpoint(tmp_path / "run" / LAST)["config"]
    with pytest.raises(ValueError, match=rf"last.pt cannot be resumed, as this run differs: {message}"):
        go(build_config(held, change), resume=True)


def test_another_data_set_is_refused(tiny: Path, tmp_path: Path):
    config = config_of("asymmetric", tiny, tmp_path / "run")
    go(config, stop_after=1)
    other = write_tiny_shards(tmp_path / "other", train=((ALL,),))
    held = load_checkpoint(tmp_path / "run" / LAST)["config"]
    with pytest.raises(ValueError, match=r"this run differs: the data set \(manifest \w{12} there, \w{12} in .*other"):
        go(build_config(held, {"shards": str(other)}), resume=True)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_the_training_curve_after_a_stop_is_that_of_whole_epochs(tiny: Path, tmp_path: Path, stop_after: int):
    """Each item counts once, whether it was trained before the stop or after it."""
    whole, parts = (config_of("asymmetric", tiny, tmp_path / name) for name in ("whole", "parts"))
    go(whole)
    stopped, _ = go(parts, stop_after=stop_after)
    go(stopped.config, resume=True)
    curves = [training_losses(metrics_lines(Path(config.out) / METRICS_FILE)) for config in (whole, parts)]
    assert curves[0].keys() == curves[1].keys() >= {"depth", "boxes"}
    for task, points in curves[0].items():
        assert [epoch for epoch, _ in curves[1][task]] == [1, 2]
        np.testing.assert_allclose(curves[1][task], points, rtol=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def spoilt(self: ToyHead, maps: torch.Tensor) -> torch.Tensor:
        return original(self, maps) * (float("nan") if self.task == "depth" else 1)

    original = ToyHead.forward
    monkeypatch.setattr(ToyHead, "forward", spoilt)
    with pytest.raises(
        ValueError, match=r"depth loss must be finite, got nan at epoch 1/2, micro-batch \d+, sample 2018\d+_"
    ):
        go(config_of("asymmetric", tiny, tmp_path / "run"))
    assert not (tmp_path / "run" / LAST).exists(), "weights of before are not overwritten"


def test_an_empty_val_split_trains_and_says_so(tmp_path: Path):
    shards = write_tiny_shards(tmp_path / "shards", train=((ALL,),), val=())
    run, reporter = go(config_of("symmetric", shards, tmp_path / "run"))
    assert run.progress.epoch == 2
    assert any("val split is empty" in line for line in reporter.lines)
    assert load_checkpoint(tmp_path / "run" / BEST)["progress"]["epoch"] == 2


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / LAST
    save_checkpoint(path, {"weights": {"w": torch.ones(3)}, "progress": {"best": None}})
    assert load_checkpoint(path)["weights"]["w"].tolist() == [1, 1, 1]

    def killed(value: Any, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"weights": {}})
    assert load_checkpoint(path)["weights"]["w"].tolist() == [1, 1, 1]


def test_older_checkpoints_stay_as_many_as_asked_for(tmp_path: Path):
    for number in range(5):
        save_checkpoint(tmp_path / LAST, {"progress": number}, older=2)
    held = {path.name: load_checkpoint(path)["progress"] for path in tmp_path.iterdir()}
    assert held == {"last.pt": 4, "last-1.pt": 3, "last-2.pt": 2}


def test_the_best_is_chosen_by_what_was_asked_for(tiny: Path, tmp_path: Path):
    run, _ = go(config_of("asymmetric", tiny, tmp_path / "run", best="segmentation mIoU"))
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines())
    epochs = [line for line in lines if line["kind"] == "epoch"]
    values = [row["value"] for line in epochs for row in line["metrics"] if row["metric"] == "mIoU"]
    assert run.progress.best == -max(values)
    assert load_checkpoint(tmp_path / "run" / BEST)["progress"]["epoch"] == 1 + values.index(max(values))
    with pytest.raises(ValueError, match=r"best must be one of loss, steering MAE, .*, got 'mIoU'"):
        go(config_of("asymmetric", tiny, tmp_path / "other", best="mIoU"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is no file"), (b"", "cannot be read"), (b"not a zip", "cannot be read"), ("other", "not written by")],
    ids=["absent", "empty", "text", "foreign"],
)
def test_what_is_no_checkpoint_is_one_line(content, message, tmp_path: Path):
    path = tmp_path / BEST
    if content == "other":
        torch.save({"state_dict": torch.ones(1)}, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_another_class_list_is_refused(tiny: Path):
    shards = open_shards(tiny)
    facts = run_room.network_facts(shards.size_px, shards.max_m, False, "scratch")
    check_data(facts, shards, Path(BEST))
    for change, message in (
        ({"segmentation_classes": facts["segmentation_classes"][:-1]}, r"it has 37, the data 38; .* it lacks \['Rain"),
        ({"box_classes": ["Boat", *facts["box_classes"]]}, r"only it has \['Boat'\]"),
        ({"size_px": 512}, "image size of .*: it has 512, the data 256"),
    ):
        with pytest.raises(ValueError, match=message):
            check_data({**facts, **change}, shards, Path(BEST))


def test_differences_leave_out_what_changes_no_weight(tiny: Path, tmp_path: Path):
    there = to_document(config_of("asymmetric", tiny, tmp_path))
    here = {**there, "out": "x", "workers": 3, "device": "cuda", "epochs": 9, "shards": "y", "log_every": 1}
    assert config_differences(there, here) == []
    assert config_differences(there, {**here, "task": "depth"}) == ["task (None there, depth here)"]


@pytest.mark.parametrize(
    ("value", "best", "expected"),
    [(1.0, None, True), (1.0, 1.0, False), (0.9, 1.0, True), (None, None, False), (float("nan"), 1.0, False)],
)
def test_the_best_is_the_lowest(value, best, expected):
    assert better_than(value, best) is expected


@pytest.mark.parametrize(
    "error", [RuntimeError("[enforce fail] . PytorchStreamWriter failed"), OSError(28, "No space left")]
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / LAST
    save_checkpoint(path, {"weights": {}, "progress": {"best": None}})
    before = path.read_bytes()

    def fail(_: Any, file: Any) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match=r"last.pt cannot be written: (the disk is full|No space left)"):
        save_checkpoint(path, {"weights": {}, "progress": {"best": None}})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [LAST]


def test_a_full_disk_within_an_epoch_is_tried_again(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every second checkpoint within the epoch fails; the run comes to its end with the weights of a quiet one."""
    quiet, _ = go(config_of("asymmetric", tiny, tmp_path / "quiet", epochs=1))
    original, calls = save_checkpoint, []

    def sometimes(path: Path, checkpoint: Any, older: int = 0) -> None:
        calls.append(path.name)
        if 0 < checkpoint["progress"]["items"] < quiet.progress.total_items and len(calls) % 2:
            raise CheckpointError(f"checkpoint {path} cannot be written: full")
        original(path, checkpoint, older)

    monkeypatch.setattr(run_room, "save_checkpoint", sometimes)
    run, reporter = go(config_of("asymmetric", tiny, tmp_path / "run", epochs=1, checkpoint_minutes=1e-9))
    assert sum("the next try is in" in line for line in reporter.lines) >= 2
    for name, weight in run.objective.network.state_dict().items():
        assert torch.equal(weight, quiet.objective.network.state_dict()[name]), name


def test_a_run_that_ended_before_its_first_step_blocks_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = config_of("asymmetric", tiny, tmp_path / "run", epochs=1)
    monkeypatch.setattr(loop_room, "run_baselines", lambda run, reporter: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(config)
    assert (tmp_path / "run" / "config.toml").exists()
    monkeypatch.undo()
    monkeypatch.setattr(run_room, "build_network", lambda config, facts: ToyNet(config.tasks))
    go(config)
    with pytest.raises(ValueError, match="holds a run"):
        go(config)


def test_a_checkpoint_from_before_a_setting_can_be_resumed(tiny: Path, tmp_path: Path):
    config = config_of("asymmetric", tiny, tmp_path / "run")
    go(config, stop_after=1)
    path = tmp_path / "run" / LAST
    held = load_checkpoint(path)
    config = build_config(held["config"])
    del held["config"]["stream"]["require_all"]
    check_resumable(held, config, held["manifest_sha256"], path)


def test_gradients_that_no_step_has_used_are_said(tiny: Path, tmp_path: Path):
    _, reporter = go(config_of("asymmetric", tiny, tmp_path / "run", epochs=1))
    assert any("training ended with gradients that no step has used, of items: shared 3" in line
               for line in reporter.lines)  # fmt: skip
