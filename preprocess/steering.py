"""The bus's steering signal to signed angles of the wheel: left negative, degrees.

`steering_angle_calculated` is the wheel's angle as a magnitude; its sign comes as a signal of its own, 0 = left.
(`steering_angle`, which the thesis's code reads, is the shift of the steering link, not an angle.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from preprocess.absent import Absent, Mismatch
from preprocess.label import LabelConverter, LabelInput, LabelMember, Section
from preprocess.rules import SteeringRule
from shards.codec import encode_json
from shards.schema import STEERING_STEPS

_ERROR_CODES_FROM_DEG = 614.05  # 614.10 = initialising, 614.25 = error, in steps of 0.15
_MAX_DEG = 614.25


def window_signals(rule: SteeringRule) -> tuple[str, str]:
    """The signals that a steering window needs: the magnitude, and its sign."""
    return rule.signal, f"{rule.signal}_sign"


def _series(record: Mapping[str, Any], signal: str) -> tuple[list[int], list[float]]:
    """A signal's timestamps (us) and values, in the order of time. Raises ValueError where they are not such."""
    entry = record[signal]
    times, values = (entry.get("timestamps"), entry.get("values")) if isinstance(entry, Mapping) else (None, None)
    if not isinstance(times, list) or not isinstance(values, list) or len(times) != len(values):
        raise ValueError(f"{signal} must have timestamps and values of equal length")
    if not all(type(time) is int for time in times) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{signal} must have whole timestamps and numeric values")
    if not all(0 <= time < 1 << 62 for time in times) or not all(math.isfinite(value) for value in values):
        raise ValueError(f"{signal} must have finite values and timestamps in microseconds")
    order = sorted(range(len(times)), key=times.__getitem__)
    return [times[i] for i in order], [float(values[i]) for i in order]


def _nearest(times: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """For each wanted time the place of the nearest of the ascending `times`; of two equally near the earlier."""
    at, goal = np.asarray(times, dtype=np.int64), np.asarray(wanted, dtype=np.int64)
    after = np.minimum(np.searchsorted(at, goal), len(at) - 1)
    before = np.searchsorted(at, at[np.maximum(after - 1, 0)])
    return [int(place) for place in np.where(abs(goal - at[before]) <= abs(at[after] - goal), before, after)]


def convert_steering(record: Mapping[str, Any] | None, rule: SteeringRule, *times_us: int | None) -> dict[str, Any]:
    """A frame's bus signals -> `{"timestamps_us", "angles_deg", "unit"}`, every value of the window.

    `times_us` are the known times of the image and of the bus record. Raises Absent for a missing record or signal,
    fewer than 10 values, or an error code among the last 10; Mismatch for another unit than degrees, and where values,
    signs and `times_us` lie further apart than the rule allows; ValueError for signals that are not of the bus's form.
    """
    if record is None:
        raise Absent("no bus record")
    signal, sign_signal = window_signals(rule)
    for name in (signal, sign_signal):
        if record.get(name) is None:
            raise Absent(f"no signal {name}")
    times, magnitudes = _series(record, signal)
    sign_times, signs = _series(record, sign_signal)
    if len(times) < STEERING_STEPS or not signs:
        raise Absent(f"fewer than {STEERING_STEPS} values")
    if any(magnitude >= _ERROR_CODES_FROM_DEG for magnitude in magnitudes[-STEERING_STEPS:]):
        raise Absent("error code")
    if not all(0 <= magnitude <= _MAX_DEG for magnitude in magnitudes) or not set(signs) <= {0.0, 1.0}:
        raise ValueError(f"{signal} must lie in 0..{_MAX_DEG} with signs 0 or 1")
    unit = record[signal].get("unit")
    if unit is not None and unit not in rule.units:
        raise Mismatch(f"{signal} is in {str(unit)[:40]}, not in degrees")
    places = _nearest(sign_times, times)
    _check_times(times, [sign_times[place] for place in places], times_us, rule.max_gap_s)
    angles = [-value if signs[place] == 0 and value else value for value, place in zip(magnitudes, places, strict=True)]
    return {"timestamps_us": times, "angles_deg": angles, "unit": "deg"}


def _check_times(times: list[int], sign_times: list[int], others: Sequence[int | None], max_gap_s: float) -> None:
    """Raises Mismatch where two times that belong together lie more than max_gap_s apart; all in microseconds."""
    gap_us = 1e6 * max_gap_s
    if any(after - before > gap_us for before, after in pairwise(times)):
        raise Mismatch("a gap in the bus values")
    if any(abs(time - sign) > gap_us for time, sign in zip(times, sign_times, strict=True)):
        raise Mismatch("no sign near a bus value in time")
    for other in others:
        offset_us = offset_of_window_us(times, other)
        if abs(offset_us) > gap_us:
            raise Mismatch("bus values of another time than the image", {"offset_ms": round(offset_us / 1e3, 3)})


def offset_of_window_us(times: Sequence[int], other: int | None) -> int:
    """Microseconds from a time to the nearest end of a window; 0 where it lies inside, or is not known."""
    if other is None:
        return 0
    return times[0] - other if other < times[0] else min(0, times[-1] - other)


def _convert(given: LabelInput) -> LabelMember:
    rule, record_us, image_us = given.rules.steering, given.bus.timestamp_us, given.camera_time_us
    signals = given.bus.signals()
    between_us = 0 if record_us is None or image_us is None else record_us - image_us
    if signals is not None and abs(between_us) > 1e6 * rule.max_gap_s:
        raise Mismatch("bus record of another time than the image", {"offset_ms": round(between_us / 1e3, 3)})
    window = convert_steering(signals, rule, image_us, record_us)
    offsets_us = [between_us, *(offset_of_window_us(window["timestamps_us"], other) for other in (image_us, record_us))]
    section: Section = {"values": len(window["angles_deg"])}
    if image_us is not None or record_us is not None:
        section["offset_ms"] = round(max(offsets_us, key=abs) / 1e3, 3)
    return LabelMember("steering.json", encode_json(window), section)


# Sensor fusion's windows lie around the time in the camera JSON.
CONVERTER = LabelConverter(_convert, files=("camera_json", "bus"), signals=window_signals)
