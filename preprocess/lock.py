"""One build at a time on an output folder; a lock whose owner is gone is recognised.

A process of the same host and PID namespace is looked up by its pid and start time. Of any other owner only the
lock's age is known: the owner touches it every 20 s, and after 300 s untouched it counts as gone. A build that was
suspended for so long finds another's record in the lock, and steps back before it publishes anything.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

LOCK = ".a2d2-lock"  # of a whole build; a part's has its number behind
_BEAT_S = 20.0  # how often the owner touches its lock
_STALE_S = 300.0  # a lock of another host that was not touched for so long has lost its owner


@dataclass(frozen=True)
class Held:
    """A lock's file and the token that its owner wrote into it. Can be pickled: workers check it too."""

    path: Path
    token: str

    def is_ours(self) -> bool:
        """True while the file bears this build's token."""
        try:
            return bool(_read_owner(self.path).get("token") == self.token)
        except OSError:
            return False

    def confirm(self) -> None:
        """Raises ValueError where the lock was lost; called before anything in the folder is changed."""
        if not self.is_ours():
            raise ValueError(
                f"{self.path} must be this build's lock until its end, got another's or none: this build was "
                "suspended or cut off, and steps back; what it has finished stays"
            )


class Lock:
    """Held while a build runs. Raises ValueError on entering where another build holds the folder."""

    def __init__(self, out: Path, part: tuple[int, int] | None) -> None:
        self.out = out
        self.path = out / (LOCK if part is None else f"{LOCK}-{part[0]}-of-{part[1]}")
        self.held = Held(self.path.resolve(), secrets.token_hex(8))
        self._part = part
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
        """The locks of builds that this one cannot run beside.

        A whole build runs beside none, a part beside parts of the same number only: of 2 and of 3 parts, two would
        write the same shards.
        """
        paths = [path for path in self.out.glob(f"{LOCK}*") if path != self.path]
        if self._part is not None:
            paths = [path for path in paths if not path.name.endswith(f"-of-{self._part[1]}")]
        return sorted(paths)

    def _take(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError as error:
            raise ValueError(f"another build has just started on {self.out}") from error
        owner = {
            "host": socket.gethostname(),
            "namespace": _namespace(),
            "pid": os.getpid(),
            "started": _started(os.getpid()),
            "token": self.held.token,
        }
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(owner))

    def _beat(self) -> None:
        while not self._over.wait(_BEAT_S):
            try:
                if not self.held.is_ours():
                    return
                os.utime(self.path)
            except OSError:
                return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self.held.is_ours():
            self.path.unlink(missing_ok=True)


def _read_owner(path: Path) -> dict[str, Any]:
    """The owner's record; empty where the file holds none, as after a kill between making the lock and writing it."""
    try:
        owner = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _refuse_or_remove(path: Path) -> None:
    """Raises ValueError where the lock's owner lives; removes a lock that has none."""
    try:
        owner, touched = _read_owner(path), path.stat().st_mtime
    except FileNotFoundError:
        return
    if _lives(owner, time.time() - touched):
        raise ValueError(
            f"{path.parent} is being written by another build, on {owner.get('host', 'an unknown host')} with pid "
            f"{owner.get('pid', 'unknown')}: wait for it, or, should it be gone, delete {path}"
        )
    path.unlink(missing_ok=True)


def _lives(owner: dict[str, Any], untouched_s: float) -> bool:
    if owner.get("host") == socket.gethostname() and owner.get("namespace") == _namespace():
        return _started(owner.get("pid")) == owner.get("started") is not None
    return untouched_s < _STALE_S


def _namespace() -> int | None:
    """The inode of this process's PID namespace: containers may share a host name, and their pids differ."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None


def _started(pid: Any) -> str | None:
    """When a process began, in the kernel's ticks: a pid alone may have come to another process since."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
