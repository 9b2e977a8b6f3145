"""What is odd about a whole set is measured, said, and beyond its bound ends a build with 1."""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from preprocess.rules import ChecksRule
from shards.manifest import read_manifest
from shards.oddities import check_lines, measure_sample, measure_set, odd_lines
from shards.reader import listed_boxes
from tests.conftest import SMALL_RULES, prep

BOUNDS = asdict(ChecksRule())
META: dict[str, Any] = {"scene": "20180807_145028", "timestamp_us": None}
NOON_US = 1_533_643_200_000_000  # 2018-08-07, 12:00 UTC
KEY = "20180807145028_frontcenter_00000000"


def set_of(*metas: dict[str, Any], crc32: int | None = None) -> dict[str, Any]:
    """The checks of a set of such samples; their steering windows have one checksum, or one each."""
    samples = []
    for place, meta in enumerate(metas):
        sums = {label: place if crc32 is None else crc32 for label in ("steering", "depth") if "values" in str(meta)}
        samples.append((f"{KEY}{place}", measure_sample({**META, **meta}, 100), sums))
    return measure_set(samples)


def steering(offset_ms: float) -> dict[str, Any]:
    return {"steering": {"values": 21, "offset_ms": offset_ms}}


def depth(beyond: int, **dropped: int) -> dict[str, Any]:
    return {"depth": {"points": 100, "pixels": 9, "beyond_max_m": beyond, "dropped": dropped, "offset_ms": 0.0}}


def boxes(count: int, **unknown: int) -> dict[str, Any]:
    dropped = {"unknown_class": sum(unknown.values())} if unknown else {}
    section = {"boxes": [[0, 0, 9, 9, "Car"]] * count, "dropped": dropped, "beyond_slots": 0}
    return {"boxes": {**section, "unknown_classes": unknown} if unknown else section}


def unknown_pixels(count: int) -> dict[str, Any]:
    return {"segmentation": {"pixels": {}, "unknown_colour": count, "outside": 0}}


