"""The places of an AVI film's chunks: FFmpeg counts them as it reads, so a lost one shifts all that follow."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from train.deploy.film_packets import StoredPacket

_HEADER_BYTES = 8  # of a chunk: its name and its size
_LIST_BYTES = 12  # of a list, which holds chunks: its header and its kind
_CHUNK = re.compile(rb"(\d\d)(dc|db|wb|pc|tx|sb)")  # a stream's number, and what the chunk holds
_PICTURES = (b"dc", b"db")
_LISTS = (b"LIST", b"RIFF")
_OTHER_CHUNKS = (*_LISTS, b"JUNK", b"idx1")
_SEARCHED_BYTES = 1 << 20  # at the file's beginning, for the list of chunks


def place_chunks(
    path: Path, packets: Sequence[StoredPacket], stream: int, total: int
) -> tuple[list[StoredPacket], frozenset[int], int]:
    """The packets with their places among the stream's chunks as times; the places of empty chunks; chunks listed.

    A place is None where it is not known. An empty chunk says that the frame before it is shown again. `total` are the
    chunks by the header.
    """
    with path.open("rb") as file:
        listed = _listed(file, stream)
        listed = listed if len(listed) >= total else []  # an entry is damaged, and those after it would count too low
        last = (packets[-1].position or 0) - _HEADER_BYTES if packets else 0
        file.seek(_end_of_chunk(file, last) if packets else 0)
        ended = file.read(4) == b"idx1"
    placed: list[StoredPacket] = []
    empty: set[int] = set()
    for packet, (place, joined) in zip(packets, _places(path, packets, stream, listed, empty), strict=True):
        if placed and not joined:  # it ends elsewhere than it says, so it may hold a part of another
            placed[-1] = replace(placed[-1], whole=False)
        placed.append(replace(packet, time=place))
    if ended and not listed and len(placed) + len(empty) < total:  # some are missing, and nothing tells where
        placed = [replace(packet, time=None) for packet in placed]
    return placed, frozenset(empty), len(listed)


def _listed(file: BinaryIO, stream: int) -> list[int]:
    """The positions of the stream's chunks by the list behind them, if the file is whole up to there; a cut takes it.

    FFmpeg has such a list in any case, but where the file has none it is of the chunks that FFmpeg found.
    """
    at = _LIST_BYTES
    chunks_at = 0
    while True:
        file.seek(at)
        header = file.read(_LIST_BYTES)
        if len(header) < _LIST_BYTES or header[:4] not in (b"LIST", b"JUNK", b"idx1"):
            return []
        if header[8:] == b"movi":
            chunks_at = at + _HEADER_BYTES
        if header[:4] == b"idx1" and chunks_at:
            break
        at = _end_of_chunk(file, at)
    end = _end_of_chunk(file, at)
    file.seek(at + _HEADER_BYTES)
    content = file.read(end - at - _HEADER_BYTES)
    entries = list(struct.iter_unpack("<4sIII", content[: len(content) // 16 * 16]))
    names = [f"{stream:02d}".encode() + kind for kind in _PICTURES]
    first = next((position for name, _, position, _ in entries), 0)
    start = 0 if first > chunks_at else chunks_at  # some count from the file's beginning
    return [start + position for name, _, position, _ in entries if name in names]


def _places(
    path: Path, packets: Sequence[StoredPacket], stream: int, listed: Sequence[int], empty: set[int]
) -> Iterator[tuple[int | None, bool]]:
    """The place of each packet, and whether only chunks lie between it and the one before.

    The place is one more than the last where that is so, else by the list, and None from where that does not help. The
    places of the empty chunks between them are added to `empty`.
    """
    by_list = {position: place for place, position in enumerate(listed)}
    with path.open("rb") as file:
        at = file.read(_SEARCHED_BYTES).find(b"movi") + 4
        place: int | None = 0
        before: int | None = None
        for packet in packets:
            start = (packet.position or 0) - _HEADER_BYTES
            passed = _chunks_between(file, at, start, stream)
            if place is not None and passed is not None:
                empty.update(range(place, place + passed))  # FFmpeg passes over no other chunk of the stream
                place += passed
            elif place is not None and start in by_list and (before is None or before in by_list):
                place = by_list[start] + (0 if before is None else place - by_list[before] - 1)
            else:
                place = None
            yield place, passed is not None
            place = None if place is None else place + 1
            before, at = start, _end_of_chunk(file, start)


def _chunks_between(file: BinaryIO, at: int, start: int, stream: int) -> int | None:
    """The stream's chunks from `at` to `start`; None where what lies between is not all chunks."""
    count = 0
    while at < start:
        file.seek(at)
        name = file.read(4)
        of_stream = _CHUNK.fullmatch(name)
        if of_stream and int(of_stream[1]) == stream:
            if of_stream[2] not in _PICTURES:
                return None
            count += 1
        elif (of_stream and of_stream[2] in _PICTURES) or (
            not of_stream and name not in _OTHER_CHUNKS and name[:2] != b"ix"
        ):  # rather a damaged name than a second stream of pictures
            return None
        at = at + _LIST_BYTES if name in _LISTS else _end_of_chunk(file, at)
    return count if at == start else None


def _end_of_chunk(file: BinaryIO, start: int) -> int:
    file.seek(start + 4)
    stored = file.read(4)
    size = struct.unpack("<I", stored)[0] if len(stored) == 4 else 0
    return int(start + _HEADER_BYTES + size + size % 2)
