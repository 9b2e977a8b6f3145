"""One build at a time on an output folder; a lock whose owner is gone is recognised, and a lost one noticed.

A lock is a file with a record of its owner, which touches it every few seconds. On the machine and in the PID
namespace of the reader the owner lives if its process does. Elsewhere (another host, another container) it lives if
the file was touched within the last STALE_S seconds by the file system's own clock.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

LOCK = ".a2d2-lock"  # of a whole build; a part's has its number behind
STALE_S = 300.0  # a lock of another host or container that was not touched for so long has lost its owner
_BEAT_S = 5.0  # how often the owner touches its lock


class LostLock(ValueError):
    """The folder belongs to another build by now."""


@dataclass(frozen=True)
class Claim:
    """A build's hold on its output folder. Can be pickled: workers ask it too before they publish."""

    path: Path  # of the lock, absolute
    record: bytes  # what the lock holds while it is this build's
    token: str  # in the names of the build's unfinished files

    def check(self) -> None:
        """Raises LostLock where the lock is no longer this build's."""
        found = _read(self.path)
        if found == self.record:
            return
        if found is None:
            why = f"its lock {self.path} was removed"
        else:
            why = f"another build, {_describe(_parse(found))}, took it over after {STALE_S:.0f} s without a sign of it"
        raise LostLock(f"this build has lost {self.path.parent} and steps back, leaving its files as they are: {why}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Around the publication of a file. Raises LostLock before it, or where the unfinished file was removed.

        A build that takes a folder over removes the unfinished files of the one before. A build that is suspended
        between the check and the renaming therefore renames nothing when it wakes up.
        """
        self.check()
        try:
            yield
        except FileNotFoundError:
            self.check()
            raise


class Lock:
    """Held while a build runs. Raises ValueError on entering where another build holds the folder."""

    def __init__(self, out: Path, part: tuple[int, int] | None) -> None:
        self.out = out
        self._name = LOCK if part is None else f"{LOCK}-{part[0]}-of-{part[1]}"
        self._part = part
        self._over = threading.Event()

    def __enter__(self) -> Claim:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            self._path = self.out.resolve() / self._name
            for path in {*self._others(), self._path}:
                _refuse_or_remove(path)
            self.claim = self._take()
            try:
                for path in self._others():  # a whole build and a part that start together see each other here
                    _refuse_or_remove(path)
            except ValueError:
                self._path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ValueError(f"{self.out} cannot be written to as a folder: {error.strerror}") from error
        threading.Thread(target=self._beat, daemon=True).start()
        return self.claim

    def _others(self) -> list[Path]:
        """The locks of builds that this one cannot run beside.

        A whole build runs beside none, a part beside parts of the same number only: of 2 and of 3 parts, two would
        write the same shards.
        """
        paths = [path for path in self._path.parent.glob(f"{LOCK}*") if path != self._path]
        if self._part is not None:
            paths = [path for path in paths if not path.name.endswith(f"-of-{self._part[1]}")]
        return sorted(paths)

    def _take(self) -> Claim:
        token = secrets.token_hex(8)
        record = orjson.dumps({**_place(), "pid": os.getpid(), "started": _started(os.getpid()), "token": token})
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError as error:
            raise ValueError(f"another build has just started on {self.out}") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(record)
        return Claim(self._path, record, token)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT_S):
            with suppress(OSError):  # a file server that is away for a while is back at a later beat
                if _read(self._path) != self.claim.record:
                    return
                os.utime(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if _read(self._path) == self.claim.record:
            self._path.unlink(missing_ok=True)


def living_tokens(out: Path) -> set[str]:
    """The tokens of the builds that hold locks in a folder and live: their unfinished files are not to be touched."""
    tokens = set()
    for path in out.glob(f"{LOCK}*"):
        owner = _parse(_read(path) or b"")
        if _lives(owner, path):
            tokens.add(str(owner.get("token")))
    return tokens


def _refuse_or_remove(path: Path) -> None:
    """Raises ValueError where the lock's owner lives; removes a lock that has none."""
    record = _read(path)
    if record is None:
        return
    owner = _parse(record)
    if _lives(owner, path):
        raise ValueError(
            f"{path.parent} is being written by another build, {_describe(owner)}: wait for it, or, should it be gone, "
            f"delete {path}"
        )
    if _read(path) == record:  # else another build has taken it over meanwhile
        path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parse(record: bytes) -> dict[str, Any]:
    """A lock's record; empty where its owner was killed before it wrote one, or where it is no record of ours."""
    try:
        owner = orjson.loads(record)
    except orjson.JSONDecodeError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(owner: dict[str, Any]) -> str:
    return f"on {owner.get('host', 'an unknown host')} with pid {owner.get('pid', 'unknown')}"


def _lives(owner: dict[str, Any], path: Path) -> bool:
    place = _place()
    if all(owner.get(name, place["boot"] if name == "boot" else None) == place[name] is not None for name in place):
        return _started(owner.get("pid")) == owner.get("started") is not None
    try:
        return _now(path.parent) - path.stat().st_mtime < STALE_S
    except FileNotFoundError:
        return False


def _now(folder: Path) -> float:
    """The time (s) by the clock that stamps the files of a folder: a file server's may differ from this machine's."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _place() -> dict[str, Any]:
    """The machine since its last start, and the PID namespace in which this process has its number.

    Containers share a machine and may share a host name; each counts its processes from 1.
    """
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return {"host": host, "boot": boot, "namespace": Path("/proc/self/ns/pid").stat().st_ino}
    except OSError:
        return {"host": host, "boot": None, "namespace": None}


def _started(pid: Any) -> str | None:
    """When a process began, in the kernel's ticks: a pid alone may have come to another process since.

    None where there is none, or only what is left of a killed one until its parent asks for its exit code.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None
