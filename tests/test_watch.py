"""What TensorBoard is given."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny_shards import ALL, write_tiny_shards
from tests.toy import ToyNet
from train.cli.listener import TrainingListener
from train.engine import loop
from train.engine import run as run_room
from train.engine.run import prepare
from train.presets import build_config
from train.report.tensorboard import EventFiles, check_wandb
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
                           "precision": "fp32",
                           "threshold": {"shared": 4}, "network": {"weights": "none"}})  # fmt: skip
    run = prepare(config, resume=False, stopping=lambda: False, reporter=Quiet())
    listener = TrainingListener(run.folder, 0, None, {}, lambda line: None)
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


class FakeWandb(ModuleType):
    """Weights & Biases without a network: it remembers how runs were started."""

    def __init__(self, api_key: str | None) -> None:
        super().__init__("wandb")
        self.api = SimpleNamespace(api_key=api_key)
        self.util = SimpleNamespace(generate_id=lambda: f"id{len(self.started)}")
        self.started: list[dict[str, Any]] = []

    def init(self, **options: Any) -> None:
        self.started.append(options)


@pytest.mark.parametrize(("module", "message"), [
    (None, r"--wandb needs the extra `wandb`: pip install 'asymmetric-mtl\[wandb\]'"),
    (FakeWandb(None), r"--wandb needs a key: run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline"),
], ids=["not installed", "no key, and nobody to ask"])  # fmt: skip
def test_wandb_that_cannot_be_used_is_one_line(module: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(sys, "stdin", StringIO())
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(ValueError, match=message):
        check_wandb()


def test_a_resumed_run_goes_on_with_its_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb("key")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    check_wandb()
    for _ in range(2):
        EventFiles(tmp_path, at=0, wandb_project="p", config={"seed": 3}).close()
    assert [(run["id"], run["resume"], run["config"]) for run in fake.started] == [("id0", "allow", {"seed": 3})] * 2
