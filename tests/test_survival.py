"""Kills, locks, parts, dying workers: nothing partial under a final name, nothing lost, the same bytes at the end."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import orjson
import pytest

from preprocess.lock import LOCK, Lock
from preprocess.stop import SIGNALS, catch_signals, signals_held
from shards.manifest import ShardIndex
from shards.writer import ShardWriter
from tests.conftest import SMALL_RULES, prep

NAMESPACE = Path("/proc/self/ns/pid").stat().st_ino
KILLS = 20
COMMAND = [sys.executable, "-c", "from preprocess.cli import main; main()", "shard"]


def start(root: Path, out: Path, rules: Path, *options: object) -> subprocess.Popen[str]:
    arguments = ["--root", root, "--out", out, "--rules", rules, *options]
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def assert_nothing_partial(out: Path) -> None:
    """Every file under a final name is whole: a tar belongs to its index, or is about to be replaced by it."""
    for path in out.glob("*.json"):
        orjson.loads(path.read_bytes())
    for path in out.glob("*.tar"):
        data = path.read_bytes()
        assert data.endswith(bytes(1024))
        assert len(data) % 512 == 0
    if (out / "manifest.json").exists():
        for shard in orjson.loads((out / "manifest.json").read_bytes())["shards"]:
            assert (out / shard["name"]).stat().st_size == shard["bytes"]


def duration(root: Path, out: Path, rules: Path) -> float:
    """Seconds of a build that is left in peace: the moments of the kills lie within it, on any machine."""
    began = time.monotonic()
    process = start(root, out, rules)
    process.communicate()
    assert process.returncode == 0
    return time.monotonic() - began


def test_kills_at_random_moments_lose_nothing(synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path) -> None:
    """Builds and rebuilds with changing rules, each killed -9 somewhere; then one that is left in peace."""
    out, other = tmp_path / "out", tmp_path / "other.toml"
    other.write_text(SMALL_RULES.replace("5", "4", 1) + "[depth]\nbits = 16\n")
    generator = random.Random(0)
    killed = round_ = 0
    takes_s = duration(synthetic, tmp_path / "timed", small_rules), duration(synthetic, tmp_path / "timed", other)
    while killed < KILLS:
        assert round_ < 5 * KILLS, f"{killed} of {round_} builds were caught while they ran"
        rules = small_rules if round_ % 3 else other
        whole = takes_s[(out / "manifest.json").exists()]  # a build, or a rebuild of one label
        process = start(synthetic, out, rules, "--workers", 1 + round_ % 2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=generator.uniform(0.2, 1.0) * whole)
        killed += process.poll() is None
        process.kill()
        process.communicate()
        round_ += 1
        if out.exists():
            assert_nothing_partial(out)
    result = prep("shard", "--root", synthetic, "--out", out, "--rules", small_rules)
    assert result.exit_code == 0, result.output
    assert tars(out) == tars(shards)
    assert (out / "manifest.json").read_bytes() == (shards / "manifest.json").read_bytes()
    assert not list(out.glob("*.a2d2-*"))
    assert not list(out.glob(f"{LOCK}*"))


def test_a_second_run_on_one_output_is_refused(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    with Lock(tmp_path, None):
        result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules)
        assert result.exit_code == 1
        assert f"on {socket.gethostname()} with pid {os.getpid()}" in result.output
        part = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--part", "0/2")
        assert part.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_parts_do_not_hinder_each_other_but_a_whole_build_waits_for_them(tmp_path: Path) -> None:
    with Lock(tmp_path, (0, 2)), Lock(tmp_path, (1, 2)):
        with pytest.raises(ValueError, match="is being written by another build"), Lock(tmp_path, (0, 2)):
            pass
        with pytest.raises(ValueError, match="is being written by another build"), Lock(tmp_path, None):
            pass


@pytest.mark.parametrize(
    ("content", "age_s", "stale"),
    [
        pytest.param(
            {"host": socket.gethostname(), "namespace": NAMESPACE, "pid": 2**22 + 1, "started": "5"},
            0,
            True,
            id="pid gone",
        ),
        pytest.param(
            {"host": socket.gethostname(), "namespace": NAMESPACE, "pid": os.getpid(), "started": "5"},
            0,
            True,
            id="pid reused",
        ),
        pytest.param({"host": "elsewhere", "pid": 1, "started": "5"}, 0, False, id="another host, just touched"),
        pytest.param({"host": "elsewhere", "pid": 1, "started": "5"}, 900, True, id="another host, long untouched"),
        pytest.param(None, 900, True, id="killed before it was written"),
        pytest.param([], 900, True, id="no lock of ours"),
    ],
)
def test_a_stale_lock_is_recognised(tmp_path: Path, content: object, age_s: float, stale: bool) -> None:
    path = tmp_path / LOCK
    path.write_bytes(b"" if content is None else orjson.dumps(content))
    os.utime(path, (time.time() - age_s,) * 2)
    if stale:
        with Lock(tmp_path, None):
            assert orjson.loads(path.read_bytes())["pid"] == os.getpid()
        assert not path.exists()
    else:
        with pytest.raises(ValueError, match="on elsewhere with pid 1: wait for it, or, should it be gone, delete"), \
                Lock(tmp_path, None):  # fmt: skip
            pass
        assert path.exists()


def children(pid: int) -> list[int]:
    """All descendants of a process, from /proc."""
    found, parents = [], {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    todo = [pid]
    while todo:
        parent = todo.pop()
        below = [child for child, its_parent in parents.items() if its_parent == parent]
        found += below
        todo += below
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_a_worker_that_dies_is_reported_and_its_shards_are_tried_again(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path
) -> None:
    process = start(synthetic, tmp_path, small_rules, "--workers", 2)
    killer_done = threading.Event()

    def kill_a_writer() -> None:
        while process.poll() is None and not killer_done.is_set():
            for path in tmp_path.glob("*.a2d2-partial"):
                pid = path.name.split(".")[2]
                if pid.isdigit() and int(pid) in children(process.pid):
                    os.kill(int(pid), signal.SIGKILL)
                    killer_done.set()
                    return
            time.sleep(0.002)

    thread = threading.Thread(target=kill_a_writer)
    thread.start()
    output, _ = process.communicate(timeout=120)
    thread.join()
    assert killer_done.is_set()
    assert process.returncode == 0, output
    assert "a worker process died (out of memory?) while writing " in output
    assert "(frames 2018" in output
    assert tars(tmp_path) == tars(shards)


def test_workers_end_when_the_build_is_killed(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    process = start(synthetic, tmp_path, small_rules, "--workers", 2)
    while not list(tmp_path.glob("*.a2d2-partial")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process.pid)
    assert workers
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any("forkserver" in command_line(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in workers if "forkserver" in command_line(pid)]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_every_process_of_a_job_is_one_stop(
    synthetic: Path, small_rules: Path, tmp_path: Path, stop: signal.Signals
) -> None:
    """As batch systems send it, and more than once: to workers and to what starts and minds them."""
    arguments = ["--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--workers", "2"]
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list(tmp_path.glob("*.a2d2-partial")):
            assert process.poll() is None
            time.sleep(0.01)
        for _ in range(3):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, stop)
            time.sleep(0.02)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said == "a2d2-prep: stopped; finished shards are kept, the same command goes on\n"
    assert not list(tmp_path.glob("*partial"))
    assert not list(tmp_path.glob(f"{LOCK}*"))


SLOW_LIBRARIES = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "preprocess.cli.commands":
            print("loading", flush=True)
            time.sleep(60)
sys.meta_path.insert(0, Slow())
from preprocess.cli import main
main()
"""


