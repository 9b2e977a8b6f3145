"""The bus's magnitude and sign to signed angles; what is missing is absent, what is wrong is bad."""

from __future__ import annotations

from typing import Any

import pytest

from preprocess.absent import Absent
from preprocess.rules import SteeringRule
from preprocess.steering import convert_steering

RULE = SteeringRule()
SIGNAL = RULE.signal


def record(magnitudes: list[Any], signs: list[Any], *, sign_shift_us: int = 0) -> dict[str, Any]:
    def series(values: list[Any], shift_us: int) -> dict[str, Any]:
        return {"timestamps": [1000 * i + shift_us for i in range(len(values))], "values": values, "unit": None}

    return {"timestamp": 5, SIGNAL: series(magnitudes, 0), f"{SIGNAL}_sign": series(signs, sign_shift_us)}


def test_left_is_negative() -> None:
    window = convert_steering(record([1.5] * 6 + [3.0] * 6, [0] * 6 + [1] * 6), RULE)
    assert window == {
        "timestamps_us": [1000 * i for i in range(12)],
        "angles_deg": [-1.5] * 6 + [3.0] * 6,
        "unit": "deg",
    }


def test_zero_has_no_sign() -> None:
    assert str(convert_steering(record([0.0] * 10, [0] * 10), RULE)["angles_deg"][0]) == "0.0"


@pytest.mark.parametrize(
    ("shift_us", "first_right"),
    [
        pytest.param(0, 5, id="together"),
        pytest.param(400, 5, id="a little later: the nearest is still the own one"),
        pytest.param(600, 6, id="more than half a step later: the nearest is the one before"),
        pytest.param(500, 6, id="equally near: the earlier"),
    ],
)
def test_each_value_takes_the_sign_nearest_in_time(shift_us: int, first_right: int) -> None:
    window = convert_steering(record([2.0] * 10, [0] * 5 + [1] * 5, sign_shift_us=shift_us), RULE)
    assert [angle > 0 for angle in window["angles_deg"]].index(True) == first_right


def test_values_come_in_the_order_of_time() -> None:
    shuffled = record([float(i) for i in range(12)], [1] * 12)
    shuffled[SIGNAL]["timestamps"].reverse()
    assert convert_steering(shuffled, RULE)["angles_deg"] == [float(i) for i in range(11, -1, -1)]


NO_SIGN = {key: value for key, value in record([1.0] * 10, [0] * 10).items() if not key.endswith("_sign")}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param(None, "no bus record", id="no record"),
        pytest.param({}, f"no signal {SIGNAL}", id="no signal"),
        pytest.param(NO_SIGN, f"no signal {SIGNAL}_sign", id="no sign"),
        pytest.param(record([1.0] * 9, [0] * 9), "fewer than 10 values", id="nine values"),
        pytest.param(record([1.0] * 20 + [614.25], [0] * 21), "error code", id="error at the end"),
        pytest.param(record([1.0] * 11 + [614.10] + [1.0] * 9, [0] * 21), "error code", id="initialising, 10th last"),
    ],
)
def test_what_is_missing_is_absent(given: dict[str, Any] | None, reason: str) -> None:
    with pytest.raises(Absent, match=f"^{reason}$"):
        convert_steering(given, RULE)


def test_an_error_code_before_the_last_ten_does_not_matter() -> None:
    assert len(convert_steering(record([614.25] * 11 + [1.0] * 10, [0] * 21), RULE)["angles_deg"]) == 21


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(record([-1.0] * 10, [0] * 10), "must lie in 0..614.25", id="negative magnitude"),
        pytest.param(record([1.0] * 10, [2] * 10), "signs 0 or 1", id="sign 2"),
        pytest.param(record(["1"] * 10, [0] * 10), "numeric values", id="text"),
        pytest.param({**record([1.0] * 10, [0] * 10), SIGNAL: 3}, "of equal length", id="no series"),
        pytest.param(
            {**record([1.0] * 10, [0] * 10), SIGNAL: {"timestamps": [1], "values": []}}, "of equal length", id="lengths"
        ),
        pytest.param(
            {**record([1.0] * 10, [0] * 10), SIGNAL: {"timestamps": [2**70] * 10, "values": [1.0] * 10}},
            "timestamps in microseconds",
            id="huge time",
        ),
    ],
)
def test_what_is_wrong_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_steering(given, RULE)
