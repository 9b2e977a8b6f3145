"""LiDAR returns: placed at the sample's resolution, the nearest in front, quantised as the contract says."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from preprocess.absent import Absent
from preprocess.depth import convert_depth, quantise_depth, read_returns
from preprocess.rules import DepthRule


def depth_of(points: list[tuple[float, float, float]], point_px: int = 1, size: int = 256) -> np.ndarray[Any, Any]:
    """Points as (row, col, distance) of an original of 512x512 -> metres, exact to 1/256."""
    row, col, distance_m = np.array(points, dtype=float).reshape(-1, 3).T
    rule = DepthRule(max_m=200.0, bits=16, point_px=point_px)
    return convert_depth(row, col, distance_m, original_hw=(512, 512), size=size, rule=rule) / 256


@pytest.mark.parametrize(
    ("row", "col", "place"),
    [
        pytest.param(0.0, 0.0, (0, 0), id="first"),
        pytest.param(1.49, 1.49, (0, 0), id="edge of the first: original pixels 0 and 1 make sample pixel 0"),
        pytest.param(1.51, 0.0, (1, 0), id="beyond it"),
        pytest.param(511.4, 511.4, (255, 255), id="last"),
    ],
)
def test_a_point_lands_in_its_pixel(row: float, col: float, place: tuple[int, int]) -> None:
    assert [tuple(at) for at in np.argwhere(depth_of([(row, col, 7.0)]))] == [place]


@pytest.mark.parametrize(
    "point",
    [(-0.6, 5.0, 7.0), (5.0, 511.6, 7.0), (5.0, 5.0, 0.0), (5.0, 5.0, -3.0), (1e300, -1e300, 7.0)],
    ids=["above", "right of it", "no distance", "behind", "far beyond what an integer holds"],
)
def test_points_outside_are_dropped(point: tuple[float, float, float]) -> None:
    assert not depth_of([point], point_px=3).any()


def test_the_nearest_wins_where_squares_overlap() -> None:
    depth_m = depth_of([(100, 100, 30.0), (100, 104, 10.0), (100, 102, 50.0)], point_px=3)
    np.testing.assert_array_equal(depth_m[50, 49:54], [30, 30, 10, 10, 10])
    np.testing.assert_array_equal(depth_m[48, 49:54], 0)
    assert np.count_nonzero(depth_m) == 3 * 5


def test_a_square_is_cut_at_the_border() -> None:
    assert np.count_nonzero(depth_of([(0, 0, 5.0)], point_px=3)) == 4


def test_a_distance_beyond_all_measure_is_the_largest() -> None:
    assert depth_of([(5.0, 5.0, 1e300)])[2, 2] == 200


@pytest.mark.parametrize(
    ("bits", "metres", "level"),
    [
        pytest.param(8, 0.1, 1, id="near is not nothing"),
        pytest.param(8, 61.5, 128, id="half (127.5 rounds to even)"),
        pytest.param(8, 123.0, 255, id="largest"),
        pytest.param(8, 200.0, 255, id="clipped"),
        pytest.param(16, 0.001, 1, id="16 bits: near"),
        pytest.param(16, 10.5, 2688, id="16 bits"),
        pytest.param(16, 500.0, 31488, id="16 bits: clipped"),
    ],
)
def test_levels(bits: int, metres: float, level: int) -> None:
    levels = quantise_depth(np.array([metres]), DepthRule(bits=bits))
    assert levels[0] == level
    assert levels.dtype == (np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bits", [8, 16])
def test_every_level_that_is_placed_is_there(bits: int) -> None:
    """The smallest and the largest distance too, each beside nothing."""
    rule = DepthRule(max_m=255.9, bits=bits, point_px=1)
    metres = np.array([1e-9, 0.5, 100.0, 255.9, 1e9])
    place = np.arange(len(metres)) * 3.0
    levels = convert_depth(place, place, metres, original_hw=(256, 256), size=256, rule=rule)
    np.testing.assert_array_equal(levels[place.astype(int), place.astype(int)], quantise_depth(metres, rule))
    assert np.count_nonzero(levels) == len(metres)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ONES = np.ones(3)
GOOD = {"row": ONES, "col": 2 * ONES, "distance": 3 * ONES, "points": np.ones((3, 3))}


def test_reading_points() -> None:
    returns = read_returns(npz(**GOOD))
    for found, expected in ((returns.row, 1), (returns.col, 2), (returns.distance_m, 3)):
        np.testing.assert_array_equal(found, [expected] * 3)


def test_points_in_fortrans_order_are_the_same() -> None:
    points = np.arange(9.0).reshape(3, 3)
    for stored in (points, np.asfortranarray(points), points.astype(">f4")):
        found = read_returns(npz(**{**GOOD, "points": stored})).points_m
        assert found is not None
        np.testing.assert_array_equal(found, points)


def sensor_fusion(**changes: Any) -> bytes:
    """Three returns, the second of them not valid, with the names that sensor fusion has."""
    arrays = {**GOOD, "valid": np.array([True, False, True]), "rectime": np.ones(3, dtype=int), **changes}
    return npz(pcloud_points=arrays.pop("points"), **{f"pcloud_attr.{name}": array for name, array in arrays.items()})


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        pytest.param(sensor_fusion(), [0, 2], id="as published"),
        pytest.param(sensor_fusion(valid=np.array([1, 0, 0])), [0], id="valid as numbers"),
        pytest.param(sensor_fusion(row=np.array([7.0, np.nan, 7.0])), [0, 2], id="no number where not valid"),
        pytest.param(sensor_fusion(valid=np.zeros(3)), [], id="none valid"),
        pytest.param(npz(**{f"pcloud_attr.{name}": array for name, array in GOOD.items()}), [0, 1, 2], id="no valid"),
    ],
)
def test_sensor_fusion_drops_what_is_not_valid(data: bytes, columns: list[int]) -> None:
    returns = read_returns(data)
    np.testing.assert_array_equal(returns.col, 2 * ONES[columns])
    np.testing.assert_array_equal(returns.distance_m, 3 * ONES[columns])
    assert len(returns.row) == len(columns)


def test_a_sensor_fusion_npz_without_rows_is_absent() -> None:
    with pytest.raises(Absent, match=r"^npz without row, col, distance$"):
        read_returns(npz(pcloud_points=np.ones((3, 3)), **{"pcloud_attr.valid": ONES}))


def test_an_npz_without_rows_is_absent_not_bad() -> None:
    with pytest.raises(Absent, match="npz without row, col, distance"):
        read_returns(npz(points=np.ones((3, 3))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "damaged npz", id="empty"),
        pytest.param(npz(**GOOD)[:-40], "damaged npz", id="cut"),
        pytest.param(npz(**GOOD).replace(ONES.tobytes(), bytes(24), 1), "damaged npz: Bad CRC-32", id="flipped"),
        pytest.param(
            npz(**GOOD).replace(np.ones((3, 3)).tobytes(), bytes(72), 1), "Bad CRC-32", id="flipped in what is not used"
        ),
        pytest.param(npz(**{**GOOD, "row": np.ones(4)}), "must be of equal length", id="lengths"),
        pytest.param(npz(**{**GOOD, "row": np.array([1, np.nan, 1])}), "must be finite", id="nan"),
        pytest.param(npz(**{**GOOD, "row": np.array([{}, 1, 2])}), "allow_pickle=False", id="pickled"),
        pytest.param(npz(**{**GOOD, "row": np.array(["1", "2", "3"])}), "row must be of numbers, got <U1", id="text"),
        pytest.param(npz(**{**GOOD, "col": ONES * 1j}), "col must be of numbers, got complex128", id="complex"),
        pytest.param(npz(**{**GOOD, "row": np.ones((3, 1))}), "must be of equal length", id="shape"),
        pytest.param(sensor_fusion(valid=np.ones(4)), "must be of equal length", id="as many valid"),
        pytest.param(sensor_fusion(row=np.array([np.inf, 1, 1])), "must be finite", id="valid, but infinite"),
    ],
)
def test_bad_npz_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_returns(data)
