"""The frames of a film, each with its number and its time; what is lost of it is counted, never renumbered.

PyAV rather than OpenCV: its errors are errors, each frame has the film's own time, and its wheels decode AV1 and
MPEG-TS. A frame counts as lost where the file lacks it, where it cannot be decoded, and where it was drawn from a lost
one: those run up to the next frame that is coded on its own (a key frame).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from shards.draw import Picture
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
    """What must be said of a film beside its frames."""

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
    except (av.FFmpegError, ValueError, OSError) as error:
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
    held: deque[tuple[int, av.VideoFrame]] = deque()  # shown before a lost frame that they may be drawn from
    last, broken = -1, True
    numbers = dict(index.numbers)  # without those of frames that cannot be decoded
    for frame in _decoded(container, stream, index.times, numbers):
        number = None if frame.pts is None else numbers.get(frame.pts)
        if number is None or frame.is_corrupt:
            continue
        if number <= last or any(between not in index.repeats for between in range(last + 1, number)):
            broken = True
            while held and (number <= last or not held[-1][1].key_frame):
                held.pop()
        broken = broken and not (frame.key_frame and number > last)
        last = max(last, number)
        if not broken:
            held.append((number, frame))
            if len(held) > max(index.depth, stream.codec_context.reorder_depth):
                yield _film_frame(*held.popleft(), index)
    for number, frame in held:
        yield _film_frame(number, frame, index)


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
    container: InputContainer, stream: VideoStream, times: Sequence[int | None], numbers: dict[int, int]
) -> Iterator[av.VideoFrame]:
    """Decoded frames with the packets' `times`; a packet with an error loses its number, as it may give a frame too."""
    following = iter(times)
    try:
        for packet in container.demux(stream):
            time = None
            if is_shown(packet, stream):
                time = next(following, None)
                packet.pts, packet.dts = _NO_TIME if time is None else time, None
            try:
                frames = packet.decode()
            except av.FFmpegError:
                numbers.pop(_NO_TIME if time is None else time, None)
                continue
            yield from frames
    except av.FFmpegError:
        return  # the index ends here as well


def _film_frame(number: int, frame: av.VideoFrame, index: FilmIndex) -> FilmFrame:
    assert frame.pts is not None, "frames get their numbers by their times"
    return FilmFrame(number, index.time_s(frame.pts), _picture(frame))


def _picture(frame: av.VideoFrame) -> Picture:
    rgb = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90))
