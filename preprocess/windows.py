"""Each frame's share of its scene's bus file, which is parsed once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from preprocess.absent import Absent, Mismatch, reason_of
from preprocess.bus import BusWindow, bus_windows, read_timestamp_us
from preprocess.source import FileRef, Frame

NO_BUS_WINDOW = BusWindow()


class BusWindows:
    """The bus windows of the frames given, scene by scene as they are asked for; only the signals named are kept."""

    def __init__(self, files: Mapping[str, FileRef], signals: Collection[str], frames: Iterable[Frame]) -> None:
        self._files = files  # by scene
        self._signals = signals
        self._frames: dict[str, list[Frame]] = {}
        for frame in frames:
            self._frames.setdefault(frame.scene, []).append(frame)
        self._windows: dict[str, dict[str, BusWindow]] = {}  # by scene, then by key

    def of(self, frame: Frame) -> BusWindow:
        """The frame's window, or why there is none."""
        if frame.scene not in self._windows:
            self._windows[frame.scene] = self._read(frame.scene)
        return self._windows[frame.scene].pop(frame.key)  # asked for once: what is handed on is not kept here too

    def _read(self, scene: str) -> dict[str, BusWindow]:
        file, frames = self._files.get(scene), self._frames[scene]
        if file is None:
            return {frame.key: NO_BUS_WINDOW for frame in frames}
        try:
            return bus_windows(file.read(), self._signals, frames, timestamp_us)
        except Mismatch as reason:
            return {frame.key: BusWindow(mismatch=str(reason)) for frame in frames}
        except (ValueError, OSError) as error:
            return {frame.key: BusWindow(bad=reason_of(error)) for frame in frames}


def timestamp_us(frame: Frame) -> int | None:
    """The exposure's time; None where there is none that can be read, which the conversion of the frame notes."""
    try:
        return read_timestamp_us(frame.files["camera_json"].read())
    except (Absent, KeyError, ValueError, OSError):
        return None
