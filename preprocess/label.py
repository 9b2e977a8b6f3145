"""The interface of a label's converter: what it may use, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from preprocess.absent import Absent, Mismatch
from preprocess.bus import BusWindow
from preprocess.image import PixelMaps
from preprocess.rules import Rules
from preprocess.source import Frame
from shards.geometry import Intrinsics

Section = dict[str, Any]  # a label's part of meta.json


class LabelMember(NamedTuple):
    """A converted label: the name of its member, the member's bytes, and its section of meta.json."""

    name: str
    data: bytes
    section: Section


@dataclass(frozen=True)
class LabelInput:
    """Everything that the conversion of a frame's label may use."""

    frame: Frame
    bus: BusWindow  # the frame's share of its scene's bus file
    camera_time_us: int | None  # the time of the exposure in the camera JSON; None without one
    original_hw: tuple[int, int]  # height and width of the stored image, px
    pixel_maps: Callable[[], PixelMaps]  # of the frame's camera; made on the first call in a process
    rules: Rules
    intrinsics: Intrinsics | None = None  # of the undistorted image, where pixels can be compared with points

    def read(self, kind: str) -> bytes:
        """The bytes of one of the frame's files. Raises Absent where the frame has none of this kind."""
        if kind in self.frame.passed_over:
            raise Mismatch(self.frame.passed_over[kind])
        if kind not in self.frame.files:
            raise Absent("no file")
        return self.frame.files[kind].read()


def _no_signals(_: Any) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class LabelConverter:
    """The conversion of one label, and the files and signals that it needs.

    `convert` raises Absent where the frame does not have the label for a reason that A2D2 is known to have, and
    ValueError where its file is bad. It depends on nothing but its input, so that equal files give equal bytes.
    """

    convert: Callable[[LabelInput], LabelMember]
    files: tuple[str, ...]  # the files that decide the label: kinds of a frame's files, and "bus" for the scene's
    signals: Callable[[Any], tuple[str, ...]] = _no_signals  # the label's rule -> the bus signals that it needs
