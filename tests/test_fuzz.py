"""Thousands of damaged files through every reader: refused in one way, never a traceback, a hang or a wrong label.

Seeded, so that a failure comes again: its number is in the assertion's message.
"""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from preprocess.absent import Absent
from preprocess.boxes import convert_boxes
from preprocess.bus import bus_windows
from preprocess.depth import convert_depth, read_returns
from preprocess.rules import BoxesRule, DepthRule, SteeringRule
from preprocess.segmentation import check_class_list
from preprocess.source import Frame
from preprocess.steering import convert_steering, window_signals
from preprocess.tarindex import CutTar, scan_tar
from shards.classes import CLASS_LIST
from shards.codec import decode_json
from shards.geometry import parse_calibrations
from shards.manifest import ShardIndex
from shards.png import decode_png, decode_rgb_png, encode_grey_png
from shards.reader import listed_boxes
from synth.calibration import cams_lidars
from tests.conftest import png

RULE = SteeringRule()
SIGNAL = RULE.signal
RANDOM = np.random.default_rng(0)
RGB_PNG = png(RANDOM.integers(0, 256, (40, 64, 3), dtype=np.uint8))
GREY_PNG = encode_grey_png(RANDOM.integers(0, 38, (64, 64), dtype=np.uint8))


def make_npz(compressed: bool = False) -> bytes:
    buffer = io.BytesIO()
    arrays = {name: RANDOM.uniform(1, 100, 40) for name in ("row", "col", "distance", "azimuth")}
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


BOXES = orjson.dumps(
    {
        f"box_{i}": {"2d_bbox": [100.5 * i, 300.25, 100.5 * i + 150, 420], "class": "Car", "id": i, "alpha": 0.0}
        for i in range(6)
    }
)
SERIES = {"timestamps": list(range(1000, 22000, 1000)), "values": [0.15 * i for i in range(21)], "unit": "deg"}
BUS = orjson.dumps(
    [
        {
            "frame_name": f"20180807145028_camera_frontcenter_00000{i}.json",
            "timestamp": 11000,
            "flexray": {SIGNAL: SERIES, f"{SIGNAL}_sign": {**SERIES, "values": [i % 2] * 21}, "vehicle_speed": SERIES},
        }
        for i in range(3)
    ]
)
FRAMES = [Frame("20180807_145028", "frontcenter", f"00000{i}", "20180807145028") for i in range(3)]
# The other form, sensor fusion's: pairs of time and value over the whole drive.
DRIVE = orjson.dumps(
    {
        name: {"unit": None, "values": [[1000 * i, value] for i in range(40)]}
        for name, value in ((SIGNAL, 3.15), (f"{SIGNAL}_sign", 1), ("vehicle_speed", 20.5))
    }
)


def make_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, size in (("a/" + "n" * 120, 700), ("b.png", 0), ("c/d.json", 90)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return buffer.getvalue()[:6144]


Mutation = Callable[[bytearray, random.Random], None]


def flip(data: bytearray, generator: random.Random) -> None:
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def cut(data: bytearray, generator: random.Random) -> None:
    del data[generator.randrange(len(data)) :]


def drop(data: bytearray, generator: random.Random) -> None:
    at = generator.randrange(len(data))
    del data[at : at + generator.randrange(1, 20)]


def insert(data: bytearray, generator: random.Random) -> None:
    at = generator.randrange(len(data) + 1)
    data[at:at] = generator.randbytes(generator.randrange(1, 20))


def overwrite(data: bytearray, generator: random.Random) -> None:
    at = generator.randrange(len(data))
    data[at : at + 8] = generator.randbytes(8)


MUTATIONS: tuple[Mutation, ...] = (flip, cut, drop, insert, overwrite)
JSON_PIECES = (b"null", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 40, b"[]", b"{}", b'""', b"true", b"\xef\xbb\xbf",
               b"[" * 2000, b'"\\ud800"', b"-0", b"614.25", b"0.1", b"\x00")  # fmt: skip


def splice_json(data: bytearray, generator: random.Random) -> None:
    """Another value in place of a number, so that the document mostly stays JSON."""
    numbers = [i for i, byte in enumerate(data) if chr(byte).isdigit() and not chr(data[i - 1]).isalnum()]
    if not numbers:
        return
    start = end = generator.choice(numbers)
    while end < len(data) and chr(data[end]) in "0123456789.":
        end += 1
    data[start:end] = generator.choice(JSON_PIECES)


def mutated(original: bytes, count: int, mutations: tuple[Mutation, ...] = MUTATIONS) -> list[tuple[int, bytes]]:
    """`count` damaged versions, each other than the original."""
    found = []
    for number in range(count):
        generator, data = random.Random(number), bytearray(original)
        for _ in range(generator.choice((1, 1, 1, 2, 5))):
            if data:
                generator.choice(mutations)(data, generator)
        if bytes(data) != original:
            found.append((number, bytes(data)))
    assert len(found) > 0.9 * count
    return found


@pytest.mark.parametrize(
    ("original", "read"),
    [pytest.param(RGB_PNG, decode_rgb_png, id="colour"), pytest.param(GREY_PNG, decode_png, id="grey")],
)
def test_no_damaged_png_gives_a_label(original: bytes, read: Callable[[bytes], Any]) -> None:
    for number, data in mutated(original, 1500):
        try:
            read(data)
        except ValueError:
            continue
        pytest.fail(f"mutation {number} was read as an image")


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "compressed"])
def test_no_damaged_npz_gives_another_label(compressed: bool) -> None:
    """Bytes of a zip that decide nothing (a date, a permission) may differ: then the arrays are the same."""
    original = make_npz(compressed)
    expected = read_returns(original)
    refused = 0
    for number, data in mutated(original, 1500):
        try:
            found = read_returns(data)
        except (ValueError, Absent):
            refused += 1
            continue
        for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"mutation {number}")
    assert refused > 1200


