"""A scene's bus file to one small window per frame: parsed once, and nothing built of what no rule asks for.

A2D2 has two forms. The semantic set's is a list with a record per camera frame; sensor fusion's is an object with
every signal over the whole drive, of which a frame's window is what lies around its time; where the recording does
not run on from before the image to after it there is none, however many values lie elsewhere. Signals that nobody asks
for are passed over without making a Python object of them, and a window keeps its series as JSON: what is wrong in
one spoils that frame alone.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from preprocess.absent import Absent, Mismatch
from preprocess.source import Frame
from shards.codec import decode_json

VALUES_BEFORE, VALUES_AFTER = 11, 10  # of a sensor-fusion window: up to the image's time, and later
MAX_GAP_US = 1_000_000  # between its neighbours, the image among them: signals come every 10 to 50 ms

_LIST = re.compile(rb"\s*\[")
_FRAME_NAME = re.compile(rb'^"(?P<stamp>\d{14})_camera_(?P<camera>[a-z]+)_(?P<id>\d+)\.(?:json|png)"$')
_time_us = itemgetter(0)  # of a pair of sensor fusion
_NULL = Raw(b"null")
_TIMES_END_US = 1 << 62  # so that differences are 64-bit numbers
_Microseconds = Annotated[int, Meta(ge=0, lt=_TIMES_END_US)]
_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True)
class BusWindow:
    """A frame's share of its scene's bus file: about 1 KB, so that it can be sent to whoever converts the frame."""

    timestamp_us: int | None = None  # the record's
    series: Mapping[str, bytes] | None = None  # signal -> `{"timestamps", "values", "unit"}` as JSON; None: no record
    bad: str = ""  # why it cannot be read
    absent: str = ""  # why there are no values for this frame, though the file can be read
    mismatch: str = ""  # why its values are not believed

    def signals(self) -> dict[str, Any] | None:
        """Signal -> its series; None without a record. Raises ValueError where they cannot be read, else Absent."""
        if self.bad:
            raise ValueError(f"bus file: {self.bad}")
        if self.absent:
            raise Absent(self.absent)
        if self.mismatch:
            raise Mismatch(self.mismatch)
        if self.series is None:
            return None
        return {signal: decode_json(series) for signal, series in self.series.items()}


class _Record(Struct, gc=False):
    """One of the semantic set's."""

    frame_name: Raw = _NULL
    timestamp: Raw = _NULL
    flexray: Raw = _NULL


class _Drive(Struct):
    """A signal of sensor fusion."""

    values: list[tuple[_Microseconds, Any]]
    unit: Any = None


_RECORDS = msgspec.json.Decoder(list[_Record])
_SIGNALS = msgspec.json.Decoder(dict[str, Raw])
_DRIVE = msgspec.json.Decoder(_Drive)
_MICROSECONDS = msgspec.json.Decoder(_Microseconds)


