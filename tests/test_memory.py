"""Out of memory in training: the step is undone, and the run goes on in smaller groups with the same result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from shards.settings import read_toml
from tests.tiny_shards import write_tiny_shards
from tests.toy import ToyNet
from train.config import RunConfig
from train.engine import run as run_room
from train.engine.loop import train_epoch
from train.engine.memory import Undo
from train.engine.objective import Objective
from train.engine.run import Run, prepare
from train.presets import build_config

RATES = dict.fromkeys(("shared", "steering", "segmentation", "boxes", "depth", "all"), 1e-3)
THRESHOLDS = {"shared": 9, "steering": 2, "segmentation": 3, "boxes": 2, "depth": 3}
CASES: dict[str, tuple[dict[str, Any], int, int]] = {  # with images of a group, and how many fit
    "asymmetric": ({"mode": "asymmetric", "stream": {"micro_batch": 4}}, 4, 2),
    "asymmetric, an odd group": ({"mode": "asymmetric", "stream": {"micro_batch": 5}}, 5, 2),
    "sample norm": ({"mode": "asymmetric", "stream": {"micro_batch": 4}, "network": {"norm": "sample"}}, 4, 1),
    "pcgrad": ({"mode": "asymmetric", "stream": {"micro_batch": 4}, "balance": {"method": "pcgrad"}}, 4, 1),
    "learnt": ({"mode": "asymmetric", "stream": {"micro_batch": 4}, "balance": {"method": "uncertainty"}}, 4, 2),
    "symmetric": ({"mode": "symmetric", "stream": {"batch_size": 4, "micro_batch": 4, "allow_missing": True}}, 4, 2),
}


class Lines:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def progress(self, *_: object) -> None:
        pass


class Limited(Objective):
    """Runs out of memory where more than `limit` images or rows come to the place named `fails`."""

    limit, fails = 10**6, ""

    def features(self, batch: Any) -> Any:
        self._check("shared part", len(batch.keys))
        return super().features(batch)

    def losses(self, task: str, output: Any, label: Any) -> Any:
        self._check("head", len(output))
        found = super().losses(task, output, label)
        if self.fails == "backward":
            found.register_hook(lambda gradient: self._check("backward", len(gradient)))
        return found

    def _check(self, where: str, count: int) -> None:
        if where == self.fails and count > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory, in {where}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("memory") / "shards")


@pytest.fixture(autouse=True)
def limited_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def network(config: RunConfig, facts: object) -> ToyNet:
        norm = "sample" if config.network.norm == "sample" else None
        return ToyNet(config.tasks, channels=8, norm=norm).double()

    monkeypatch.setattr(run_room, "build_network", network)
    monkeypatch.setattr(run_room, "Objective", Limited)


def run_of(case: str, tiny: Path, out: Path, lines: Lines) -> Run:
    changes = CASES[case][0]
    own = {"threshold": THRESHOLDS} if changes["mode"] == "asymmetric" else {}
    base = {"shards": str(tiny), "out": str(out), "epochs": 1, "learning_rate": RATES, "device": "cpu", **own,
            "precision": "fp32", "measure_every": 1, "network": {"weights": "none"}}  # fmt: skip
    run = prepare(build_config(base, changes), resume=False, stopping=lambda: False, reporter=lines)
    run.steps.undo = Undo(on=True)
    return run


@pytest.mark.parametrize("fails", ["shared part", "head", "backward"])
@pytest.mark.parametrize("case", CASES)
def test_the_run_goes_on_in_smaller_groups_with_the_same_weights(
    case: str, fails: str, tiny: Path, tmp_path: Path
) -> None:
    _, images, fit = CASES[case]
    states = []
    for disturbed in (False, True):
        lines, out = Lines(), tmp_path / str(disturbed)
        run = run_of(case, tiny, out, lines)
        if disturbed:
            assert isinstance(run.objective, Limited)
            run.objective.limit, run.objective.fails = fit, fails
        train_epoch(run, lines)
        run.close()
        states.append((run, lines.said, out))
    (whole, before, _), (cut, after, out) = states
    smaller = max(count for count in range(1, images) if images % count == 0)
    if fails == "shared part":
        assert any(f"--micro-batch {smaller}," in line for line in after)
        assert read_toml(out / "config.toml")["stream"]["micro_batch"] <= smaller
    assert not any("memory" in line for line in before)
    assert cut.progress.items == whole.progress.items
    assert cut.steps.updates == whole.steps.updates
    for (name, ours), theirs in zip(
        cut.objective.network.state_dict().items(), whole.objective.network.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11, msg=name)


def test_one_image_that_does_not_fit_ends_the_run(tiny: Path, tmp_path: Path) -> None:
    lines = Lines()
    run = run_of("asymmetric", tiny, tmp_path, lines)
    assert isinstance(run.objective, Limited)
    run.objective.limit, run.objective.fails = 0, "shared part"
    with pytest.raises(torch.OutOfMemoryError, match="shared part"):
        train_epoch(run, lines)
    run.close()
    assert [line[-len("results") :] for line in lines.said if "--micro-batch" in line] == ["results", "results"]
