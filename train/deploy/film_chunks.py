"""The places of an AVI film's chunks: FFmpeg counts them as it reads, so a lost one shifts all that follow."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low
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
    path: Path, packets: Sequence[StoredPacket], stream: int, listed: Sequence[int]
) -> tuple[list[StoredPacket], frozenset[int]]:
    """The packets with times in chunks from 0, None for those whose place is not known; and the places of empty chunks.

    An empty chunk says that the frame before it is shown again. `listed` are the positions of the stream's chunks by
    the list at the file's end, which a cut takes away.
    """
    decoded = [packet.decode_time for packet in packets if packet.decode_time is not None]
    ticks = max(1, median_low([later - earlier for earlier, later in pairwise(decoded)] or [1]))
    placed: list[StoredPacket] = []
    empty: set[int] = set()
    for packet, (place, joined) in zip(packets, _places(path, packets, stream, listed, empty), strict=True):
        if placed and not joined:  # it ends elsewhere than it says, so it may hold a part of another
            placed[-1] = replace(placed[-1], whole=False)
        if place is None or packet.time is None or packet.decode_time is None:
            placed.append(replace(packet, time=None, decode_time=None))
        else:
            late = (packet.time - packet.decode_time) // ticks  # it is shown so many frames after it is decoded
            placed.append(replace(packet, time=place + late, decode_time=place))
    return placed, frozenset(empty)


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
        elif not of_stream and name not in _OTHER_CHUNKS and name[:2] != b"ix":
            return None
        at = at + _LIST_BYTES if name in _LISTS else _end_of_chunk(file, at)
    return count if at == start else None


def _end_of_chunk(file: BinaryIO, start: int) -> int:
    file.seek(start + 4)
    stored = file.read(4)
    size = struct.unpack("<I", stored)[0] if len(stored) == 4 else 0
    return int(start + _HEADER_BYTES + size + size % 2)