@pytest.mark.parametrize(
    ("metas", "line"),
    [
        pytest.param([steering(300.0)] * 3, r"bus .*: median \+0.300 s, more than checks.max_offset_s", id="bus"),
        pytest.param([{"depth": {"absent": "x", "offset_ms": -1e4}}], r"LiDAR .*: median -10.000 s", id="LiDAR"),
        pytest.param([unknown_pixels(6)], r"colours that A2D2 does not list: 6.0%, more than", id="colours"),
        pytest.param([boxes(8), boxes(0, Cars=2)], r"unknown classes: 20.0% \('Cars' 2\), more than", id="classes"),
        pytest.param([depth(100), depth(90)], "returns beyond depth.max_m: 95.0%, more than", id="clipped"),
        pytest.param([depth(0, behind=20)], "do not agree with the image or with themselves: 20.0%", id="dropped"),
        pytest.param([{"timestamp_us": NOON_US // 1000}], "more than a day off the date .*: 100.0%", id="milliseconds"),
        pytest.param(
            [steering(0.0)] * 4 + [{"steering": {"absent": "x", "mismatch": True}}],
            "steering of another time, place or unit than the image: 20.0%", id="mismatches",
        ),
    ],
)  # fmt: skip
def test_a_set_beyond_a_bound_is_odd(metas: list[dict[str, Any]], line: str) -> None:
    (found,) = odd_lines(set_of(*metas), {**BOUNDS, "max_far_from_date": 0.1})
    assert re.search(line, found), found


def test_windows_that_repeat_are_odd() -> None:
    assert odd_lines(set_of(*[steering(0.0)] * 9), BOUNDS) == []
    (line,) = odd_lines(set_of(*[steering(0.0)] * 9, crc32=7), BOUNDS)
    assert line.startswith("steering windows that repeat an earlier one of the scene: 88.9%, more than")


@pytest.mark.parametrize(
    "metas",
    [
        pytest.param([steering(100.0), steering(-100.0), steering(900.0)], id="offsets"),
        pytest.param([unknown_pixels(1)] * 3, id="stray colours"),
        pytest.param([boxes(50, Cars=1)], id="a class name"),
        pytest.param([depth(3, other_time=2)], id="returns"),
        pytest.param([{"timestamp_us": NOON_US}] * 3, id="times"),
        pytest.param([{}], id="nothing"),
        pytest.param([], id="no sample"),
    ],
)
def test_what_a2d2_may_have_is_measured_and_not_odd(metas: list[dict[str, Any]]) -> None:
    assert odd_lines(set_of(*metas), BOUNDS) == []


def test_the_lines_name_the_worst_frame_and_the_unknown_classes() -> None:
    lines = list(check_lines(set_of(steering(100.0), steering(-900.0), boxes(50, Cars=1))))
    assert f"bus to image in time: median -0.400 s, worst -0.900 s ({KEY}1)" in lines
    assert "boxes of unknown classes: 2.0% ('Cars' 1)" in lines
    assert list(check_lines({})) == [], "a set of the first release"


def spoil_bus(synthetic: Path, root: Path, by_us: int) -> None:
    """The synthetic set with the times of all bus records and values moved."""
    for path in synthetic.iterdir():
        if "bus" not in path.name:
            (root / path.name).symlink_to(path)
    with tarfile.open(synthetic / "camera_lidar_semantic_bus.tar") as old, tarfile.open(root / "bus.tar", "w") as new:
        for member in filter(tarfile.TarInfo.isfile, old):
            records = orjson.loads(old.extractfile(member).read())  # type: ignore[union-attr]
            for record in records:
                record["timestamp"] += by_us
                for series in record["flexray"].values():
                    series["timestamps"] = [time + by_us for time in series["timestamps"]]
            data = orjson.dumps(records)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize(
    ("by_us", "reason"),
    [
        (400_000, "bus to image in time: median +0.400 s, more than checks.max_offset_s = 0.2"),
        (600_000_000, "steering of another time, place or unit than the image: 100.0%, more than"),
    ],
    ids=["0.4 s", "600 s"],
)
def test_an_odd_set_ends_with_1_and_can_be_allowed(synthetic: Path, tmp_path: Path, by_us: int, reason: str) -> None:
    root, out, rules = tmp_path / "root", tmp_path / "out", tmp_path / "rules.toml"
    root.mkdir()
    spoil_bus(synthetic, root, by_us)
    small = "labels = ['steering']\n" + SMALL_RULES
    rules.write_text(small)
    arguments = ["shard", "--root", root, "--out", out, "--rules", rules, "--workers", 1]
    for _ in range(2):  # the second time there is nothing to do, and the set is as odd
        result = prep(*arguments)
        assert result.exit_code == 1
        (line,) = [line for line in result.stderr.splitlines() if "the set is odd: " in line]
        assert reason in line
    assert read_manifest(out)["checks"]["bus_offset_ms"]["median"] == pytest.approx(by_us / 1e3)
    said = prep("inspect", out).output
    assert f"bus to image in time: median {by_us / 1e6:+.3f} s" in said
    assert "odd: bus to image in time" in said
    assert orjson.loads(prep("inspect", out, "--json").output)["odd"]
    rules.write_text(small + "[checks]\nmax_offset_s = 1000.0\nmax_mismatches = 1.0\n")
    result = prep(*arguments)
    assert result.exit_code == 0, result.output
    assert "to write" not in result.output, "bounds decide no label"


def test_boxes_of_the_first_release_are_read_too() -> None:
    section = {"boxes": [[1, 2, 3, 4, "Car"], {"x1": 1, "y1": 2, "x2": 3, "y2": 4, "class": "Car"}]}
    assert listed_boxes(section) == [(1, 2, 3, 4, "Car")] * 2
