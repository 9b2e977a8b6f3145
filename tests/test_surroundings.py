"""Machines that lack something: closed streams, long temporary folders, no shared memory; and odd names of tars."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import prep, tree_bytes

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
PROGRAM = f"{sys.executable} -c 'from preprocess.cli import main; main()' shard"


def run_shard(
    root: Path, out: Path, rules: Path, redirect: str = "", before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`a2d2-prep shard` with two workers, started by a shell."""
    command = f"{before} exec {PROGRAM} --root {root} --out {out} --rules {rules} --workers 2 {redirect}"
    return subprocess.run(
        ["bash", "-c", command], env={**ENVIRONMENT, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("redirect", ["2>&-", ">&-", "<&- >&- 2>&-", "| head -1"])
def test_closed_streams_stop_nothing(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, redirect: str
) -> None:
    out = tmp_path / "out"
    result = run_shard(synthetic, out, small_rules, redirect)
    assert (result.returncode, result.stderr) == (0, "")
    assert tree_bytes(out) == tree_bytes(shards)


def test_an_error_with_standard_error_closed_is_an_exit_code(small_rules: Path, tmp_path: Path) -> None:
    result = run_shard(tmp_path, tmp_path / "out", small_rules, "2>&-")
    assert result.returncode == 1


def test_a_long_temporary_folder(synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path) -> None:
    out, long = tmp_path / "out", tmp_path / ("t" * 100)
    long.mkdir()
    result = run_shard(synthetic, out, small_rules, TMPDIR=str(long))
    assert result.returncode == 0, result.stderr
    assert tree_bytes(out) == tree_bytes(shards)


@pytest.mark.parametrize("mount", ["mount -t tmpfs -o ro none /dev/shm;", "mount -t tmpfs -o size=4k none /dev;"],
                         ids=["read only", "absent"])  # fmt: skip
def test_without_shared_memory_one_process_converts(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, mount: str
) -> None:
    command = f"{mount} [ -e /dev/null ] || mknod -m 666 /dev/null c 1 3; "
    if subprocess.run(
        ["unshare", "--mount", "bash", "-c", f"{command} true"], check=False, capture_output=True
    ).returncode:
        pytest.skip("this machine permits no mounts")
    out = tmp_path / "out"
    program = f"{command} exec {PROGRAM} --root {synthetic} --out {out} --rules {small_rules} --workers 2"
    result = subprocess.run(
        ["unshare", "--mount", "bash", "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "processes cannot share locks, which Linux keeps in /dev/shm (" in result.stderr
    assert tree_bytes(out) == tree_bytes(shards)


def test_names_of_tars(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    """A Mac's record beside a tar is no tar; an unfinished or renamed download gets a note, a checksum none."""
    root = tmp_path / "root"
    shutil.copytree(synthetic, root)
    for name in ("._camera.tar", "x.tar.1", "x.tar.part", "x.tar.crdownload", "x.tar.md5", "x.tar.sha256", "x.tar.gz"):
        (root / name).write_bytes(bytes.fromhex("00051607") + bytes(100))
    result = prep("shard", "--root", root, "--out", tmp_path / "out", "--rules", small_rules, "--dry-run")
    assert result.exit_code == 0, result.output
    notes = [line for line in result.output.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: {root}/{name} was passed over: a tar's name must end in .tar; is its download whole?"
        if "gz" not in name
        else f"note: {root}/{name} is compressed and was passed over: unpack it to a tar or a folder"
        for name in ("x.tar.1", "x.tar.crdownload", "x.tar.gz", "x.tar.part")
    ]
