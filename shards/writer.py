"""Shards and records, written whole or not at all: a temporary name, flush, rename."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import tarfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO

_BLOCK = 512
PARTIAL = ".a2d2-partial"  # what a killed run leaves behind, and the next one removes


def partial_path(path: Path, owner: str) -> Path:
    """A name for an unfinished file that no other writer uses, not in another container or on another host either.

    It is `FILE.PID.NONCE-OWNER.a2d2-partial`; `owner` is the token of the build that writes it.
    """
    return path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}-{owner}{PARTIAL}")


def write_whole(path: Path, data: bytes, owner: str | None = None) -> None:
    """Write a small file under its final name, whole or not at all.

    With an `owner` several writers may do so at once, each with its own unfinished file; the last one wins.
    """
    if path.is_char_device() or path.is_block_device() or path.is_fifo():
        raise OSError(errno.EINVAL, "is a device, which a file would replace", str(path))
    partial = path.with_name(path.name + PARTIAL) if owner is None else partial_path(path, owner)
    try:
        with partial.open("wb") as file:
            file.write(data)
            flush_to_disk(file)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error  # of a full disk Python names no file
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush_to_disk(file: IO[bytes]) -> None:
    """After this the bytes survive a power cut."""
    file.flush()
    os.fsync(file.fileno())


class ShardWriter:
    """Writes one tar whose bytes depend on the members alone: plain ustar, mtime and owner 0.

    Use as a context manager; leaving it on an exception removes the unfinished file. Leaving it otherwise only
    flushes: `publish` gives the shard its final name, after its index has been written.
    """

    def __init__(self, path: Path, owner: str = "") -> None:
        self.path = path
        self._partial = partial_path(path, owner)
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> ShardWriter:
        self._file = self._partial.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = False
        try:
            if error is None:
                self._write(bytes(2 * _BLOCK))  # the end of an archive
                flush_to_disk(self._file)
                whole = True
        finally:
            if not whole:
                self._partial.unlink(missing_ok=True)
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._sha256.update(data)
        self.bytes += len(data)

    def add(self, name: str, data: bytes) -> tuple[int, int, int]:
        """Append a member. Returns (offset of its bytes, size, crc32), as the shard's index holds them."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        header.mode = 0o644
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self.bytes
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return offset, len(data), zlib.crc32(data)

    @property
    def sha256(self) -> str:
        """The sha256 of all bytes written so far, in hex."""
        return self._sha256.hexdigest()

    def publish(self) -> None:
        """Give the finished shard its final name."""
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove the finished shard instead."""
        self._partial.unlink(missing_ok=True)
