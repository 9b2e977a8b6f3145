"""The bus's steering signal to signed angles of the wheel: left negative, degrees.

`steering_angle_calculated` is the wheel's angle as a magnitude; its sign comes as a signal of its own, 0 = left.
(`steering_angle`, which the thesis's code reads, is the shift of the steering link, not an angle.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from preprocess.absent import Absent
from preprocess.label import LabelConverter, LabelInput, LabelMember
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


def convert_steering(record: Mapping[str, Any] | None, rule: SteeringRule) -> dict[str, Any]:
    """A frame's bus signals -> `{"timestamps_us", "angles_deg", "unit"}`, every value of the window.

    Raises Absent for a missing record or signal, fewer than 10 values, or an error code among the last 10;
    ValueError where the signals are not of the bus's form.
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
    places = _nearest(sign_times, times)
    angles = [-value if signs[place] == 0 and value else value for value, place in zip(magnitudes, places, strict=True)]
    return {"timestamps_us": times, "angles_deg": angles, "unit": "deg"}


def _convert(given: LabelInput) -> LabelMember:
    window = convert_steering(given.bus.signals(), given.rules.steering)
    return LabelMember("steering.json", encode_json(window), {"values": len(window["angles_deg"])})


# Sensor fusion's windows lie around the time in the camera JSON.
CONVERTER = LabelConverter(_convert, files=("camera_json", "bus"), signals=window_signals)
