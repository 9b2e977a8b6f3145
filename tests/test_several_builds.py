"""Several builds on one folder: parts that start together, suspended builds, containers with one host name."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest

from preprocess.lock import LOCK, STALE_S, Claim, Lock, LostLock, living_tokens
from shards.writer import ShardWriter
from tests.conftest import prep, tree_bytes

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
SLOW = """
import sys, time
import preprocess.build, preprocess.shard
fast_hash, fast_add = preprocess.build._sha256, preprocess.shard._add
def slow_hash(path):
    time.sleep({hash_s})
    return fast_hash(path)
def slow_add(*arguments):
    time.sleep({frame_s})
    return fast_add(*arguments)
preprocess.build._sha256, preprocess.shard._add = slow_hash, slow_add
from preprocess.cli.commands import main
main(sys.argv[1:], prog_name="a2d2-prep")
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]


def slow_shard(
    root: Path,
    out: Path,
    rules: Path,
    *options: str,
    hash_s: float = 0,
    frame_s: float = 0,
    inside: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """`a2d2-prep shard` in one process, with slowed hashing and frames; `inside` is a command that starts it."""
    program = [sys.executable, "-c", SLOW.format(hash_s=hash_s, frame_s=frame_s), "shard", "--workers", "1"]
    arguments = ["--root", str(root), "--out", str(out), "--rules", str(rules), *options]
    return subprocess.Popen(
        [*inside, *program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.fixture
def many_shards(tmp_path: Path) -> Path:
    """Rules for shards of three frames."""
    path = tmp_path / "rules.toml"
    path.write_text("shard_samples = 3\n[image]\nsize = 256\n")
    return path


def test_parts_that_start_together_do_not_fail_on_each_other(
    synthetic: Path, many_shards: Path, tmp_path: Path
) -> None:
    """Some write shards while others look at the folder, one is killed and run again; the end is a single build's."""
    single, out = tmp_path / "single", tmp_path / "out"
    assert prep("shard", "--root", synthetic, "--out", single, "--rules", many_shards).exit_code == 0
    parts = []
    for part in range(4):
        parts.append(slow_shard(synthetic, out, many_shards, "--part", f"{part}/4", hash_s=0.3))
        time.sleep(0.1)
    parts[1].kill()
    outputs = [process.communicate(timeout=120)[0] for process in parts]
    assert [process.returncode for process in parts] == [0, -signal.SIGKILL, 0, 0], outputs
    again = prep("shard", "--root", synthetic, "--out", out, "--rules", many_shards, "--part", "1/4")
    assert again.exit_code == 0, again.output
    closing = prep("shard", "--root", synthetic, "--out", out, "--rules", many_shards)
    assert closing.exit_code == 0, closing.output
    assert "to write" not in closing.output
    assert tree_bytes(out) == tree_bytes(single)


def test_a_shard_that_another_part_finishes_meanwhile_is_not_in_the_way(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shards, out, ignore=shutil.ignore_patterns("manifest.json"))
    monkeypatch.setattr("preprocess.build.own_indexes", lambda _: {})  # read before the other part published
    result = prep("shard", "--root", synthetic, "--out", out, "--rules", small_rules, "--part", "0/2")
    assert result.exit_code == 0, result.output
    assert "part 0 of 2: 0 shards written" in result.output


def test_a_part_hashes_its_own_shards_alone(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, hashed = tmp_path / "out", []
    shutil.copytree(shards, out)
    names = sorted(path.name for path in shards.glob("*.tar"))
    monkeypatch.setattr("preprocess.build._sha256", lambda path: hashed.append(path.name))
    for options in (["--dry-run"], []):
        result = prep("shard", "--root", synthetic, "--out", out, "--rules", small_rules, "--part", "1/2", *options)
        assert result.exit_code == 0, result.output
        assert hashed == names[1::2]
        hashed.clear()


def test_parts_of_another_count_wait_and_leave_unfinished_files_alone(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path
) -> None:
    first = slow_shard(synthetic, tmp_path, small_rules, "--part", "0/2", frame_s=0.3)
    wait_for(lambda: list(tmp_path.glob("*.tar.*partial")), first)
    second = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--part", "0/3")
    assert second.exit_code == 1
    assert f"with pid {first.pid}" in second.output
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0, output
    assert prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules).exit_code == 0
    assert tree_bytes(tmp_path) == tree_bytes(shards)


def test_only_files_of_builds_that_are_gone_are_removed(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    with Lock(tmp_path, (0, 2)) as claim:
        gone = Claim(tmp_path / LOCK, b"{}", "0123456789abcdef")
        for owner in (claim, gone):
            (ShardWriter(tmp_path / "train-000000.tar", owner.token).__enter__())._file.close()
        (tmp_path / "notes.a2d2-partial").write_text("somebody's own")
        assert (
            prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--part", "1/2").exit_code
            == 0
        )
        left = [path.name for path in tmp_path.glob("*partial")]
    assert len(left) == 2
    assert "notes.a2d2-partial" in left
    assert any(claim.token in name for name in left)


def test_a_manifest_that_another_part_takes_away_is_no_error(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken away between the look for it and its reading."""
    out = tmp_path / "out"
    shutil.copytree(shards, out)
    manifest, exists = out / "manifest.json", Path.exists

    def taken_away(path: Path, **_: object) -> bool:
        there = exists(path)
        if path == manifest and there:
            manifest.replace(out / "manifest.previous.json")
        return there

    read = Path.read_bytes

    def read_late(path: Path) -> bytes:
        if path == manifest and exists(path):
            manifest.replace(out / "manifest.previous.json")
        return read(path)

    monkeypatch.setattr(Path, "exists", taken_away)
    monkeypatch.setattr(Path, "read_bytes", read_late)
    result = prep("shard", "--root", synthetic, "--out", out, "--part", "0/2", "--rules", small_rules)
    assert result.exit_code == 0, result.output


def age(path: Path) -> None:
    """As if the lock had not been touched for longer than an owner may be silent."""
    os.utime(path, (time.time() - 2 * STALE_S,) * 2)


def test_a_lock_that_another_build_took_is_lost_and_left_alone(tmp_path: Path) -> None:
    lock = Lock(tmp_path, None)
    with lock as claim:
        claim.check()
        other = {"host": "elsewhere", "pid": 7, "token": "f"}
        (tmp_path / LOCK).write_bytes(orjson.dumps(other))
        with pytest.raises(LostLock, match="leaving its files as they are: another build, on elsewhere with"):
            claim.check()
    assert orjson.loads((tmp_path / LOCK).read_bytes()) == other


def test_a_removed_lock_is_lost(tmp_path: Path) -> None:
    with Lock(tmp_path, None) as claim:
        (tmp_path / LOCK).unlink()
        with pytest.raises(LostLock, match=r"its lock .* was removed"), claim.held():
            pass


def test_an_unfinished_file_that_the_next_owner_removed_is_a_lost_lock(tmp_path: Path) -> None:
    """As a build finds it that was suspended between its check and the renaming."""

    def publish() -> None:
        with claim.held():
            (tmp_path / LOCK).write_bytes(b"{}")
            (tmp_path / "unfinished").replace(tmp_path / "finished")

    with Lock(tmp_path, None) as claim, pytest.raises(LostLock):
        publish()


def test_a_beat_does_not_touch_the_lock_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocess.lock._BEAT_S", 0.05)
    with Lock(tmp_path, None):
        age(tmp_path / LOCK)
        deadline = time.monotonic() + 10
        while (tmp_path / LOCK).stat().st_mtime < time.time() - STALE_S:
            assert time.monotonic() < deadline, "the owner touches its lock"
            time.sleep(0.01)
        (tmp_path / LOCK).write_bytes(b"{}")
        age(tmp_path / LOCK)
        time.sleep(0.2)
        assert (tmp_path / LOCK).stat().st_mtime < time.time() - STALE_S


def test_a_killed_process_that_nobody_has_reaped_is_gone(tmp_path: Path) -> None:
    program = f"import os, sys; from pathlib import Path; from preprocess.lock import Lock\n" \
              f"Lock(Path({str(tmp_path)!r}), None).__enter__(); os.kill(os.getpid(), 9)"  # fmt: skip
    killed = subprocess.Popen([sys.executable, "-c", program], env=ENVIRONMENT)
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it ends, and stays in the process table
    assert living_tokens(tmp_path) == set()
    with Lock(tmp_path, None):
        pass
    killed.wait()


def test_a_build_that_is_suspended_keeps_its_folder(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    """On one machine a process that stands still is a process that lives, however long it touches nothing."""
    out = tmp_path / "out"
    build = slow_shard(synthetic, out, small_rules, frame_s=0.1)
    wait_for(lambda: list(out.glob("*.tar")), build)
    build.send_signal(signal.SIGSTOP)
    age(out / LOCK)
    refused = prep("shard", "--root", synthetic, "--out", out, "--rules", small_rules)
    build.send_signal(signal.SIGCONT)
    assert refused.exit_code == 1
    assert f"with pid {build.pid}" in refused.output
    output, _ = build.communicate(timeout=60)
    assert build.returncode == 0, output


@pytest.fixture
def namespace() -> tuple[str, ...]:
    """A command that runs another in a PID namespace of its own, as a container does."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this machine permits no PID namespaces")
    return tuple(NAMESPACE)


def test_a_build_in_another_container_is_no_dead_one(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, namespace: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    build = slow_shard(synthetic, out, small_rules, frame_s=0.1, inside=namespace)
    wait_for(lambda: list(out.glob("*.tar.*partial")), build)
    refused = prep("shard", "--root", synthetic, "--out", out, "--rules", small_rules)
    assert refused.exit_code == 1
    assert "is being written by another build" in refused.output
    output, _ = build.communicate(timeout=60)
    assert build.returncode == 0, output
    assert tree_bytes(out) == tree_bytes(shards)


@pytest.mark.parametrize("other_lives", [True, False], ids=["the other still writes", "the other has finished"])
def test_a_build_that_wakes_up_after_it_lost_its_folder_steps_back(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path, namespace: tuple[str, ...], other_lives: bool
) -> None:
    out = tmp_path / "out"
    sleeper = slow_shard(synthetic, out, small_rules, frame_s=0.1, inside=namespace)
    wait_for(lambda: list(out.glob("*.tar.*partial")), sleeper)
    inner = int(Path(f"/proc/{sleeper.pid}/task/{sleeper.pid}/children").read_text())
    os.kill(inner, signal.SIGSTOP)
    age(out / LOCK)
    other = slow_shard(synthetic, out, small_rules, frame_s=0.2 if other_lives else 0)
    if other_lives:
        wait_for(lambda: len(list(out.glob("*.tar"))) > 1, other)
    else:
        other.wait()
    os.kill(inner, signal.SIGCONT)
    said, _ = sleeper.communicate(timeout=60)
    other_said, _ = other.communicate(timeout=60)
    assert sleeper.returncode == 1, said
    assert said.splitlines()[-1].startswith(f"a2d2-prep: this build has lost {out} and steps back, leaving its files")
    assert other.returncode == 0, other_said
    assert tree_bytes(out) == tree_bytes(shards)
    assert prep("verify", out).exit_code == 0