@pytest.mark.parametrize("stop", SIGNALS)
def test_a_signal_while_libraries_load_is_a_stop_too(stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_LIBRARIES, "shard"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(stop)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (75, "a2d2-prep: stopped before anything was begun\n")


def test_a_signal_that_is_held_is_answered_at_the_end_and_the_next_ones_are_not() -> None:
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    done = []

    def begin() -> None:
        with signals_held():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("inside")

    try:
        catch_signals()
        with pytest.raises(KeyboardInterrupt):
            begin()
        os.kill(os.getpid(), signal.SIGUSR1)
        done.append("behind")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert done == ["inside", "behind"]


def test_parts_and_a_closing_run_are_one_build(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path
) -> None:
    arguments = ["shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--workers", 1]
    for part in ("1/3", "0/3", "2/3"):
        result = prep(*arguments, "--part", part)
        assert result.exit_code == 0, result.output
        assert f"part {part[0]} of 3: " in result.output
        assert not (tmp_path / "manifest.json").exists()
    closing = prep(*arguments)
    assert closing.exit_code == 0, closing.output
    assert "to keep: 5 shards" in closing.output
    assert "to write" not in closing.output
    assert tars(tmp_path) == tars(shards)
    assert (tmp_path / "manifest.json").read_bytes() == (shards / "manifest.json").read_bytes()
    late = prep(*arguments, "--part", "0/3")
    assert "part 0 of 3: 0 shards written" in late.output
    assert (tmp_path / "manifest.json").exists(), "a part with nothing to do leaves a finished set finished"


def test_more_parts_than_shards(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--part", "8/9")
    assert result.exit_code == 0, result.output
    assert "part 8 of 9: 0 shards written" in result.output


@pytest.mark.parametrize("part", ["3/3", "-1/3", "1", "a/b", "1/0", "1/", "\u00b2/3"])
def test_a_wrong_part_is_wrong_usage(synthetic: Path, tmp_path: Path, part: str) -> None:
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--part", part)
    assert result.exit_code == 2
    assert f"must be i/N with i from 0 to N-1, got {part}" in result.output


def test_a_full_disk_is_one_line(synthetic: Path, small_rules: Path, tmp_path: Path) -> None:
    """A limit on file size stands in for it: the write fails in the middle of a shard."""
    arguments = ["--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--workers", "2"]
    limited = ["bash", "-c", "ulimit -f 100; trap '' XFSZ; exec \"$@\"", "bash", *COMMAND, *map(str, arguments)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "a2d2-prep: File too large: finished shards are kept; make room" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("*.tar"))
    assert not list(tmp_path.glob("*partial"))


def test_an_index_of_another_format_is_refused(shards: Path, tmp_path: Path) -> None:
    name = "train-000000.index.json"
    document = orjson.loads((shards / name).read_bytes())
    (tmp_path / name).write_bytes(orjson.dumps({**document, "format_version": 99}))
    with pytest.raises(ValueError, match="has format 99, this version reads 1"):
        ShardIndex.read(tmp_path / name)


def test_parts_of_two_divisions_do_not_run_together(tmp_path: Path) -> None:
    with Lock(tmp_path, (0, 2)), pytest.raises(ValueError, match="another build"), Lock(tmp_path, (0, 3)):
        pass


def test_a_lock_of_another_namespace_on_this_host_is_respected(tmp_path: Path) -> None:
    owner = {"host": socket.gethostname(), "namespace": NAMESPACE + 1, "pid": 2**22 + 1, "started": "5"}
    (tmp_path / LOCK).write_bytes(orjson.dumps(owner))
    with pytest.raises(ValueError, match="another build"), Lock(tmp_path, None):
        pass


def test_a_build_that_lost_its_lock_steps_back(
    synthetic: Path, small_rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build takes the lock while the first shard is made: no shard, index or lock of it is touched."""
    lock = tmp_path / LOCK

    def convert_then_lose(writer: ShardWriter, *arguments: object) -> None:
        lock.write_bytes(b'{"token": "another"}')
        leave(writer, *arguments)

    leave = ShardWriter.__exit__
    monkeypatch.setattr(ShardWriter, "__exit__", convert_then_lose)
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--workers", 1)
    assert result.exit_code == 1
    assert "steps back" in result.output.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert lock.read_bytes() == b'{"token": "another"}'


def test_a_suspended_build_whose_lock_was_taken_steps_back(
    synthetic: Path, shards: Path, small_rules: Path, tmp_path: Path
) -> None:
    """It is made to look as from another namespace and long untouched; a second build then makes the whole set."""
    first = start(synthetic, tmp_path, small_rules, "--workers", 1)
    while not list(tmp_path.glob("*.tar.*.a2d2-partial")):
        assert first.poll() is None
        time.sleep(0.001)
    first.send_signal(signal.SIGSTOP)
    lock = tmp_path / LOCK
    lock.write_bytes(orjson.dumps({**orjson.loads(lock.read_bytes()), "namespace": NAMESPACE + 1}))
    os.utime(lock, (time.time() - 900,) * 2)
    second = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules, "--workers", 1)
    first.send_signal(signal.SIGCONT)
    output, _ = first.communicate(timeout=60)
    assert second.exit_code == 0, second.output
    assert first.returncode == 1, output
    assert "steps back" in output.splitlines()[-1]
    assert tars(tmp_path) == tars(shards)
    assert prep("verify", tmp_path).exit_code == 0
