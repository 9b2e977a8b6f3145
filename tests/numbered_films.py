"""Small films whose pictures show their own frame numbers, to see whether a frame is the one that it is said to be."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from shards.draw import Picture

WIDTH_PX, HEIGHT_PX = 96, 64
_BITS = 12  # eight of the number, four that check it
_CELL_PX = WIDTH_PX // _BITS
_GREY = 64  # levels about the middle that are neither black nor white


@dataclass(frozen=True)
class Film:
    """How a film is coded."""

    suffix: str  # of its container
    codec: str
    reordered: int = 0  # frames in a row that are shown before the frame they were drawn from
    key_every: int = 12
    rate: int = 10  # frames per second
    uneven: bool = False  # every third frame comes late
    pixels: str = "yuv420p"


FILMS = {
    "mp4 h264": Film(".mp4", "libx264", reordered=2),
    "mp4 uneven": Film(".mp4", "libx264", rate=30, uneven=True),
    "mkv h264": Film(".mkv", "libx264", reordered=2, rate=30),
    "avi mpeg4": Film(".avi", "mpeg4", reordered=2),
    "avi h264": Film(".avi", "libx264", reordered=2),
    "avi mjpeg": Film(".avi", "mjpeg", pixels="yuvj420p"),
    "ts h264": Film(".ts", "libx264", reordered=2, rate=25),
    "ts mpeg2": Film(".ts", "mpeg2video", rate=25, reordered=2),
    "webm vp9": Film(".webm", "libvpx-vp9", rate=30),
    "webm av1": Film(".webm", "libsvtav1", rate=25),
}


def numbered_picture(number: int) -> Picture:
    """(64, 96, 3): number and check in black and white cells, under them the complement; below them a moving ramp."""
    picture = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for bit in range(_BITS):
        columns = slice(bit * _CELL_PX, (bit + 1) * _CELL_PX)
        set_bit = bool(_checked(number) >> bit & 1)
        picture[:20, columns] = 255 * set_bit
        picture[20:40, columns] = 255 * (not set_bit)
    ramp = (np.arange(WIDTH_PX) * 5 + 11 * number) % 256
    picture[40:] = ramp[None, :, None]
    return picture


def shown_number(picture: Picture) -> int | None:
    """The number that a picture shows; None where its cells contradict each other or are grey."""
    number = 0
    for bit in range(_BITS):
        columns = slice(bit * _CELL_PX + 2, (bit + 1) * _CELL_PX - 2)
        upper, lower = picture[4:16, columns].mean(), picture[24:36, columns].mean()
        if abs(upper - 127.5) < _GREY or abs(lower - 127.5) < _GREY or (upper > 127.5) == (lower > 127.5):
            return None
        number |= int(upper > 127.5) << bit
    return number & 255 if number == _checked(number & 255) else None


def _checked(number: int) -> int:
    """The number with four bits more that differ by several where numbers differ by one."""
    return number | (number * 11 + (number >> 4) * 7) % 16 << 8


def write_film(path: Path, film: Film, frames: int) -> Path:
    """A film of that many numbered pictures."""
    with av.open(str(path), "w") as container:
        options = {
            "libsvtav1": {"crf": "12", "preset": "8", "svtav1-params": "enable-tf=0:pred-struct=1:lp=1"},
            "libx264": {"crf": "20"},
            "libvpx-vp9": {"crf": "20"},
        }
        stream = container.add_stream(film.codec, rate=film.rate, options=options.get(film.codec, {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, film.pixels
        stream.codec_context.gop_size = film.key_every
        stream.codec_context.max_b_frames = film.reordered
        ticks = 4 if film.uneven else 1  # per frame
        stream.codec_context.time_base = Fraction(1, film.rate * ticks)
        stream.codec_context.thread_count = 1
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            picture.pts = ticks * number + (film.uneven and number % 3 == 1)
            picture.time_base = Fraction(1, film.rate * ticks)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path
