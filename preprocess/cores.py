"""The number of CPU cores that this process may use: fewer than the machine has, in a container or a batch job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(hierarchy: Path = Path("/sys/fs/cgroup")) -> int:
    """The cores of the process's affinity, or its cgroup's CPU quota where that is lower, rounded up."""
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota(Path("/proc/self/cgroup"), hierarchy)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(membership: Path, hierarchy: Path) -> float | None:
    """The lowest CPU quota, in cores, of the cgroups (versions 1 and 2) that a process is in; None where none is set.

    `membership` is the process's file `cgroup` in /proc, and `hierarchy` the folder where the cgroups are mounted. A
    container may see its own cgroup at the top while `membership` names it by its whole path: every level is read.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            quotas += [_quota(level, "cpu.max") for level in _levels(hierarchy, path)]
        elif "cpu" in controllers.split(","):
            for mount in (hierarchy / "cpu", hierarchy / controllers):
                quotas += [_quota(level, "cpu.cfs_quota_us", "cpu.cfs_period_us") for level in _levels(mount, path)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _levels(mount: Path, path: str) -> Iterator[Path]:
    inside = PurePosixPath(path.lstrip("/"))
    yield from (mount / level for level in (inside, *inside.parents))


def _quota(level: Path, *names: str) -> float | None:
    """Quota by period of one cgroup; `max` or -1 stands for no limit."""
    try:
        quota, period = " ".join((level / name).read_text() for name in names).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
