"""Bus files of both forms to windows: each frame its own, and what is wrong in one record spoils that frame alone."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import orjson
import pytest

from preprocess.absent import Absent, Mismatch
from preprocess.bus import MAX_GAP_US, BusWindow, bus_windows, read_timestamp_us
from preprocess.source import Frame

SIGNALS = ("angle", "angle_sign")
FRONT = Frame("20180807_145028", "frontcenter", "000000091", "20180807145028")
SIDE = Frame("20180807_145028", "sideleft", "000000091", "20180807145028")
OTHER = Frame("20180807_145028", "frontcenter", "000000135", "20180807145028")
SERIES = {"timestamps": [1, 2], "values": [0.5, 1], "unit": None}


def record(frame: Frame, **changes: Any) -> dict[str, Any]:
    flexray = {"angle": SERIES, "vehicle_speed": {"values": [3]}, "angle_sign": {**SERIES, "values": [0, 1]}}
    return {"frame_name": f"{FRONT.stamp}_camera_{frame.camera}_{frame.frame_id}.json", "timestamp": 7,
            "flexray": flexray, **changes}  # fmt: skip


def windows(document: Any, *frames: Frame, at_us: int | None = None) -> list[BusWindow]:
    data = document if isinstance(document, bytes) else orjson.dumps(document)
    found = bus_windows(data, SIGNALS, frames, lambda _: at_us)
    assert list(found) == [frame.key for frame in frames]
    return list(found.values())


def test_a_frame_has_the_record_of_its_camera_and_id() -> None:
    document = [record(SIDE, timestamp=8, flexray={"angle": {"unit": "°"}}), record(FRONT), record(FRONT)]
    front, other, side = windows(document, FRONT, OTHER, SIDE)
    assert (front.timestamp_us, front.signals()) == (7, {"angle": SERIES, "angle_sign": {**SERIES, "values": [0, 1]}})
    assert (side.timestamp_us, side.signals()) == (8, {"angle": {"unit": "°"}})
    assert other == BusWindow()
    assert other.signals() is None


def test_two_records_that_differ_are_both_not_believed() -> None:
    (front,) = windows([record(FRONT), record(FRONT, timestamp=9), record(FRONT)], FRONT)
    with pytest.raises(Mismatch, match="two bus records that differ"):
        front.signals()


def test_a_record_of_another_scene_is_not_the_frames() -> None:
    name = record(FRONT)["frame_name"]
    foreign = record(FRONT, frame_name=f"20190401121727{name[14:]}", timestamp=9)
    (front,) = windows([foreign, record(FRONT)], FRONT)
    assert front.timestamp_us == 7
    (front,) = windows([foreign], FRONT)
    with pytest.raises(Mismatch, match="bus record of another scene"):
        front.signals()


def test_a_window_is_small_however_the_file_is_written() -> None:
    series = {"timestamps": [1533652228000000 + 20_000 * i for i in range(21)], "values": [12.15] * 21, "unit": None}
    entry = record(FRONT, flexray={"angle": series, "angle_sign": series, "rest": [series] * 100})
    (window,) = windows(orjson.dumps([entry], option=orjson.OPT_INDENT_2), FRONT)
    assert len(pickle.dumps(window)) < 1400
    assert window.signals() == {"angle": series, "angle_sign": series}


@pytest.mark.parametrize("form", ["records", "drive"])
def test_a_large_file_takes_no_memory_but_its_own(form: str) -> None:
    """Megabytes of signals that nobody asked for; as Python objects they would be ten times as much."""
    unused = {f"signal_{number}": {"values": [[time_us, 0.25] for time_us in range(500)]} for number in range(40)}
    document = [record(FRONT, flexray=unused)] * 40 if form == "records" else {**unused, **drive(100)}
    data = orjson.dumps(document)
    tracemalloc.start()
    bus_windows(data, SIGNALS, [FRONT], lambda _: 500)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200_000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"flexray": [1]}, "bus file: flexray: Expected `object`, got `array`", id="flexray is a list"),
        pytest.param({"flexray": None}, "bus file: flexray: Expected `object`, got `null`", id="no flexray"),
    ],
)
def test_what_is_wrong_in_a_record_spoils_its_frame_alone(changes: dict[str, Any], reason: str) -> None:
    bad, good = windows([record(FRONT, **changes), record(OTHER)], FRONT, OTHER)
    with pytest.raises(ValueError, match=f"^{reason}"):
        bad.signals()
    assert good.signals() is not None


@pytest.mark.parametrize("timestamp", ["null", '"7"', "7.0", "-1", str(2**70), "[7]"])
def test_a_record_without_a_time_keeps_its_signals(timestamp: str) -> None:
    data = orjson.dumps([record(FRONT)]).replace(b'"timestamp":7', f'"timestamp":{timestamp}'.encode())
    (window,) = windows(data, FRONT)
    assert window.timestamp_us is None
    assert window.signals() is not None


def test_a_record_without_a_name_may_be_anybodys() -> None:
    document = [record(FRONT), record(OTHER, frame_name=None), record(OTHER, frame_name="x.json")]
    front, other = windows(document, FRONT, OTHER)
    assert front.signals() is not None
    assert other.bad == "no record, and 2 without a frame's name"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"[3]", r"Expected `object`, got `int` - at `\$\[0\]`", id="no record"),
        pytest.param(b"3", "Expected `object`, got `int`", id="no list"),
        pytest.param(b"", "Input data was truncated", id="empty"),
        pytest.param(b'[{"frame_name":', "Input data was truncated", id="cut"),
        pytest.param(b'[{"flexray": {"speed": NaN}}]', "invalid character", id="not a number"),
        pytest.param(b"\xef\xbb\xbf[]", "invalid character", id="byte order mark"),
        pytest.param("[]".encode("utf-16"), "invalid character", id="another encoding"),
        pytest.param(b'[{"x":' + b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'{"angle": 3}', "angle: Expected `object`, got `int`", id="sensor fusion: no series"),
        pytest.param(b'{"angle": {"values": [[1, 2], [3]]}}', "angle: Expected `array` of length 2", id="no pair"),
        pytest.param(b'{"angle": {"values": [["1", 2]]}}', "angle: Expected `int`, got `str`", id="time is text"),
        pytest.param(
            b'{"angle": {"values": [[1e999, 2]]}}',
            "angle: Expected `int`, got `float`|Number out of range",
            id="time is huge",
        ),
    ],
)
def test_what_is_no_bus_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        windows(data, FRONT, at_us=5)


def drive(count: int) -> dict[str, Any]:
    """A value every 10 us from 0 on; the sign has a clock of its own."""
    pairs = [[10 * i, float(i)] for i in range(count)]
    return {
        "angle": {"unit": "Unit_DegreOfArc", "values": pairs},
        "angle_sign": {"unit": None, "values": [[time_us + 3, i % 2] for i, (time_us, _) in enumerate(pairs)]},
        "vehicle_speed": {"unit": None, "values": "of no interest"},
    }


@pytest.mark.parametrize(
    ("at_us", "angles", "signs"),
    [
        pytest.param(500, range(40, 61), range(39, 60), id="at a value's time: it is the last one before"),
        pytest.param(502, range(40, 61), range(39, 60), id="after the angle, before its sign"),
        pytest.param(503, range(40, 61), range(40, 61), id="at the sign's"),
        pytest.param(40, range(0, 15), range(0, 14), id="at the drive's beginning"),
        pytest.param(970, range(87, 100), range(86, 100), id="at its end"),
    ],
)
def test_a_drives_window_is_11_values_up_to_the_image_and_10_after(at_us: int, angles: range, signs: range) -> None:
    (window,) = windows(drive(100), FRONT, at_us=at_us)
    assert window.timestamp_us == at_us
    assert window.signals() == {
        "angle": {"timestamps": [10 * i for i in angles], "values": [float(i) for i in angles],
                  "unit": "Unit_DegreOfArc"},
        "angle_sign": {"timestamps": [10 * i + 3 for i in signs], "values": [i % 2 for i in signs], "unit": None},
    }  # fmt: skip


def moved(document: dict[str, Any], places: range, by_us: int) -> dict[str, Any]:
    """The same drive, some of whose values come so much later."""
    for signal in ("angle", "angle_sign"):
        for place in places:
            document[signal]["values"][place][0] += by_us
    return document


@pytest.mark.parametrize(
    ("places", "by_us", "at_us", "angles"),
    [
        pytest.param(range(100), 0, 994, None, id="after the drive's end"),
        pytest.param(range(100), 0, 10**9, None, id="long after"),
        pytest.param(range(100), 500, 499, None, id="before its beginning"),
        pytest.param(range(50, 100), MAX_GAP_US - 10, 495, range(39, 60), id="a gap as long as allowed"),
        pytest.param(range(50, 100), MAX_GAP_US + 800_000, 900_300, range(39, 60), id="in a gap with both ends near"),
        pytest.param(range(50, 100), 2 * MAX_GAP_US, 495, None, id="before a gap"),
        pytest.param(range(50, 100), 2 * MAX_GAP_US, 2 * MAX_GAP_US + 498, None, id="behind a gap"),
        pytest.param(range(55, 100), 2 * MAX_GAP_US, 500, range(40, 55), id="values behind a gap are left out"),
        pytest.param(range(50, 100), 2 * MAX_GAP_US, 2 * MAX_GAP_US + 530, range(50, 64), id="and those before it"),
    ],
)  # fmt: skip
def test_a_window_is_of_the_images_moment(places: range, by_us: int, at_us: int, angles: range | None) -> None:
    """A frame where the bus was not recorded has no steering, however many values lie elsewhere."""
    (window,) = windows(moved(drive(100), places, by_us), FRONT, at_us=at_us)
    if angles is None:
        with pytest.raises(Absent, match="bus recording does not reach the image"):
            window.signals()
    else:
        assert (window.signals() or {})["angle"]["values"] == [float(i) for i in angles]


def test_a_drive_out_of_order_is_put_in_order() -> None:
    shuffled = drive(100)
    shuffled["angle"]["values"].reverse()
    assert windows(shuffled, FRONT, at_us=500) == windows(drive(100), FRONT, at_us=500)


def test_a_wrong_value_of_a_drive_reaches_only_the_windows_that_hold_it() -> None:
    damaged = drive(100)
    damaged["angle"]["values"][30][1] = None
    (near,), (far,) = windows(damaged, FRONT, at_us=300), windows(damaged, FRONT, at_us=500)
    assert None in (near.signals() or {})["angle"]["values"]
    assert [far] == windows(drive(100), FRONT, at_us=500)


def test_a_drives_missing_signal_is_missing_and_a_frame_without_a_time_has_no_record() -> None:
    (window,) = windows({"angle": drive(3)["angle"]}, FRONT, at_us=10)
    assert list(window.signals() or {}) == ["angle"]
    assert windows(drive(100), FRONT, at_us=None) == [BusWindow()]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"{}", "cam_tstamp must be microseconds, got None", id="none"),
        pytest.param(b'{"cam_tstamp": "1"}', "must be microseconds, got 1", id="text"),
        pytest.param(b'{"cam_tstamp": true}', "must be microseconds, got True", id="truth"),
        pytest.param(b'{"cam_tstamp": -1}', "must be microseconds, got -1", id="negative"),
        pytest.param(b'{"cam_tstamp": 9223372036854775807}', "must be microseconds, got 9223", id="huge"),
        pytest.param(b"[]", "must be microseconds, got None", id="no object"),
        pytest.param(b'{"cam_tstamp": 1', "unexpected end of data", id="cut"),
    ],
)
def test_a_camera_json_without_a_time_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_timestamp_us(data)


def test_a_camera_jsons_time() -> None:
    assert read_timestamp_us(b'{"cam_name": "front_center", "cam_tstamp": 1533652228000000}') == 1533652228000000
