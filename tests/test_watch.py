"""What TensorBoard is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny_shards import ALL, write_tiny_shards
from tests.toy import ToyNet
from train.cli.listener import TrainingListener
from train.engine import loop
from train.engine import run as run_room
from train.engine.run import prepare
from train.presets import build_config
from train.report.tensorboard import EventFiles
from train.run_folder import EVENTS


class Quiet:
    def say(self, line: str) -> None:
        pass

    def progress(self, *facts: object) -> None:
        pass


def test_a_run_leaves_curves_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_room, "build_network", lambda config, facts: ToyNet(config.tasks))
    shards = write_tiny_shards(tmp_path / "shards", train=((ALL, ALL),), val=((ALL,),))
    config = build_config({"mode": "asymmetric", "shards": str(shards), "out": str(tmp_path / "run"), "epochs": 2,
                           "device": "cpu", "log_every": 1, "measure_every": 1, "stream": {"micro_batch": 2},
                           "threshold": {"shared": 4}, "network": {"weights": "none"}})  # fmt: skip
    run = prepare(config, resume=False, stopping=lambda: False, reporter=Quiet())
    listener = TrainingListener(run.folder, 0, None, lambda line: None)
    loop.train(run, Quiet(), listener)
    listener.close()
    run.close()

    events = EventAccumulator(str(tmp_path / "run" / EVENTS))
    events.Reload()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_bytes().splitlines()]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    found = [(event.step, event.value) for event in events.Scalars("loss/depth/val")]
    assert found == [(line["step"], pytest.approx(line["val_losses"]["depth"])) for line in epochs]
    steps = [line for line in lines if line["kind"] == "step"]
    trained = {event.step: event.value for event in events.Scalars("loss/boxes/train")}
    assert trained == {
        line["step"]: pytest.approx(line["losses"]["boxes"]) for line in steps if "boxes" in line["losses"]
    }
    tags = set(events.Tags()["scalars"])
    assert {
        "speed/items_per_s",
        "speed/waiting",
        "coefficient/boxes",
        "learning rate/shared",
        "boxes/mAP50 (%)",
    } <= tags
    assert {"gradient norms on the shared part/depth", "gradient cosines on the shared part/boxes depth"} <= tags
    assert all(0 <= line["waiting"] <= 1 for line in steps)
    (name,) = events.Tags()["images"]
    assert [event.step for event in events.Images(name)] == [line["step"] for line in epochs]


def test_wandb_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"--wandb needs the extra `wandb`: pip install 'asymmetric-mtl\[wandb\]'"):
        EventFiles(tmp_path, at=0, wandb_project="p")
