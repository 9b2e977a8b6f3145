"""Where the members of a tar lie, from its headers alone; nothing is extracted.

The standard library's tarfile takes 0.05 ms a member and ends silently at a damaged header; this scan takes a
tenth of that and says where the tar is damaged. Formats: ustar, GNU and PAX (Python's tarfile documentation and
POSIX.1-2001 pax describe them).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import adler32

_BLOCK = 512
_EMPTY = bytes(_BLOCK)
_SPACES = 8 * ord(" ")
_READ_BYTES = 4 * _BLOCK
_REGULAR, _HARD_LINK, _SYMBOLIC_LINK, _GNU_SPARSE = b"0\x007", b"1", b"2", b"S"
_WITHOUT_DATA = b"123456"  # links, devices, folders, pipes
_MAX_NAME_BYTES = 1 << 20  # of a GNU long name or a PAX header
_MAX_PADDING_BYTES = 16 << 20  # behind the closing block; tar pads to 10 KiB, drives of the past to a few MiB
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=\n]*)=")
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
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for member in _members(_Reader(descriptor), path):
            members.append(member)  # what was found before an exception is kept
    except CutTar:
        if not allow_cut or not members:
            raise
    finally:
        os.close(descriptor)
    return _with_links(members) if any(member.link for member in members) else members


class _Reader:
    """Reads at any place, always some more: a long name lies before its header, and small files lie close."""

    def __init__(self, descriptor: int) -> None:
        self.bytes = os.fstat(descriptor).st_size
        self._descriptor, self._start, self._data = descriptor, 0, b""

    def read(self, at: int, size: int) -> bytes:
        """`size` bytes from `at` on, fewer at the end of the file."""
        first = at - self._start
        part = self._data[first : first + size] if first >= 0 else b""
        if len(part) == size:
            return part
        self._start, self._data = at, os.pread(self._descriptor, max(size, _READ_BYTES), at)
        return self._data[:size]


def _members(tar: _Reader, path: Path) -> Iterator[TarMember]:
    at, end = 0, tar.bytes
    override: dict[str, str] = {}
    while True:
        header = tar.read(at, _BLOCK)
        if len(header) < _BLOCK or not _checksum_holds(header):
            if header == _EMPTY:
                return _check_end(tar, at, path)
            raise _damage(path, at, end)
        kind, size, data = header[156:157], _number(header[124:136]), at + _BLOCK
        if kind == _GNU_SPARSE:
            data = _after_sparse_map(tar, header, data)
        if kind in _WITHOUT_DATA:
            size = 0  # whatever the header says
        elif override and kind not in b"xgLK":
            size = int(override.get("size", size))
        at = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
        if size < 0 or data + size > end:
            name = override.get("path") or _name(header)
            raise CutTar(f"{path} is cut: {name} ends at byte {data + size}, the file at byte {end}")
        if kind in b"xLK":
            override |= _long_header(kind, tar.read(data, min(size, _MAX_NAME_BYTES)))
        elif kind != b"g":
            if (member := _member(kind, header, override, data, size)) is not None:
                yield member
            override = {}


def _member(kind: bytes, header: bytes, override: dict[str, str], data: int, size: int) -> TarMember | None:
    name, mtime = override.get("path") or _name(header), _number(header[136:148])
    if kind == _GNU_SPARSE or "GNU.sparse" in override:
        return TarMember(override.get("GNU.sparse.name", name), data, size, mtime, problem=_SPARSE)
    if kind in _REGULAR:
        return TarMember(name, data, size, mtime)
    if kind not in (_HARD_LINK, _SYMBOLIC_LINK):
        return None
    target = override.get("linkpath") or _text(header[157:257])
    if kind == _SYMBOLIC_LINK:
        target = posixpath.join(posixpath.dirname(name), target)
    return TarMember(name, data, 0, mtime, link=posixpath.normpath(target))


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


def _damage(path: Path, at: int, end: int) -> CutTar:
    if at == 0:
        return CutTar(f"{path} is no tar (a compressed one must be unpacked first)")
    if at >= end:
        return CutTar(f"{path} is cut: it ends at byte {end} without the closing block of a tar")
    return CutTar(f"{path} is cut or damaged: no valid member header at byte {at} of {end}")


def _check_end(tar: _Reader, at: int, path: Path) -> None:
    """Behind the closing block only padding may follow: a download with a hole has empty blocks in its middle."""
    if tar.bytes - at > _MAX_PADDING_BYTES or tar.read(at, tar.bytes - at).strip(b"\0"):
        raise CutTar(f"{path} is cut or damaged: it closes at byte {at}, but goes on to byte {tar.bytes}")


def _checksum_holds(header: bytes) -> bool:
    """Whether the sum of all bytes is the stored one, whose own eight count as spaces.

    The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521: fifty times as fast as sum().
    """
    field = header[148:156]
    try:
        stored = int(field.strip(b"\0 "), 8)
    except ValueError:
        return False
    return ((adler32(header) & 0xFFFF) - (adler32(field) & 0xFFFF) + _SPACES - stored) % 65521 == 0


def _number(text: bytes) -> int:
    """Octal, or base 256 where the first bit is set (GNU, sizes over 8 GiB)."""
    if text[0] & 0x80:
        return int.from_bytes(text[1:], "big", signed=bool(text[0] & 0x40))
    try:
        return int(text.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return -1


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])


def _long_header(kind: bytes, data: bytes) -> dict[str, str]:
    if kind == b"x":
        return _pax_records(data)
    return {"path" if kind == b"L" else "linkpath": _text(data)}


def _pax_records(data: bytes) -> dict[str, str]:
    """`<length> <key>=<value>\\n`, length counting itself; any key of a sparse file's sets `GNU.sparse` too."""
    records: dict[str, str] = {}
    at = 0
    while match := _PAX_RECORD.match(data, at):
        end = at + int(match[1])
        if data[end - 1 : end] != b"\n":
            break
        key, value = match[2].decode("utf-8", "replace"), data[match.end() : end - 1]
        if key != "size" or (value.isdigit() and len(value) < 20):
            records[key] = value.decode("utf-8", "surrogateescape")
        if key.startswith("GNU.sparse"):
            records["GNU.sparse"] = ""
        at = end
    return records


def _after_sparse_map(tar: _Reader, header: bytes, at: int) -> int:
    more = header[482]
    while more:
        block = tar.read(at, _BLOCK)
        more = block[504] if len(block) == _BLOCK else 0
        at += _BLOCK
    return at
