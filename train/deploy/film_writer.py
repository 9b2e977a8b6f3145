"""A film of pictures with a time each: MP4 with H.264, or with MPEG-4 where FFmpeg has no H.264 encoder."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from shards.draw import Picture
from shards.writer import PARTIAL

_TICKS_PER_S = 90_000
_UNTIMED_RATE = 25  # frames per second of a film whose frames have no times
_CODECS = {"libx264": {"preset": "veryfast", "crf": "21"}, "mpeg4": {"qscale": "3"}}  # the first that is there


class FilmWriter:
    """Writes one film, which has its name only once `close` was called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(path.name + PARTIAL)
        codec = next(name for name in _CODECS if name in av.codecs_available)
        self._container = av.open(str(self._partial), "w", format="mp4")
        stream = self._container.add_stream(codec, rate=_UNTIMED_RATE, options=_CODECS[codec])
        assert isinstance(stream, VideoStream), "the codecs are of pictures"
        self._stream = stream
        self._stream.pix_fmt = "yuv420p"
        self._size_px: tuple[int, int] | None = None  # width and height
        self._last = -1  # ticks

    def add(self, picture: Picture, time_s: float | None) -> None:
        """A picture (H, W, 3) uint8 RGB, shown from `time_s` on; times rise. All get the size of the first."""
        if self._size_px is None:
            height, width = (side - side % 2 for side in picture.shape[:2])  # the codec halves the resolution of colour
            self._size_px = width, height
            self._stream.width, self._stream.height = self._size_px
            self._stream.codec_context.time_base = Fraction(1, _TICKS_PER_S)
        width, height = self._size_px
        if abs(picture.shape[0] - height) < 2 and abs(picture.shape[1] - width) < 2:
            picture = picture[:height, :width]
        if picture.shape[:2] != (height, width):
            picture = np.asarray(cv2.resize(picture, self._size_px, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        step = _TICKS_PER_S // _UNTIMED_RATE
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = self._last + step if time_s is None else max(self._last + 1, round(time_s * _TICKS_PER_S))
        frame.time_base = Fraction(1, _TICKS_PER_S)
        self._last = frame.pts
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the film and give it its name."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove the unfinished film."""
        self._container.close()
        self._partial.unlink(missing_ok=True)
