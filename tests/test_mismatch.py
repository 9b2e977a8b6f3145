"""Files of another time, place or unit than their image: each kind is an absent label with its reason."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import pytest

from preprocess.rules import DepthRule, SegmentationRule, SteeringRule
from shards.codec import decode_json
from shards.schema import TASKS
from tests.conftest import png
from tests.one_frame import RULES, SIGN, STEERING, OneFrame

HOUR_US = 3_600_000_000


@pytest.fixture
def frame(extracted: Path, tmp_path: Path) -> OneFrame:
    """A frame with all labels."""
    with tarfile.open(extracted / "bus.tar") as tar:
        files = [tar.extractfile(member).read() for member in tar if member.isfile()]  # type: ignore[union-attr]
    return OneFrame(extracted, [record for data in files for record in orjson.loads(data)], tmp_path)


def test_a_frame_as_published_has_every_label(frame: OneFrame) -> None:
    made = frame.convert()
    assert made.absent == {}
    meta = decode_json(made.members["meta.json"])
    assert meta["steering"] == {"values": 21, "offset_ms": 0.0}
    assert meta["depth"]["dropped"] == {}
    assert abs(meta["depth"]["offset_ms"]) < 100
    assert made.measures["unknown_colour"] == 0


def shifted(by_us: int) -> Callable[[list[int]], list[int]]:
    return lambda times: [time + by_us for time in times]


def scaled(by: float) -> Callable[[list[int]], list[int]]:
    return lambda times: [int(time * by) for time in times]


def both(function: Callable[[Any], Any]) -> Callable[[OneFrame], None]:
    """Change the times of the angle and of its sign."""

    def change(frame: OneFrame) -> None:
        def records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            for name in (STEERING, SIGN):
                found[0]["flexray"][name]["timestamps"] = function(found[0]["flexray"][name]["timestamps"])
            return found

        frame.write_bus(records)

    return change


def record(**changes: Callable[[Any], Any]) -> Callable[[OneFrame], None]:
    """Change entries of the frame's bus record."""
    return lambda frame: frame.write_bus(
        lambda records: [{**records[0], **{name: change(records[0][name]) for name, change in changes.items()}}]
    )


def jump(times: list[int]) -> list[int]:
    return [time - (HOUR_US if place < 5 else 0) for place, time in enumerate(times)]


def second_record(frame: OneFrame) -> None:
    def records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        other = orjson.loads(orjson.dumps(found[0]))
        other["flexray"][STEERING]["values"] = [0.15] * 21
        return [*found, other]

    frame.write_bus(records)


LATE = "bus values of another time than the image"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(both(shifted(600_000_000)), LATE, id="600 s after the image"),
        pytest.param(both(shifted(-2_000_000)), LATE, id="2 s before the image"),
        pytest.param(both(scaled(1000)), "a gap in the bus values", id="times in nanoseconds"),
        pytest.param(both(scaled(1e-6)), LATE, id="times in seconds"),
        pytest.param(both(jump), "a gap in the bus values", id="a jump of an hour inside"),
        pytest.param(
            lambda frame: frame.change_signal(SIGN, timestamps=scaled(1000)),
            "no sign near a bus value in time", id="the sign's times in nanoseconds",
        ),
        pytest.param(
            lambda frame: frame.change_signal(SIGN, timestamps=shifted(-60_000_000)),
            "no sign near a bus value in time", id="the sign's times a minute before",
        ),
        pytest.param(
            lambda frame: frame.change_signal(STEERING, unit=lambda _: "Unit_Radian"),
            f"{STEERING} is in Unit_Radian, not in degrees", id="radians",
        ),
        pytest.param(
            record(timestamp=lambda time: time + 3_000_000),
            "bus record of another time than the image", id="the record of another frame",
        ),
        pytest.param(
            record(frame_name=lambda name: f"20190401121727{name[14:]}"),
            "bus record of another scene", id="the record of another scene",
        ),
        pytest.param(second_record, "two bus records that differ", id="two records"),
    ],
)  # fmt: skip
def test_bus_values_of_another_time_or_unit(frame: OneFrame, spoil: Callable[[OneFrame], None], reason: str) -> None:
    spoil(frame)
    made = frame.convert()
    assert made.absent == {"steering": reason}
    assert made.measures["mismatches"] == ["steering"]
    assert not made.left_out, "A2D2's file can be read: it is not bad"


def test_a_bus_file_of_another_scene_is_not_used(frame: OneFrame) -> None:
    frame.bus_file.rename(frame.bus_file.with_name("20190401121727_bus_signals.json"))
    assert frame.convert().absent == {"steering": "no bus record"}


def test_the_same_record_twice_is_one(frame: OneFrame) -> None:
    frame.write_bus(lambda records: records * 2)
    assert frame.convert().absent == {}


_LATE_LIDAR = "LiDAR of another time than the image"
_UNEQUAL = "LiDAR distances disagree with their points"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"timestamp": lambda times: times + 10_000_000}, _LATE_LIDAR, id="10 s late"),
        pytest.param({"timestamp": lambda times: times * 1000}, _LATE_LIDAR, id="nanoseconds"),
        pytest.param({"depth": lambda ahead_m: -ahead_m}, "LiDAR points behind the camera", id="behind"),
        pytest.param({"distance": lambda metres: metres * 1000}, _UNEQUAL, id="millimetres"),
        pytest.param({"distance": lambda metres: metres[::-1]}, _UNEQUAL, id="another order"),
        pytest.param({"row": lambda rows: rows + 20}, "LiDAR pixels disagree with their points", id="moved"),
        pytest.param({"col": lambda cols: 1920 - cols}, "LiDAR pixels disagree with their points", id="mirrored"),
    ],
)  # fmt: skip
def test_lidar_of_another_time_or_unit(frame: OneFrame, changes: dict[str, Any], reason: str) -> None:
    frame.change_lidar(**changes)
    made = frame.convert()
    assert made.absent == {"depth": reason}
    assert made.measures["mismatches"] == ["depth"]


