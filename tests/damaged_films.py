"""Copies of films with damage, and what became of their frames."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import eq
from pathlib import Path

import av

from tests.numbered_films import shown_number
from train.deploy.film import FilmReport, read_film
from train.deploy.film_decode import FilmFrame
from train.deploy.film_index import index_film
from train.deploy.film_packets import is_shown, picture_stream

TS_PACKET_BYTES = 188
WAYS = ("cut", "flip", "flips", "zeros", "hole", "piece")


@dataclass
class Verdict:
    """What became of a film's frames."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def damage(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """A damaged copy, and how it was damaged."""
    way = draw.choice(WAYS)
    damaged = bytearray(data)
    at = draw.randrange(len(data))
    size = draw.randrange(1, max(2, len(data) // 20))
    if way == "cut":
        del damaged[max(1, at) :]
    elif way == "flip":
        damaged[at] ^= 1 << draw.randrange(8)
    elif way == "flips":
        for _ in range(draw.randrange(2, 12)):
            damaged[draw.randrange(len(data))] = draw.randrange(256)
    elif way == "zeros":
        damaged[at : at + size] = bytes(len(damaged[at : at + size]))
    elif way == "hole":
        del damaged[at : at + size]
    else:
        damaged[at:at] = draw.randbytes(size)
    return f"{way} at {at} of {len(data)}", bytes(damaged)


def judge(path: Path, intact: Mapping[int, bytes]) -> Verdict:
    """Compare the numbers that frames have with those that they show, and the losses with what is lacking.

    `intact` are the packets of the whole film by frame number. Codecs without checksums decode some damaged packets
    without an error: a frame that shows another number is no other frame if its packet is the damaged one of its own.
    """
    verdict = Verdict()
    found = list(read_film(path))
    frames = [part for part in found if isinstance(part, FilmFrame)]
    said = [part.words for part in found if isinstance(part, FilmReport)]
    stored = packets_by_number(path) if frames else {}
    # A transport stream does not say where it began, and an edit list cuts a film's beginning off.
    shifted = path.suffix == ".ts" or any("edit list" in words for words in said)
    shown = [shown_number(frame.image) for frame in frames]
    beginning = shown[0] - frames[0].number if shifted and shown and shown[0] is not None else 0
    for frame, number in zip(frames, shown, strict=True):
        if number == frame.number + beginning:
            verdict.counts["right"] += 1
        elif number is None or frame.number in _likest(stored.get(frame.number, b""), intact):
            verdict.counts["damaged picture"] += 1
        else:
            verdict.counts["another frame"] += 1
            verdict.wrong.append(f"frame {frame.number} shows {number}")
    if beginning and not said:
        verdict.counts["silent"] += beginning
        verdict.wrong.append(f"{beginning} frames are lost at the beginning without a word")
    there = {frame.number for frame in frames}
    lost = len(intact) - len(there & set(range(len(intact))))
    verdict.counts["lost"] = lost
    whole_packets = path.suffix == ".ts" and path.stat().st_size % TS_PACKET_BYTES == 0
    if lost and not said and not whole_packets:  # nothing shows that a transport stream was longer
        verdict.counts["silent"] += lost
        verdict.wrong.append(f"{lost} frames are lost without a word")
    return verdict


def packets_by_number(path: Path) -> dict[int, bytes]:
    """The packets of a film by the numbers of their frames."""
    with av.open(str(path), metadata_errors="replace") as container:
        index = index_film(path, container, picture_stream(container))
    packets = {}
    times = iter(index.times)
    with av.open(str(path), metadata_errors="replace") as container:
        stream = picture_stream(container)
        packets_there = container.demux(stream)
        while True:
            try:
                packet = next(packets_there)
            except (StopIteration, av.FFmpegError, IndexError):
                break
            if not is_shown(packet, stream) or (time := next(times, None)) is None:
                continue
            if (number := time if index.by_place else index.numbers.get(time)) is not None:
                packets[number] = bytes(packet)
    return packets


def _likest(packet: bytes, intact: Mapping[int, bytes]) -> set[int]:
    """The numbers of the packets that share most bytes with this one, from the beginning and from the end."""

    def shared(number: int, step: int) -> float:
        other = intact[number]
        return sum(map(eq, packet[::step], other[::step])) / max(len(packet), len(other), 1)

    return {max(intact, key=lambda number: shared(number, step)) for step in (1, -1)}
