"""`amtl-train` and `amtl-eval` as a user meets them: every mode end to end, every mistake one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from models.singletask import build_singletask
from shards.reader import ShardSet
from tests.tiny_shards import ALL, write_tiny_shards
from tests.toy import ToyNet
from train.cli import evaluate, train
from train.engine import initial_weights as initial
from train.engine import loop, outcome
from train.engine import run as run_room
from train.engine.checkpoint import load_checkpoint
from train.engine.initial_weights import pretrained_part
from train.engine.step import TrainingStep

SMALL = ("--backbone", "resnet18", "--width", "0.125", "--weights", "none", "--device", "cpu", "--batch-size", "2",
         "--precision", "fp32")  # fmt: skip
LACKING = ((ALL, ("segmentation",), ("steering", "depth")),)  # 7 items, one sample with all four labels


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("cli") / "shards", train=LACKING, val=((ALL, ("steering",)),))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (run_room, outcome):
        monkeypatch.setattr(room, "build_network", lambda config, facts: ToyNet(config.tasks))


def amtl_train(*arguments: object) -> Result:
    return CliRunner().invoke(train.main, [str(argument) for argument in arguments])


def amtl_eval(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate.main, [str(argument) for argument in arguments])


def one_line(result: Result, code: int) -> str:
    """The one line on stderr of a command that ended with this code."""
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    if code != 2 or not lines[0].startswith("Usage:"):
        assert len(lines) == 1, result.stderr
    return lines[-1]


MODES = {
    "asymmetric": (("--mode", "asymmetric", "--threshold", "shared=2", "--threshold", "depth=1"), 10),
    "symmetric": (("--mode", "symmetric"), 10),
    "symmetric, labels missing": (("--mode", "symmetric", "--allow-missing"), 10),
    "single": (("--mode", "single", "--network", "mtl", "--task", "boxes"), 3),
}


@pytest.mark.parametrize("case", MODES)
def test_a_mode_from_end_to_end(case: str, tiny: Path, tmp_path: Path):
    """The real network, on shards where samples lack labels."""
    arguments, metrics = MODES[case]
    out = tmp_path / "run"
    result = amtl_train(*arguments, "--shards", tiny, "--out", out, "--epochs", 1, *SMALL)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {
        "config.toml", "last.pt", "best.pt", "metrics.jsonl", "eval.json", "table.txt", "baselines.json", "pictures",
        "model-card.md", "tensorboard",
    }  # fmt: skip
    record = json.loads((out / "eval.json").read_bytes())
    assert len(record["metrics"]) == metrics
    assert all(row["baselines"] and row["better"] is not None for row in record["metrics"])
    assert record["weights"].startswith("scratch")
    assert record["counts"] == record["counts_at_end"]
    expected = {
        "asymmetric": (7, 7, {"shared": 3, "steering": 0, "segmentation": 0, "boxes": 0, "depth": 2}),
        "symmetric": (4, 1, {"all": 1}),
        "symmetric, labels missing": (7, 3, {"all": 2}),
        "single": (1, 1, {"all": 1}),
    }[case]
    assert tuple(record["counts"][name] for name in ("items", "images", "updates")) == expected
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_bytes().splitlines()]
    assert [line["kind"] for line in lines] == ["trained", "epoch"]
    assert f"labels in the split: {'steering 2, segmentation 2, ' if metrics == 10 else ''}boxes 1" in result.stdout
    for row in record["metrics"]:
        assert f"{row['task']}  " in result.stdout
    pictures = sorted((out / "pictures").glob("*.png"))
    assert len(pictures) == 2
    assert [path.stem for path in (out / "pictures" / "pieces").iterdir()] == [pictures[0].stem]
    named = {(task, kind, str(number), key) for task, kinds in record["extremes"].items()
             for kind, pairs in kinds.items() for number, (key, _) in enumerate(pairs, 1)}  # fmt: skip
    assert {tuple(path.stem.split(".")) for path in (out / "pictures" / "extremes").iterdir()} == named
    assert {task for task, *_ in named} == set(record["val_labels"])
    assert record["cost"]["parameters"] >= record["cost"]["parameters_used"] > 1e6
    assert 1e7 < record["peak_memory"]["process_bytes"] < 1e12
    assert set(record["parts"]) == set(record["val_labels"])
    assert not {"parts", "extremes"} & set(lines[-1]), "an epoch's line stays readable"
    with Image.open(pictures[0]) as picture:
        assert np.asarray(picture).std() > 10


@pytest.mark.parametrize("task", ALL)
def test_a_task_s_own_network_from_end_to_end(task: str, tmp_path: Path):
    """Trained, stopped and resumed, measured: as any other."""
    shards = write_tiny_shards(tmp_path / "shards", train=((ALL,),), val=((ALL,),))
    out = tmp_path / "run"
    command = ("--mode", "single", "--task", task, "--network", "stl", "--shards", shards, "--out", out, *SMALL)
    result = amtl_train(*command, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "NO PRETRAINED" not in result.stdout
    resumed = amtl_train(*command, "--epochs", 2, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "resuming after 1 micro-batches: epoch 2" in resumed.stdout
    record = json.loads((out / "eval.json").read_bytes())
    assert (record["network"], record["norm"], record["counts_at_end"]["updates"]) == ("stl", "own", {"all": 2})
    assert record["weights"].startswith("scratch: no weights were asked for" if task == "depth" else "scratch: no part")
    assert {row["task"] for row in record["metrics"]} == {task}
    evaluated = amtl_eval(out / "best.pt", "--shards", shards, "--device", "cpu", "--json", tmp_path / "eval.json")
    assert evaluated.exit_code == 0, evaluated.output
    assert json.loads((tmp_path / "eval.json").read_bytes())["val_losses"] == record["val_losses"]


def test_densedepth_says_that_its_encoder_starts_from_scratch(
    tiny: Path, tmp_path: Path, toy_network: None, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr(initial, "find_weights", lambda *what: (asked.append(what), (None, "scratch: no network"))[1])
    result = amtl_train("--mode", "single", "--task", "depth", "--shards", tiny, "--out", tmp_path / "run",
                        "--epochs", 1, "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert asked == [("densenet169", "auto")]
    assert "!!! NO PRETRAINED WEIGHTS: the encoder starts from scratch: no network; results will be" in result.stdout
    assert tomllib.loads((tmp_path / "run" / "config.toml").read_text())["network"]["weights"] == "none"


def test_pretrained_weights_reach_densedepth_s_encoder(tmp_path: Path):
    network = build_singletask("depth", size=256, classes=5, width=0.1)
    assert pretrained_part(network) is network.heads["depth"].encoder


def test_passed_over_samples_are_counted(tiny: Path, tmp_path: Path, toy_network: None):
    result = amtl_train("--mode", "symmetric", "--shards", tiny, "--out", tmp_path / "r", "--epochs", 1, *SMALL)
    assert "train: 1 of 3 samples" in result.stdout
    assert "2 passed over: they lack one of the four labels" in result.stdout


def test_a_threshold_that_an_epoch_does_not_fill_is_said(tiny: Path, tmp_path: Path, toy_network: None):
    result = amtl_train("--mode", "asymmetric", "--threshold", "shared=7", "--threshold", "depth=3", "--shards", tiny,
                        "--threshold", "boxes=99", "--out", tmp_path / "r", "--epochs", 2, *SMALL)  # fmt: skip
    assert "depth has 2 items an epoch and a threshold of 3: it steps once in 1.5 epochs; --thr" in result.stdout
    assert "a threshold of 99: it never steps within --epochs 2 and keeps its first weights; " in result.stdout
    assert "shared has" not in result.stdout


def test_a_loss_is_said_once_it_was_read_back_from_the_device():
    meter = loop.Meter(items=3, images=2, seconds=1.0)
    assert meter.facts(600, "items") == ["0:03:20 left of the run", "3.00 labels/s, order items", ""]
    meter.add_losses({"depth": [0.5, 1.0]})
    assert meter.facts(600, "items")[2] == "loss depth 0.75"


def test_the_coefficients_that_other_runs_gave_are_said(tiny: Path, tmp_path: Path, toy_network: None):
    amtl_train("--mode", "single", "--task", "depth", "--network", "mtl", "--shards", tiny, "--out", tmp_path / "d",
               "--epochs", 1, *SMALL)  # fmt: skip
    command = ("--shards", tiny, "--out", tmp_path / "r", "--epochs", 1, *SMALL, "--coefficients-from", tmp_path / "d")
    rest = ("--coefficient", "steering=1,segmentation=80,boxes=400")
    result = amtl_train("--mode", "asymmetric", *command, *rest)
    loss = json.loads((tmp_path / "d" / "eval.json").read_bytes())["val_losses"]["depth"]
    said = f"divided by its coefficient: steering 1, segmentation 80, boxes 400, depth {loss:.4g}"
    assert said in result.stdout
    lacking = one_line(amtl_train("--mode", "asymmetric", *command), 2)
    assert "needs a run of every task, got none of boxes, segmentation, steering: name one, or give" in lacking
    single = one_line(amtl_train("--mode", "single", "--task", "boxes", *command), 2)
    assert "--coefficients-from balances tasks, and mode single has one" in single


def test_the_effective_config_runs_again_unchanged(tiny: Path, tmp_path: Path, toy_network: None):
    first = amtl_train("--mode", "asymmetric", "--shards", tiny, "--out", tmp_path / "a", "--epochs", 1, *SMALL)
    assert first.exit_code == 0, first.output
    shutil.move(tmp_path / "a", tmp_path / "b")
    again = amtl_train("--config", tmp_path / "b" / "config.toml")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "a" / "config.toml").read_bytes() == (tmp_path / "b" / "config.toml").read_bytes()
    ours, theirs = (load_checkpoint(tmp_path / name / "last.pt")["weights"] for name in "ab")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_that_cannot_be_had_are_said_and_recorded(
    tiny: Path, tmp_path: Path, toy_network: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(initial, "find_weights", lambda name, weights: (None, "scratch: no network"))
    out = tmp_path / "run"
    result = amtl_train("--mode", "single", "--task", "depth", "--network", "mtl", "--shards", tiny, "--out", out,
                        "--epochs", 1, "--backbone", "resnet18", "--device", "cpu")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "!!! NO PRETRAINED WEIGHTS: the backbone starts from scratch: no network" in result.stdout
    config = tomllib.loads((out / "config.toml").read_text())
    assert (config["network"]["weights"], config["network"]["norm"]) == ("none", "group")
    assert json.loads((out / "eval.json").read_bytes())["weights"] == "scratch: no network"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_keeps_the_work_and_the_same_command_goes_on(
    number: signal.Signals, tiny: Path, tmp_path: Path, toy_network: None, monkeypatch: pytest.MonkeyPatch
):
    original = TrainingStep.run
    calls: list[str] = []

    def signalled(self: TrainingStep, group: Any, batch: Any, where: str) -> None:
        calls.append(where)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        original(self, group, batch, where)

    monkeypatch.setattr(TrainingStep, "run", signalled)
    handler = signal.getsignal(number)
    command = ("--mode", "asymmetric", "--shards", tiny, "--out", tmp_path / "run", "--epochs", 1, "--weights", "none",
               "--device", "cpu", "--micro-batch", 1)  # fmt: skip
    line = one_line(amtl_train(*command), 75)
    assert line == "amtl-train: stopped by a signal; the same command with --resume goes on"
    assert signal.getsignal(number) == handler
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["items"] == 3
    result = amtl_train(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert "resuming after 3 micro-batches: epoch 1, 3 items in" in result.stdout
    assert calls[2:4] == ["epoch 1/1, micro-batch 3", "epoch 1/1, micro-batch 4"]


def test_stopped_before_the_first_checkpoint_it_starts_anew(
    tiny: Path, tmp_path: Path, toy_network: None, monkeypatch: pytest.MonkeyPatch
):
    command = ("--mode", "symmetric", "--shards", tiny, "--out", tmp_path / "run", "--epochs", 1, *SMALL)
    with monkeypatch.context() as patch:
        original = loop.run_baselines
        patch.setattr(loop, "run_baselines", lambda *a: os.kill(os.getpid(), signal.SIGTERM) or original(*a))
        one_line(amtl_train(*command), 75)
    assert not (tmp_path / "run" / "last.pt").exists()
    result = amtl_train(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert "stopped before its first checkpoint: it starts from the beginning" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "mode must be one of asymmetric, symmetric, single, got None: give --mode"),
        (("--mode", "both"), "'both' is not one of 'asymmetric', 'symmetric', 'single'"),
        (
            ("--mode", "symmetric", "--network", "stl"),
            "--network stl trains one task in mode single: give --network mtl",
        ),
        (("--mode", "single", "--network", "mtl"), "mode single needs --task"),
        (("--mode", "asymmetric", "--task", "depth"), "mode asymmetric trains all tasks"),
        (("--mode", "asymmetric", "--threshold", "shared"), "must be PART=N, got shared"),
        (("--mode", "asymmetric", "--threshold", "shared=many"), "must be PART=N, got shared=many"),
        (("--mode", "asymmetric", "--threshold", "neck=3"), "unknown key threshold.neck: known are shared, steering"),
        (("--mode", "asymmetric", "--epochs", "0"), "epochs must be at least 1"),
        (("--mode", "asymmetric", "--width", "-1"), "network.width must be above 0"),
        (("--mode", "asymmetric", "--config", "/nowhere.toml"), "got /nowhere.toml: No such file or directory"),
        (("--mode", "asymmetric", "--shards", "/nowhere"), "got /nowhere: there is no such folder"),
        (("--mode", "asymmetric", "--init-from", "/nowhere.pt"), "got /nowhere.pt: there is no such file"),
        (("--mode", "asymmetric", "--steps", "3"), "No such option"),
        (("--mode", "asymmetric", "--keep-labels", "boxes"), "must be TASK=X, got boxes"),
        (("--mode", "asymmetric", "--best", "mIoU"), "best must be one of loss, steering MAE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_a_line_and_2(arguments: tuple[str, ...], message: str):
    assert message in one_line(amtl_train(*arguments), 2)


def test_an_unknown_key_of_a_config_is_wrong_usage(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('mode = "asymmetric"\n[loss]\nfocus = 1\n')
    assert "unknown key loss.focus" in one_line(amtl_train("--config", path), 2)


def write_only_depth(folder: Path) -> Path:
    return write_tiny_shards(folder, train=((("depth",),),), val=())


def cut_short(folder: Path) -> Path:
    write_tiny_shards(folder, train=((ALL,),), val=())
    os.truncate(folder / "train-000000.tar", 20_000)
    return folder


def altered(folder: Path) -> Path:
    write_tiny_shards(folder, train=((ALL,),), val=())
    (ref,) = ShardSet(folder).samples("train")
    with (folder / ref.shard).open("r+b") as file:
        file.seek(ref.sample.members["image.jpg"].offset + 1000)
        file.write(b"\0\1\2\3")
    return folder


def unfinished(folder: Path) -> Path:
    write_tiny_shards(folder)
    (folder / "manifest.json").rename(folder / "manifest.previous.json")
    return folder


def other_grid(folder: Path) -> Path:
    rules = {"image": {"size": 256}, "depth": {"max_m": 123.0}, "boxes": {"grid": 4, "slots": 10}}
    return write_tiny_shards(folder, rules=rules)


@pytest.mark.parametrize(
    ("prepared", "mode", "message"),
    [
        (unfinished, "asymmetric", "manifest.json is missing: the set is not finished"),
        (lambda folder: write_tiny_shards(folder, train=()), "asymmetric", "has no train sample"),
        (write_only_depth, "symmetric", "no train sample of .* has all four labels .*depth 1.*--allow-missing"),
        (write_only_depth, "single", "no train sample of .* has a label of boxes"),
        (cut_short, "asymmetric", "train-000000.tar must have .* bytes, got 20000: a2d2-prep shard"),
        (altered, "asymmetric", "train-000000.tar fails its checksum at 2018.*.image.jpg: run a2d2-prep verify"),
        (other_grid, "asymmetric", r"must have grid and slots \(8, 10\), got \(4, 10\)"),
    ],
    ids=["no manifest", "no train", "not all four", "not the task", "cut short", "altered", "grid"],
)
def test_data_that_cannot_be_trained_on_is_a_line_and_1(prepared, mode, message, tmp_path: Path, toy_network: None):
    task = ("--task", "boxes", "--network", "mtl") if mode == "single" else ()
    shards = prepared(tmp_path / "shards")
    line = one_line(amtl_train("--mode", mode, *task, "--shards", shards, "--out", tmp_path / "run", *SMALL), 1)
    assert line.startswith("amtl-train: ")
    assert re.search(message, line), line


def test_run_folders_are_kept_apart(tiny: Path, tmp_path: Path, toy_network: None):
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    command = ("--shards", tiny, "--out", out, "--epochs", 1, *SMALL)
    assert "holds no run to resume" in one_line(amtl_train("--mode", "symmetric", *command, "--resume"), 1)
    assert amtl_train("--mode", "symmetric", *command).exit_code == 0
    line = one_line(amtl_train("--mode", "symmetric", *command), 1)
    assert line == f"amtl-train: {out} holds a run (config.toml): give --resume to go on with it, or another --out"
    line = one_line(amtl_train("--mode", "asymmetric", *command, "--resume"), 1)
    assert "holds a run of mode symmetric, got --mode asymmetric" in line
    line = one_line(amtl_train("--mode", "symmetric", *command, "--seed", 3, "--resume"), 1)
    assert "this run differs: seed (0 there, 3 here)" in line
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny: Path, tmp_path: Path):
    line = one_line(
        amtl_train("--mode", "asymmetric", "--shards", tiny, "--out", tmp_path / "r", "--device", "cuda"), 1
    )
    assert "needs a GPU" in line
    assert not (tmp_path / "r").exists()


def test_weights_for_a_network_that_takes_none(tiny: Path, tmp_path: Path):
    line = one_line(amtl_train("--mode", "single", "--task", "boxes", "--shards", tiny, "--out", tmp_path / "r",
                               "--weights", "resnet.pth"), 1)  # fmt: skip
    assert line == "amtl-train: weights must be auto or none for YOLOv1, got resnet.pth: no part of it is pretrained"
    assert not (tmp_path / "r").exists()


def test_weights_that_do_not_fit(tiny: Path, tmp_path: Path):
    line = one_line(amtl_train("--mode", "asymmetric", "--shards", tiny, "--out", tmp_path / "r", "--weights",
                               tmp_path / "none.pth"), 1)  # fmt: skip
    assert "backbone weights must be auto, none or a state dict" in line


def test_a_label_that_no_train_sample_has(tmp_path: Path, toy_network: None):
    shards = write_tiny_shards(tmp_path / "shards", train=((("segmentation",), ("steering",)),), val=((ALL,),))
    result = amtl_train("--mode", "asymmetric", "--shards", shards, "--out", tmp_path / "run", "--epochs", 1, *SMALL)
    assert result.exit_code == 0, result.output
    assert "no train sample has a label of boxes: its head is not trained, and not measured" in result.stdout
    rows = json.loads((tmp_path / "run" / "eval.json").read_bytes())["metrics"]
    assert {row["task"] for row in rows} == {"steering", "segmentation"}


def test_evaluation_of_a_checkpoint_gives_the_run_s_own_numbers(tiny: Path, tmp_path: Path, toy_network: None):
    run = tmp_path / "run"
    assert amtl_train("--mode", "asymmetric", "--shards", tiny, "--out", run, "--epochs", 1, *SMALL).exit_code == 0
    result = amtl_eval(run / "best.pt", "--shards", tiny, "--device", "cpu", "--json", tmp_path / "eval.json")
    assert result.exit_code == 0, result.output
    ours, theirs = (json.loads((folder / "eval.json").read_bytes()) for folder in (tmp_path, run))
    for name in ("metrics", "val_losses", "val_loss", "counts", "epoch", "manifest_sha256"):
        assert ours[name] == theirs[name], name
    assert result.stdout.count("\n") > 14
    assert "depth by true distance" in result.stdout
    assert "note:" not in result.stdout
    on_train = amtl_eval(run / "last.pt", "--shards", tiny, "--device", "cpu", "--split", "train")
    assert "on 3 samples of split train" in on_train.stdout


def test_evaluation_by_scene_in_one_pass(tiny: Path, tmp_path: Path, toy_network: None):
    run, found = tmp_path / "run", tmp_path / "eval.json"
    (tmp_path / "scale.toml").write_text("[loss]\nvariance_focus = 1\n")
    command = ("--mode", "asymmetric", "--shards", tiny, "--out", run, "--config", tmp_path / "scale.toml")
    assert amtl_train(*command, "--epochs", 1, *SMALL).exit_code == 0
    result = amtl_eval(run / "best.pt", "--shards", tiny, "--device", "cpu", "--by", "camera", "--json", found)
    assert result.exit_code == 0, result.output
    record = json.loads(found.read_bytes())
    (camera,) = record["groups"]
    assert record["groups"][camera]["metrics"] == record["metrics"]
    assert f"camera {camera}: 2 samples (steering 2, segmentation 1, boxes 1, depth 1)" in result.stdout
    assert "note: the depth loss had variance_focus 1," in result.stdout
    assert "errors in metres, AbsRel and delta1 mean nothing here" in (run / "table.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.pt",), 2, "File 'none.pt' does not exist"),
        ((__file__, "--split", "nothing"), 2, "'nothing' is not one of"),
        ((), 2, "Missing argument"),
    ],
    ids=["absent", "split", "usage"],
)
def test_evaluation_s_mistakes(arguments: tuple[str, ...], code: int, message: str, tiny: Path):
    assert message in one_line(amtl_eval(*arguments, "--shards", tiny), code)