def test_points_behind_the_camera_do_not_hide_real_returns(frame: OneFrame) -> None:
    expected = frame.convert()
    frame.change_lidar(
        **{name: lambda a: np.concatenate([a, a[:50]]) for name in ("row", "col", "azimuth", "lidar_id", "reflectance",
                                                                     "timestamp")},
        distance=lambda a: np.concatenate([a, a[:50] / 4]),
        depth=lambda a: np.concatenate([a, -a[:50] / 4]),
        points=lambda a: np.concatenate([a, a[:50] * [-1, 1, 1] / 4]),
    )  # fmt: skip
    made = frame.convert()
    assert made.members["depth.png"] == expected.members["depth.png"]
    assert decode_json(made.members["meta.json"])["depth"]["dropped"] == {"behind": 50}


def test_a_label_in_bgr(frame: OneFrame) -> None:
    path = frame.file("label")
    path.write_bytes(png(cv2.imread(str(path))))  # cv2 reads BGR, png writes it as if it were RGB
    made = frame.convert()
    assert made.absent == {"segmentation": "colours that A2D2 does not list"}
    lenient = replace(RULES, segmentation=SegmentationRule(max_unknown=1.0))
    assert frame.convert(lenient).absent == {}


def test_class_names_in_another_spelling_are_no_empty_grid(frame: OneFrame) -> None:
    path = frame.file("label3D")
    document = orjson.loads(path.read_bytes())
    assert document
    for box in document.values():
        box["class"] = box["class"].lower()
    path.write_bytes(orjson.dumps(document))
    made = frame.convert()
    assert made.absent == {"boxes": "no box of a known class"}
    assert set(made.measures["unknown_classes"]) == {box["class"] for box in document.values()}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda x1, y1, x2, y2: [y1, x1, y2, x2], id="rows first, as the publisher's tutorial says"),
        pytest.param(lambda x1, y1, x2, y2: [x1 / 2, y1 / 2, x2 / 2, y2 / 2], id="of half the image"),
        pytest.param(lambda x1, y1, x2, y2: [x1, y1, x2 - x1, y2 - y1], id="width and height"),
    ],
)
def test_boxes_in_another_form(frame: OneFrame, change: Callable[..., list[float]]) -> None:
    path = frame.file("label3D")
    document = orjson.loads(path.read_bytes())
    for box in document.values():
        box["2d_bbox"] = change(*box["2d_bbox"])
    path.write_bytes(orjson.dumps(document))
    assert frame.convert().absent == {"boxes": "boxes disagree with their 3D points"}


@pytest.mark.parametrize(
    ("kind", "label"), [("label", "segmentation"), ("lidar", "depth"), ("label3D", "boxes")], ids=str
)
def test_a_file_with_the_stamp_of_another_scene(frame: OneFrame, kind: str, label: str) -> None:
    """Also one that comes before the right one in the order of names."""
    right = frame.file(kind).read_bytes()
    frame.rename(kind, r"^\d{14}", "20170101000000")
    made = frame.convert()
    assert made.absent == {label: "its name has the stamp of another scene"}
    frame.file(kind).write_bytes(right)
    assert frame.convert().absent == {}


@pytest.mark.parametrize(("kind", "label"), [("label", "segmentation"), ("lidar", "depth"), ("label3D", "boxes")])
def test_a_file_twice_with_one_size_and_other_content(frame: OneFrame, kind: str, label: str) -> None:
    path = frame.file(kind)
    twin = frame.root / "second" / path.relative_to(frame.root)
    twin.parent.mkdir(parents=True)
    twin.write_bytes(path.read_bytes())
    assert frame.convert().absent == {}, "a copy"
    twin.write_bytes(path.read_bytes()[:-1] + b"?")
    assert frame.convert().absent == {label: "found twice, with one size and other content"}


def test_an_image_twice_with_other_content_leaves_the_frame_out(frame: OneFrame) -> None:
    path = frame.file("camera")
    twin = frame.root / "second" / path.relative_to(frame.root)
    twin.parent.mkdir(parents=True)
    twin.write_bytes(path.read_bytes()[:-1] + b"?")
    made = frame.convert()
    assert not made.members
    assert [(entry.reason, entry.bad) for entry in made.left_out] == [
        ("image: found twice, with one size and other content", False)
    ]


def test_the_bounds_are_rules(frame: OneFrame) -> None:
    frame.change_lidar(timestamp=lambda time: time + 10_000_000)
    both(shifted(5_000_000))(frame)
    assert set(frame.convert().absent) == {"depth", "steering"}
    rules = replace(RULES, depth=DepthRule(max_gap_s=20), steering=SteeringRule(max_gap_s=20))
    assert frame.convert(rules).absent == {}
    assert set(frame.convert(rules).measures) >= {"bus_offset_ms", "lidar_offset_ms"}
    assert set(TASKS) <= set(decode_json(frame.convert(rules).members["meta.json"]))