def test_numbers_in_an_npz_may_be_anything() -> None:
    """Whole files with odd content: a label where a point with a distance lies inside the image, else none."""
    values = (0.0, -1.0, 1e308, -1e308, 1e-308, 5.0, 2.0**31, 2.0**63, 1919.6, 1207.51, float("nan"), float("inf"))
    for number in range(400):
        generator = random.Random(number)
        buffer = io.BytesIO()
        arrays = {name: np.array(generator.choices(values[: generator.choice((10, 12))], k=20))
                  for name in ("row", "col", "distance")}  # fmt: skip
        np.savez(buffer, **arrays)
        try:
            points = read_returns(buffer.getvalue())
        except ValueError:
            continue
        row, col, distance_m = points.row, points.col, points.distance_m
        levels = convert_depth(row, col, distance_m, original_hw=(1208, 1920), size=256, rule=DepthRule())
        inside = (row >= -0.5) & (row < 1207.5) & (col >= -0.5) & (col < 1919.5) & (distance_m > 0)
        assert levels.any() == inside.any(), f"number {number}"


def test_no_json_gives_boxes_outside_their_ranges() -> None:
    for number, data in mutated(BOXES, 3000, (*MUTATIONS, splice_json, splice_json, splice_json)):
        try:
            grid, section = convert_boxes(decode_json(data), original_hw=(1208, 1920), size=256, rule=BoxesRule())
        except (ValueError, Absent):
            continue
        assert np.isfinite(grid).all(), f"mutation {number}"
        assert (grid >= 0).all(), f"mutation {number}"
        assert (grid <= 1).all(), f"mutation {number}"
        for x1, y1, x2, y2, _ in listed_boxes(section):
            assert 0 <= x1 < x2 <= 256, f"mutation {number}"
            assert 0 <= y1 < y2 <= 256, f"mutation {number}"


@pytest.mark.parametrize("original", [BUS, DRIVE], ids=["semantic", "sensor fusion"])
def test_no_json_gives_angles_outside_their_range(original: bytes) -> None:
    labels = 0
    for number, data in mutated(original, 2000, (*MUTATIONS, splice_json, splice_json, splice_json)):
        try:
            windows = bus_windows(data, window_signals(RULE), FRAMES, lambda _: 11000)
        except ValueError:
            continue
        for bus in windows.values():
            try:
                window = convert_steering(bus.signals(), RULE)
            except (ValueError, Absent):
                continue
            labels += 1
            assert 10 <= len(window["angles_deg"]) == len(window["timestamps_us"]), f"mutation {number}"
            assert all(-614.25 <= angle <= 614.25 for angle in window["angles_deg"]), f"mutation {number}"
            assert window["timestamps_us"] == sorted(window["timestamps_us"]), f"mutation {number}"
    assert labels > 300, "many mutations spoil one number only"


@pytest.mark.parametrize(
    ("original", "read"),
    [
        pytest.param(orjson.dumps(CLASS_LIST), lambda data: check_class_list(decode_json(data)), id="class list"),
        pytest.param(orjson.dumps(cams_lidars()), lambda data: parse_calibrations(decode_json(data)), id="calibration"),
    ],
)
def test_damaged_descriptions_are_refused_or_read(original: bytes, read: Callable[[bytes], object]) -> None:
    refused = 0
    for _, data in mutated(original, 1000, (*MUTATIONS, splice_json)):
        try:
            read(data)
        except ValueError:
            refused += 1
    assert refused > 600


def test_a_damaged_tar_is_refused_or_its_members_lie_inside(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    for number, data in mutated(make_tar(), 1500):
        path.write_bytes(data)
        try:
            members = scan_tar(path, allow_cut=bool(number % 2))
        except CutTar:
            continue
        assert all(member.offset >= 0 and member.offset + member.size <= len(data) for member in members)


def test_a_damaged_index_is_refused_or_read(shards: Path, tmp_path: Path) -> None:
    original = (shards / "val-000001.index.json").read_bytes()
    path = tmp_path / "val-000001.index.json"
    for _, data in mutated(original, 1000, (*MUTATIONS, splice_json)):
        path.write_bytes(data)
        try:
            ShardIndex.read(path)
        except ValueError:
            continue
