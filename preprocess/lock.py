"""One build at a time on an output folder; a lock whose owner is gone is recognised."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

LOCK = ".a2d2-lock"  # of a whole build; a part's has its number behind
_BEAT_S = 20.0  # how often the owner touches its lock
_STALE_S = 300.0  # a lock of another host that was not touched for so long has lost its owner


class Lock:
    """Held while a build runs. Raises ValueError on entering where another build holds the folder."""

    def __init__(self, out: Path, part: tuple[int, int] | None) -> None:
        self.out = out
        self.path = out / (LOCK if part is None else f"{LOCK}-{part[0]}-of-{part[1]}")
        self._whole = part is None
        self._over = threading.Event()

    def __enter__(self) -> Lock:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            for path in {*self._others(), self.path}:
                _refuse_or_remove(path)
            self._take()
        except OSError as error:
            raise ValueError(f"{self.out} cannot be written to as a folder: {error.strerror}") from error
        try:
            for path in self._others():  # a whole build and a part that start together see each other here
                _refuse_or_remove(path)
        except ValueError:
            self.path.unlink(missing_ok=True)
            raise
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def _others(self) -> list[Path]:
        """The locks of builds that this one cannot run beside: a whole build beside none, a part beside a whole one."""
        paths = self.out.glob(f"{LOCK}*") if self._whole else [self.out / LOCK]
        return sorted(path for path in paths if path != self.path)

    def _take(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError as error:
            raise ValueError(f"another build has just started on {self.out}") from error
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(owner))

    def _beat(self) -> None:
        while not self._over.wait(_BEAT_S):
            try:
                os.utime(self.path)
            except OSError:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self.path.unlink(missing_ok=True)


def _refuse_or_remove(path: Path) -> None:
    """Raises ValueError where the lock's owner lives; removes a lock that has none."""
    try:
        owner, touched = orjson.loads(path.read_bytes()), path.stat().st_mtime
    except FileNotFoundError:
        return
    except orjson.JSONDecodeError:
        owner, touched = {}, path.stat().st_mtime  # killed between making the lock and writing it
    if not isinstance(owner, dict):
        owner = {}  # whoever wrote this, it tells nothing
    if _lives(owner, time.time() - touched):
        raise ValueError(
            f"{path.parent} is being written by another build, on {owner.get('host', 'an unknown host')} with pid "
            f"{owner.get('pid', 'unknown')}: wait for it, or, should it be gone, delete {path}"
        )
    path.unlink(missing_ok=True)


def _lives(owner: dict[str, Any], untouched_s: float) -> bool:
    if owner.get("host") == socket.gethostname():
        return _started(owner.get("pid")) == owner.get("started") is not None
    return untouched_s < _STALE_S


def _started(pid: Any) -> str | None:
    """When a process began, in the kernel's ticks: a pid alone may have come to another process since."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