def _decode(decoder: msgspec.json.Decoder[_Decoded], data: bytes | Raw) -> _Decoded:
    """Decoded JSON. Raises ValueError where it is none, or of other types."""
    try:
        return decoder.decode(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_timestamp_us(camera_json: bytes) -> int:
    """The exposure's time in a camera JSON. Raises ValueError where it has none."""
    document = decode_json(camera_json)
    stamp = document.get("cam_tstamp") if isinstance(document, Mapping) else None
    if type(stamp) is not int or not 0 <= stamp < _TIMES_END_US:
        raise ValueError(f"cam_tstamp must be microseconds, got {str(stamp)[:40]}")
    return stamp


def bus_windows(
    data: bytes, signals: Collection[str], frames: Sequence[Frame], timestamp_us: Callable[[Frame], int | None]
) -> dict[str, BusWindow]:
    """The windows of a scene's frames by key, from its `<stamp>_bus_signals.json`.

    `timestamp_us` gives a frame's time, and is asked for sensor fusion alone; a frame without one has no record
    there. Raises ValueError where the file is of neither form.
    """
    if _LIST.match(data):
        return _from_records(data, signals, frames)
    return _from_drive(data, signals, frames, timestamp_us)


def _from_records(data: bytes, signals: Collection[str], frames: Sequence[Frame]) -> dict[str, BusWindow]:
    """The semantic set: a frame's record is the one with the name of its camera JSON.

    A record with the stamp of another scene is not the frame's, and of two records that differ neither is believed.
    """
    by_name = {(frame.camera, frame.frame_id): frame for frame in frames}
    windows: dict[str, BusWindow] = {}
    foreign: set[str] = set()
    nameless = 0
    for record in _decode(_RECORDS, data):
        match = _FRAME_NAME.match(bytes(record.frame_name))
        nameless += match is None
        frame = by_name.get((match["camera"].decode(), match["id"].decode())) if match else None
        if match is None or frame is None:
            continue
        if match["stamp"].decode() != frame.stamp:
            foreign.add(frame.key)
            continue
        window = _window(record, signals)
        if windows.setdefault(frame.key, window) != window:
            windows[frame.key] = BusWindow(mismatch="two bus records that differ")
    # Where a record says not whose it is, nobody can tell whether a frame without one has none.
    missing = BusWindow(bad=f"no record, and {nameless} without a frame's name") if nameless else BusWindow()
    other = BusWindow(mismatch="bus record of another scene")
    return {frame.key: windows.get(frame.key, other if frame.key in foreign else missing) for frame in frames}


def _window(record: _Record, signals: Collection[str]) -> BusWindow:
    try:
        flexray = _decode(_SIGNALS, record.flexray)
        series = {name: msgspec.json.format(bytes(flexray[name]), indent=-1) for name in signals if name in flexray}
    except ValueError as error:
        return BusWindow(bad=f"flexray: {error}")
    try:
        return BusWindow(_decode(_MICROSECONDS, record.timestamp), series)
    except ValueError:
        return BusWindow(None, series)


def _from_drive(
    data: bytes, signals: Collection[str], frames: Sequence[Frame], timestamp_us: Callable[[Frame], int | None]
) -> dict[str, BusWindow]:
    found = _decode(_SIGNALS, data)
    drives = {name: _drive(name, found[name]) for name in signals if name in found}
    windows: dict[str, BusWindow] = {}
    for frame in frames:
        at_us = timestamp_us(frame)
        try:
            series = None if at_us is None else {name: _around(drive, at_us) for name, drive in drives.items()}
            windows[frame.key] = BusWindow(at_us, series)
        except Absent as reason:
            windows[frame.key] = BusWindow(at_us, absent=str(reason))
    return windows


def _drive(name: str, data: Raw) -> _Drive:
    try:
        drive = _decode(_DRIVE, data)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    drive.values.sort(key=_time_us)
    return drive


def _around(drive: _Drive, at_us: int) -> bytes:
    """The values around a frame's time, in the form of a record's; at the drive's ends there are fewer.

    A window ends at a gap in the recording: what lies beyond belongs to another moment. Raises Absent where nothing
    is left before the image, or nothing after it.
    """
    middle = bisect_right(drive.values, at_us, key=_time_us)
    before = _run(at_us, drive.values[max(0, middle - VALUES_BEFORE) : middle][::-1])[::-1]
    after = _run(at_us, drive.values[middle : middle + VALUES_AFTER])
    if drive.values and not (before and after):
        raise Absent("bus recording does not reach the image")
    times_us, values = [time_us for time_us, _ in before + after], [value for _, value in before + after]
    return msgspec.json.encode({"timestamps": times_us, "values": values, "unit": drive.unit})


def _run(at_us: int, pairs: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """The values up to the first gap, from values in the order of their distance to a time."""
    run: list[tuple[int, Any]] = []
    for pair in pairs:
        if abs(_time_us(pair) - at_us) > MAX_GAP_US:
            break
        at_us = _time_us(pair)
        run.append(pair)
    return run
