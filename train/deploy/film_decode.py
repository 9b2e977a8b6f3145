"""Decoded frames of a film with their numbers and times, without any that is damaged or was drawn from a lost one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from shards.draw import Picture
from train.deploy.film_breaks import Breaks
from train.deploy.film_index import MOST_REORDERED, FilmIndex
from train.deploy.film_packets import is_shown

_NO_TIME = -(2**60)  # of a packet whose frame has no number


@dataclass(frozen=True)
class FilmFrame:
    """One decoded frame."""

    number: int  # from 0, in the order of time
    time_s: float | None  # since frame 0; None where the file has no times
    image: Picture  # (H, W, 3) uint8 RGB, turned as the film says


def decode_film(container: InputContainer, stream: VideoStream, index: FilmIndex) -> Iterator[FilmFrame]:
    """The sound frames of a film that was just opened, in the order of their numbers."""
    if index.by_place:
        return _frames_by_place(container, stream, index)
    if index.times:
        return _frames_by_time(container, stream, index)
    return _frames_without_times(container, stream)


def _frames_by_place(container: InputContainer, stream: VideoStream, index: FilmIndex) -> Iterator[FilmFrame]:
    """The frames of a film whose packets have places in decoding order instead of times.

    A key frame's number is its place and the number of frames behind it that are shown before it. After it each picture
    is the next, until something is lost: then the numbers are unknown up to the following key frame.
    """
    rows = {place: row for row, place in enumerate(index.times) if place is not None}
    breaks = Breaks(index)
    shown: deque[int] = deque(maxlen=2 * MOST_REORDERED)  # places of the last pictures
    number: int | None = None
    reached = 0
    for frame in _decoded(container, stream, index.times, breaks):
        place = frame.pts
        if place not in rows or frame.is_corrupt or breaks.reached() != reached:
            number, reached = None, breaks.reached()
        if place is None or place not in rows:
            continue
        if frame.key_frame and not frame.is_corrupt and not breaks.is_behind(rows[place]):
            number = place + sum(behind > place for behind in shown)
        shown.append(place)
        if number is not None and abs(number - place) <= MOST_REORDERED:
            yield FilmFrame(number, index.time_s(number), _picture(frame))
            number += 1
            while number in index.repeats:
                number += 1


def _frames_by_time(container: InputContainer, stream: VideoStream, index: FilmIndex) -> Iterator[FilmFrame]:
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
            if is_shown(packet, stream) or not packet.size:  # the last is empty, and asks for what was held back
                place += 1
                breaks.decoded = place
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
