"""The default number of workers: the CPU quota of a container or a batch job, where it is lower than the cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.cores import cpu_quota, usable_cores

V2, V1 = "0::/user/job\n", "5:cpu,cpuacct:/user/job\n4:memory:/user\n0::/\n"


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        pytest.param(V2, {"user/job/cpu.max": "400000 100000\n"}, 4, id="version 2"),
        pytest.param(V2, {"user/job/cpu.max": "max 100000", "user/cpu.max": "250000 100000"}, 2.5, id="a level above"),
        pytest.param(V2, {"cpu.max": "150000 100000\n"}, 1.5, id="a container that sees its own at the top"),
        pytest.param(V2, {"user/job/cpu.max": "max 100000\n"}, None, id="no limit"),
        pytest.param(V2, {}, None, id="no files"),
        pytest.param(V1, {"cpu,cpuacct/user/job/cpu.cfs_quota_us": "200000\n",
                          "cpu,cpuacct/user/job/cpu.cfs_period_us": "100000\n"}, 2, id="version 1"),
        pytest.param(V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None, id="1, no limit"),
        pytest.param(None, {}, None, id="no cgroups"),
    ],
)  # fmt: skip
def test_the_lowest_quota_counts(
    tmp_path: Path, membership: str | None, files: dict[str, str], cores: float | None
) -> None:
    if membership is not None:
        (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "fs") == cores


@pytest.mark.parametrize(("quota", "workers"), [(0.5, 1), (2.5, 3), (64.0, 8), (None, 8)])
def test_workers_follow_the_quota(monkeypatch: pytest.MonkeyPatch, quota: float | None, workers: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("preprocess.cores.cpu_quota", lambda *_: quota)
    assert usable_cores() == workers
