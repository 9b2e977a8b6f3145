"""A Dask cluster of real processes, of which one is killed midway; and the SLURM script, run with a false sbatch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from preprocess.cli.options import usable_cores
from preprocess.lock import LOCK, Lock
from preprocess.slurm import array_script
from preprocess.source import find_source
from tests.conftest import prep
from tests.test_survival import tars

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and three workers; their address and the workers' processes."""
    dask = [sys.executable, "-m", "dask"]
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    with (tmp_path / "cluster.log").open("wb") as log:
        started = [
            subprocess.Popen([*dask, *arguments, "--no-dashboard"], stdout=log, stderr=log, env=ENVIRONMENT)
            for arguments in (
                ["scheduler", "--host", "127.0.0.1", "--port", port],
                *[["worker", address, "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)]] * 3,
            )
        ]
        try:
            yield address, started[1:]
        finally:
            for process in started:
                process.kill()
                process.wait()


def test_a_cluster_that_loses_a_worker_makes_the_same_bytes(
    cluster: tuple[str, list[subprocess.Popen[bytes]]],
    synthetic: Path,
    shards: Path,
    small_rules: Path,
    tmp_path: Path,
) -> None:
    address, workers = cluster
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from preprocess.cli import main; main()", "shard", "--root", str(synthetic),
               "--out", str(out), "--rules", str(small_rules), "--dask", address]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as build:
        pids = {worker.pid for worker in workers}
        killed = 0
        while not killed:
            assert build.poll() is None, build.communicate()[0]
            for path in out.glob("*.a2d2-partial"):
                if (pid := int(path.name.split(".")[2])) in pids and not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed = pid
            time.sleep(0.002)
        output, _ = build.communicate(timeout=120)
    assert build.returncode == 0, output
    assert tars(out) == tars(shards)
    assert (out / "manifest.json").read_bytes() == (shards / "manifest.json").read_bytes()


def test_an_address_where_nothing_answers_is_one_line(
    synthetic: Path, small_rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("preprocess.cluster._CONNECT_S", 0.5)
    arguments = ["--root", synthetic, "--out", tmp_path, "--rules", small_rules]
    result = prep("shard", *arguments, "--dask", f"tcp://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:" in result.output.splitlines()[-1]


FALSE_SBATCH = """#!/bin/bash
echo "$@" >> "$(dirname "$0")/submitted"
script="${@: -1}"
for argument in "$@"; do
    case "$argument" in
        --array=0-*) for i in $(seq 0 "${argument#--array=0-}"); do
            SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$i bash "$script" >> "$(dirname "$0")/log" 2>&1; done; echo 7; exit;;
    esac
done
SLURM_JOB_ID=8 bash "$script" >> "$(dirname "$0")/log" 2>&1
"""


def test_the_slurm_script_submits_parts_and_then_the_closing_run(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path
) -> None:
    bin_, out = tmp_path / "bin with a space", tmp_path / "out"
    bin_.mkdir()
    for name, text in {
        "sbatch": FALSE_SBATCH,
        "a2d2-prep": f"#!/bin/sh\nexec {sys.executable} -c 'from preprocess.cli import main; main()' \"$@\"\n",
    }.items():
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    result = prep("slurm", "--root", synthetic, "--out", out, "--rules", small_rules, "--parts", 2, "--cpus", 1)
    assert result.exit_code == 0
    script = tmp_path / "shard.sh"
    script.write_text(result.output)
    environment = {**ENVIRONMENT, "PATH": f"{bin_}:{os.environ['PATH']}"}
    subprocess.run(["bash", script], check=True, env=environment, cwd=ROOT)
    log = (bin_ / "log").read_text()
    assert (bin_ / "submitted").read_text().splitlines() == [
        f"--parsable --array=0-1 --output=a2d2-prep-%A-%a.log {script}",
        f"--dependency=afterok:7 --kill-on-invalid-dep=yes --output=a2d2-prep-%j.log {script}",
    ]
    assert "part 0 of 2: 3 shards written" in log
    assert "part 1 of 2: 2 shards written" in log
    assert "to keep: 5 shards, 18 frames" in log
    assert tars(out) == tars(shards)


def test_words_with_spaces_stay_words() -> None:
    script = array_script(
        ["a2d2-prep", "shard", "--root", "/data/my a2d2"],
        parts=4,
        cpus=2,
        memory="8G",
        time="1:0:0",
        partition="long",
        account="me",
    )
    assert "#SBATCH --partition=long\n#SBATCH --account=me\n" in script
    assert "command=(a2d2-prep shard --root '/data/my a2d2' --workers 2)" in script
    assert "--array=0-3" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_quota_of_the_container_limits_the_workers(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))


def test_attribute_files_and_unfinished_downloads_are_no_tars(synthetic: Path, tmp_path: Path) -> None:
    (tmp_path / "scenes").symlink_to(synthetic)
    for name in ("._a.tar", "x.tar.1", "y.tar.part"):
        (tmp_path / name).write_bytes(b"no tar")
    source = find_source(tmp_path, cameras=["frontcenter"], skip=tmp_path / "out")
    assert sorted(Path(note.split()[0]).name for note in source.notes) == ["x.tar.1", "y.tar.part"]


@pytest.mark.skipif(
    subprocess.run(["unshare", "-Urpf", "true"], capture_output=True, check=False).returncode != 0,
    reason="PID namespaces are not permitted here",
)
def test_a_build_in_another_namespace_is_refused(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from preprocess.cli import main; main()", "shard", "--root", synthetic,
               "--out", tmp_path, "--rules", small_rules]  # fmt: skip
    with Lock(tmp_path, None):
        other = subprocess.run(["unshare", "-Urpf", "--mount-proc", *command],
                               capture_output=True, text=True, cwd=ROOT, check=False)  # fmt: skip
        assert (tmp_path / LOCK).exists()
    assert other.returncode == 1
    assert "is being written by another build" in other.stderr


def dask_processes(
    folder: Path, scheduler: dict[str, str], worker: dict[str, str] | None
) -> list[subprocess.Popen[bytes]]:
    """A scheduler and one worker (None: none), each with its environment, started in `folder`."""
    port = str(free_port())
    dask = [sys.executable, "-m", "dask"]
    commands = [([*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"], scheduler)]
    if worker is not None:
        address = f"tcp://127.0.0.1:{port}"
        commands.append(([*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"], worker))
    return [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=folder)
        for command, environment in commands
    ]


@pytest.mark.parametrize("lacking", ["scheduler", "worker"])
def test_a_cluster_without_the_package_is_one_line(
    synthetic: Path, small_rules: Path, tmp_path: Path, lacking: str
) -> None:
    """Its modules are hidden by a folder in which `preprocess` cannot be imported."""
    hidden = tmp_path / "hidden"
    (hidden / "preprocess").mkdir(parents=True)
    (hidden / "preprocess" / "__init__.py").write_text("raise ModuleNotFoundError('No module named preprocess')\n")
    without = {**os.environ, "PYTHONPATH": str(hidden)}
    processes = dask_processes(
        tmp_path, without if lacking == "scheduler" else ENVIRONMENT, without if lacking == "worker" else ENVIRONMENT
    )
    try:
        address = f"tcp://127.0.0.1:{processes[0].args[-2]}"  # type: ignore[index]
        result = prep(
            "shard", "--root", synthetic, "--out", tmp_path / "out", "--rules", small_rules, "--dask", address
        )
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert result.exit_code == 1, result.output
    assert f"a2d2-prep: the Dask {lacking} at tcp://127.0.0.1:" in result.output.splitlines()[-1]
    assert "must have asymmetric-mtl installed" in result.output.splitlines()[-1]


def test_a_cluster_without_workers_says_that_it_waits(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from preprocess.cli import main; main()", "shard", "--root", str(synthetic),
               "--out", str(tmp_path / "out"), "--rules", str(small_rules), "--dask"]  # fmt: skip
    processes = dask_processes(tmp_path, ENVIRONMENT, None)
    try:
        address = f"tcp://127.0.0.1:{processes[0].args[-2]}"  # type: ignore[index]
        with subprocess.Popen([*command, address], stderr=subprocess.PIPE, text=True, cwd=ROOT) as build:
            assert build.stderr is not None
            assert build.stderr.readline() == f"the Dask cluster at {address} has no workers: waiting for the first\n"
            build.send_signal(signal.SIGTERM)
            assert "stopped" in build.stderr.read()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert build.returncode == 75


def test_a_partition_that_is_no_name_is_wrong_usage() -> None:
    wrong = prep("slurm", "--root", "/data", "--partition", "a\nrm b")
    assert wrong.exit_code == 2
    assert "must be a name of letters, digits and" in wrong.output
