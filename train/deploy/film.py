"""The frames of a film, each with its number and its time; what is lost of it is counted, never renumbered.

PyAV rather than OpenCV: its errors are errors, each frame has the film's own time, and its wheels decode AV1 and
MPEG-TS. A frame counts as lost where the file lacks it, where it cannot be decoded, and where it was drawn from a lost
one: those run up to the next frame that is coded on its own (a key frame).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from shards.draw import Picture
from train.deploy.film_breaks import Breaks
from train.deploy.film_index import FilmIndex, index_film
from train.deploy.film_packets import is_shown, picture_stream

# Errors in the coded pictures are raised, instead of being painted over with what is near.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
_NO_TIME = -(2**60)  # of a packet whose frame has no number
_RANGES = 4  # of lost frames that are named


@dataclass(frozen=True)
class FilmFrame:
    """One decoded frame."""

    number: int  # from 0, in the order of time
    time_s: float | None  # since frame 0; None where the file has no times
    image: Picture  # (H, W, 3) uint8 RGB, turned as the film says


@dataclass(frozen=True)
class FilmReport:
    """A remark on a film, with the number of frames that it lost."""

    words: str
    lost: int  # frames, at least 1 where any may be; 0 for a remark


def read_film(path: Path) -> Iterator[FilmFrame | FilmReport]:
    """The frames in the order of time; after them, what is lost and what is remarkable, if anything is."""
    try:
        with _opened(path) as (container, stream):
            index = index_film(path, container, stream)
        with _opened(path) as (container, stream):
            timed = bool(index.numbers)
            frames = _counted_frames(container, stream, index) if timed else _frames_without_times(container, stream)
            yield from _with_losses(index, frames)
    except (av.FFmpegError, ValueError, OSError, IndexError) as error:
        yield FilmReport(_words(error), 1)


def expected_frames(path: Path) -> int:
    """Frames by the film's header, at least 1: an estimate for a progress bar."""
    try:
        with _opened(path) as (container, stream):
            if stream.frames:
                return int(stream.frames)
            if container.duration and stream.average_rate:
                return max(1, round(container.duration / av.time_base * stream.average_rate))
    except (av.FFmpegError, ValueError, OSError):
        pass
    return 1


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with av.open(str(path), options=_STRICT, metadata_errors="replace") as container:
        stream = picture_stream(container)
        stream.codec_context.options = _STRICT
        stream.codec_context.thread_count = 1  # with more, an error may come with a later packet than its own
        yield container, stream


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, av.DecoderNotFoundError):
        return "a film of a codec that this installation's FFmpeg cannot decode"
    if isinstance(error, av.FFmpegError):
        return f"no film, or one that was cut or damaged so that it cannot be opened ({error.strerror})"
    return str(error)


def _with_losses(index: FilmIndex, frames: Iterable[FilmFrame]) -> Iterator[FilmFrame | FilmReport]:
    there = set()
    for frame in frames:
        there.add(frame.number)
        yield frame
    gaps = _gaps(there | index.repeats, index.total)
    count = sum(last - first + 1 for first, last in gaps)
    if not there and not count:
        yield FilmReport("; ".join(["a film without frames", *index.notes]), 1)
    elif count or index.notes:
        lost = [f"{count} of {index.total} frames are lost: {_ranges(gaps)}"] if count else []
        yield FilmReport("; ".join(lost + index.notes), max(1, count))
    if index.remarks:
        yield FilmReport("; ".join(index.remarks), 0)


def _gaps(numbers: Set[int], total: int) -> list[tuple[int, int]]:
    """First and last number of each gap in 0..total - 1; a damaged header may claim any total."""
    edges = [-1, *sorted(numbers), total]
    return [(before + 1, after - 1) for before, after in pairwise(edges) if after - before > 1]


def _ranges(gaps: Sequence[tuple[int, int]]) -> str:
    """`[(3, 3), (7, 9)]` -> `3, 7 to 9`."""
    shown = [f"{first}" if first == last else f"{first} to {last}" for first, last in gaps[:_RANGES]]
    return ", ".join(shown) + (f" and {len(gaps) - _RANGES} more ranges" if len(gaps) > _RANGES else "")


def _counted_frames(container: InputContainer, stream: VideoStream, index: FilmIndex) -> Iterator[FilmFrame]:
    """The frames that are whole, were drawn from whole ones, and come in the order of their numbers."""
    places = {time: place for place, time in enumerate(index.times) if time is not None}
    present = sorted(index.numbers.values())
    breaks = Breaks(index)
    held: deque[av.VideoFrame] = deque()  # a break may show after frames that were decoded behind it
    last, failed = -1, 0
    for frame in _decoded(container, stream, index.times, breaks):
        number = None if frame.pts is None else index.numbers.get(frame.pts)
        if number is None or frame.pts is None:
            continue
        if frame.is_corrupt:
            breaks.add(places[frame.pts])
        passed_over = bisect_left(present, number) - bisect_right(present, last)
        if number <= last or (passed_over > 0 and failed == breaks.failed):
            held.clear()  # decoders give frames in their order, so the times of these are wrong
            breaks.forget_key()
        if number > last:
            last, failed = number, breaks.failed
            held.append(frame)
        if len(held) > max(index.depth, stream.codec_context.reorder_depth):
            yield from _spared(held.popleft(), index, places, breaks)
    for frame in held:
        yield from _spared(frame, index, places, breaks)


def _spared(frame: av.VideoFrame, index: FilmIndex, places: Mapping[int, int], breaks: Breaks) -> Iterator[FilmFrame]:
    """The frame, unless a break reaches it."""
    assert frame.pts is not None, "frames get their numbers by their times"
    if breaks.spare(places[frame.pts], frame.key_frame):
        yield FilmFrame(index.numbers[frame.pts], index.time_s(frame.pts), _picture(frame))


def _frames_without_times(container: InputContainer, stream: VideoStream) -> Iterator[FilmFrame]:
    """The frames of a bare stream up to the first error: after it, nothing tells their numbers."""
    number = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            return
        for frame in frames:
            if frame.is_corrupt:
                return
            yield FilmFrame(number, None, _picture(frame))
            number += 1


def _decoded(
    container: InputContainer, stream: VideoStream, times: Sequence[int | None], breaks: Breaks
) -> Iterator[av.VideoFrame]:
    """Decoded frames with the packets' `times`. A packet with an error, which may give a frame too, is a break."""
    place = -1
    try:
        for packet in container.demux(stream):
            if is_shown(packet, stream):
                place += 1
                time = times[place] if place < len(times) else None
                packet.pts, packet.dts = _NO_TIME if time is None else time, None
            try:
                frames = packet.decode()
            except av.FFmpegError:
                breaks.add(place)
                continue
            yield from frames
    except (av.FFmpegError, IndexError):
        return  # the index ends here as well


def _picture(frame: av.VideoFrame) -> Picture:
    rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90))
