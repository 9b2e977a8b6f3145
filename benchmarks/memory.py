"""Peak memory of a process and all that it starts."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

_EVERY_S = 0.2


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    """MiB: the sum over the tree of each process's own peak (VmHWM, pages that are shared count in each).

    An upper bound of what is needed at one moment, and free of the chance of when one looks.
    """
    peaks_kib: dict[int, int] = {}
    while process.poll() is None:
        for pid in _tree(process.pid):
            peaks_kib[pid] = max(peaks_kib.get(pid, 0), _peak_kib(pid))
        time.sleep(_EVERY_S)
    assert process.returncode == 0, "the measured build failed"
    return sum(peaks_kib.values()) / 1024


def _tree(pid: int) -> list[int]:
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += _tree(int(child))
    except OSError:
        pass  # it has ended
    return found


def _peak_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
