"""The places of the members of a tar, from its headers alone; nothing is extracted.

The standard library's tarfile reads the headers (40 microseconds a member) and ends silently at a damaged one: what
follows the last member is checked here. Formats: ustar, GNU and pax.
"""

from __future__ import annotations

import os
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

_BLOCK = 512
_EMPTY = bytes(_BLOCK)
_MAX_PADDING_BYTES = 16 << 20  # behind the closing block; tar pads to 10 KiB, drives of the past to a few MiB
_MAX_LINKS = 8  # one leading to another
_SPARSE = "a sparse member of a tar, which is not read"


class TarMember(NamedTuple):
    """A file in a tar, or a link to one."""

    name: str
    offset: int  # of its bytes; a link's are those of the member it leads to
    size: int
    mtime: int  # s
    link: str = ""  # the member that it leads to
    problem: str = ""  # why its bytes cannot be had


class CutTar(ValueError):
    """The tar's last member runs past its end, it is damaged, or the file is no tar."""


def scan_tar(path: Path, *, allow_cut: bool = False) -> list[TarMember]:
    """Files and links in the order of the tar; folders and devices are passed over.

    Raises CutTar where the tar is cut, damaged or no tar; with `allow_cut` what lies before the cut is returned.
    """
    members: list[TarMember] = []
    with path.open("rb") as file:
        try:
            for member in _members(file, path):
                members.append(member)  # what was found before an exception is kept
        except CutTar:
            if not allow_cut or not members:
                raise
    return _with_links(members) if any(member.link for member in members) else members


def _members(file: IO[bytes], path: Path) -> Iterator[TarMember]:
    at, end = 0, os.fstat(file.fileno()).st_size
    try:
        tar = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
        while (header := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # a drive of sensor fusion has a million
            at = tar.offset
            stop = header.offset_data + header.size
            if header.isreg() and not _is_sparse(header) and stop > end:
                raise CutTar(f"{path} is cut: {header.name} ends at byte {stop}, the file at byte {end}")
            if (member := _member(header)) is not None:
                yield member
        at = tar.offset
    except CutTar:
        raise
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise _damage(path, at, end) from error
    _check_end(file, at, end, path)


def _member(header: tarfile.TarInfo) -> TarMember | None:
    name, data, size, mtime = header.name, header.offset_data, header.size, int(header.mtime)
    if _is_sparse(header):
        return TarMember(name, data, size, mtime, problem=_SPARSE)
    if header.isreg():
        return TarMember(name, data, size, mtime)
    if not (header.islnk() or header.issym()):
        return None
    target = posixpath.join(posixpath.dirname(name), header.linkname) if header.issym() else header.linkname
    return TarMember(name, data, 0, mtime, link=posixpath.normpath(target))


def _is_sparse(header: tarfile.TarInfo) -> bool:
    return header.issparse() or any(key.startswith("GNU.sparse") for key in header.pax_headers)


def _with_links(members: Sequence[TarMember]) -> list[TarMember]:
    """Links as the files that they lead to inside the tar; the others say that they lead nowhere."""
    by_name = {posixpath.normpath(member.name): member for member in members}
    followed = []
    for member in members:
        target: TarMember | None = member
        for _ in range(_MAX_LINKS):
            if target is not None and target.link:
                target = by_name.get(target.link)
        if target is None or target.link:
            followed.append(member._replace(problem=f"a link to {member.link}, which is no file of the tar"))
        else:
            followed.append(target._replace(name=member.name, link=member.link))
    return followed


def _check_end(file: IO[bytes], at: int, end: int, path: Path) -> None:
    """Only padding may follow the last member: a download with a hole has empty blocks in its middle."""
    file.seek(at)
    if file.read(_BLOCK) != _EMPTY:
        raise _damage(path, at, end)
    if end - at > _MAX_PADDING_BYTES or file.read().strip(b"\0"):
        raise CutTar(f"{path} is cut or damaged: it closes at byte {at}, but goes on to byte {end}")


def _damage(path: Path, at: int, end: int) -> CutTar:
    if at == 0:
        return CutTar(f"{path} is no tar (a compressed one must be unpacked first)")
    if at >= end:
        return CutTar(f"{path} is cut: it ends at byte {end} without the closing block of a tar")
    return CutTar(f"{path} is cut or damaged: no valid member header at byte {at} of {end}")
