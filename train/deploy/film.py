"""The frames of a film, each with its number and its time; what is lost of it is counted, never renumbered.

PyAV rather than OpenCV: its errors are errors, each frame has the film's own time, and its wheels decode AV1 and
MPEG-TS. A frame counts as lost where the file lacks it, where it cannot be decoded, and where it was drawn from a lost
one: those run up to the next frame that is coded on its own (a key frame).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from train.deploy.film_decode import FilmFrame, decode_film
from train.deploy.film_index import FilmIndex, index_film
from train.deploy.film_packets import picture_stream

# Errors in the coded pictures are raised, instead of being painted over with what is near.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
_NO_TIME = -(2**60)  # of a packet whose frame has no number
_RANGES = 4  # of lost frames that are named


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
            yield from _with_losses(index, decode_film(container, stream, index))
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
