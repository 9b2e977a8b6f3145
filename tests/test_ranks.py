"""Several processes train as one does: the same weights to rounding, and what one leaves the other goes on with."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.reader import ShardSet
from tests import ranked, ranked_evaluation
from tests.tiny_shards import ALL, TRAIN, write_tiny_shards
from train.engine.checkpoint import load_checkpoint
from train.engine.distributed import ProcessGroup, local_device

ROOT = Path(__file__).parents[1]


def torchrun(*arguments: object, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
               *map(str, arguments)]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The states of every case after two processes trained it."""
    out = tmp_path_factory.mktemp("ranks") / "states.pt"
    result = torchrun("-m", "tests.ranked", out)
    assert result.returncode == 0, result.stderr
    states: dict[str, Any] = torch.load(out, weights_only=True)
    return states


def assert_close(first: Any, second: Any, where: str = "") -> None:
    if isinstance(first, Mapping):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_close(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12, msg=lambda text: f"{where}: {text}")
    elif isinstance(first, float):
        assert first == pytest.approx(second, abs=1e-12), where
    elif not isinstance(first, list):
        assert first == second, where


@pytest.mark.parametrize("case", ranked.CASES)
def test_two_processes_give_the_weights_of_one(case: str, of_two: dict[str, Any]) -> None:
    for theirs, ours in zip(of_two[case], ranked.states(case, ProcessGroup()), strict=True):
        assert_close(theirs, ours)


@pytest.mark.parametrize("case", ranked.CASES)
def test_one_process_goes_on_where_two_stopped(case: str, of_two: dict[str, Any]) -> None:
    middle, end = of_two[case]
    steps = ranked.steps_of(case, ProcessGroup())
    groups = ranked.groups_of(ranked.config_of(case), steps)
    steps.objective.network.load_state_dict(middle["weights"])
    steps.load_state_dict(middle["steps"])
    ranked.train(steps, groups[4:], ProcessGroup())
    assert_close({"weights": steps.objective.network.state_dict(), "steps": steps.state_dict()}, end)


def test_the_command_on_two_processes_and_then_on_one(tmp_path: Path) -> None:
    """As a user starts it: one speaker, one run folder, and a run that one process takes further."""
    shards = write_tiny_shards(tmp_path / "shards", train=(TRAIN[0],))
    command = ["--mode", "asymmetric", "--shards", shards, "--epochs", 2, "--backbone", "resnet18", "--width", 0.125,
               "--weights", "none", "--device", "cpu", "--micro-batch", 2, "--precision", "fp32", "--threshold",
               "shared=4,steering=2,segmentation=3,boxes=2,depth=3"]  # fmt: skip
    amtl = "import sys; from train.cli.train import main; main(sys.argv[1:])"
    script = tmp_path / "amtl-train"
    script.write_text(amtl)
    one = subprocess.run([sys.executable, "-c", amtl, *map(str, command), "--out", str(tmp_path / "one")], cwd=ROOT,
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert one.returncode == 0, one.stderr
    two = torchrun(script, *command[:4], "--epochs", 1, *command[6:], "--out", tmp_path / "two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("best.pt, epoch 1 of 1") == 1
    again = subprocess.run([sys.executable, "-c", amtl, *map(str, command), "--out", str(tmp_path / "two"), "--resume"],
                           cwd=ROOT, capture_output=True, text=True, check=False)  # fmt: skip
    assert again.returncode == 0, again.stderr
    ours, theirs = (load_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    for name, weight in ours["weights"].items():
        torch.testing.assert_close(theirs["weights"][name], weight, rtol=0, atol=1e-4, msg=name)
    assert ours["progress"]["items"] == theirs["progress"]["items"]
    assert ours["counts"]["updates"] == theirs["counts"]["updates"]


def assert_same_numbers(first: Any, second: Any, where: str = "") -> None:
    """Counts and words to the last digit, other numbers to 1e-12."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same_numbers(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for place, pair in enumerate(zip(first, second, strict=True)):
            assert_same_numbers(*pair, f"{where}[{place}]")
    elif isinstance(first, float):
        assert first == pytest.approx(second, rel=1e-12, abs=1e-12), where
    else:
        assert first == second, where


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_measure_what_one_does(ranks: int, tmp_path: Path) -> None:
    val = ((ALL, ("steering", "segmentation"), ALL), (ALL, ("depth",), ALL, ALL))
    folder = write_tiny_shards(tmp_path / "shards", val=val)
    alone = ranked_evaluation.measured(ShardSet(folder), ProcessGroup())
    result = torchrun("-m", "tests.ranked_evaluation", folder, tmp_path / "result", ranks=ranks)
    assert result.returncode == 0, result.stderr
    for rank in range(ranks):
        together, stopped = pickle.loads((tmp_path / f"result-{rank}").read_bytes())
        assert_same_numbers(asdict(together), asdict(alone))
        assert stopped is None


def test_a_process_that_dies_ends_the_run_with_its_name(tmp_path: Path) -> None:
    result = torchrun("-m", "tests.ranked", tmp_path / "states.pt", 1)
    assert result.returncode != 0
    assert "rank      : 1" in result.stderr
    assert "SIGKILL" in result.stderr
    assert not (tmp_path / "states.pt").exists()


def test_a_signal_to_one_process_stops_all_with_the_work_kept(tmp_path: Path) -> None:
    """As srun starts them: no torchrun between, and 75 from each."""
    shards = write_tiny_shards(tmp_path / "shards", train=(TRAIN[0],), val=())
    code = "import sys; from train.cli.train import main; main(sys.argv[1:])"
    options = ["--mode", "single", "--task", "steering", "--shards", shards, "--epochs", 100000, "--width", 0.125,
               "--device", "cpu", "--precision", "fp32", "--out", tmp_path / "run"]  # fmt: skip
    command = [sys.executable, "-c", code, *map(str, options)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    pipe = subprocess.PIPE
    processes = []
    for rank in ("0", "1"):
        env = {**place, "RANK": rank, "LOCAL_RANK": rank}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=pipe, stderr=pipe))
    try:
        assert processes[0].stdout is not None
        assert any("epoch 1 done" in line or "epoch 1/" in line for line in processes[0].stdout), "it trains"
        processes[1].send_signal(signal.SIGUSR1)
        ends = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [75, 75], ends
    assert load_checkpoint(tmp_path / "run" / "last.pt")["progress"]["total_items"] > 0


@pytest.mark.parametrize(
    ("local_rank", "visible", "device"),
    [(0, 4, 0), (3, 4, 3), (3, 1, 0), (0, 1, 0)],
    ids=["first", "fourth", "each rank sees its own GPU alone", "one of one"],
)
def test_a_rank_finds_its_gpu_however_the_launcher_shows_them(local_rank: int, visible: int, device: int) -> None:
    assert local_device(local_rank, visible) == device
