"""LiDAR returns to sparse depth: points placed at the sample's resolution, the nearest one wins."""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.absent import Absent
from preprocess.rules import DepthRule
from shards.geometry import sample_from_pixel

_MAX_NPZ_BYTES = 256 << 20  # unpacked; A2D2's are under 2 MB
_NOTHING = np.finfo(np.float32).max  # behind every point; also what OpenCV's erosion sees beyond the border
_KEYS = ("row", "col", "distance")

Floats = NDArray[np.float64]


def read_points(data: bytes) -> tuple[Floats, Floats, Floats]:
    """A LiDAR npz -> row, col (undistorted pixels, centres at integers) and distance (m), each (N,) float64.

    Raises Absent where it has no rows and columns (the first frames of some scenes), ValueError where it is
    damaged, pickled, of unequal lengths or not finite.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MAX_NPZ_BYTES:
            raise ValueError(f"npz of {unpacked} bytes unpacked is larger than {_MAX_NPZ_BYTES}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            missing = [key for key in _KEYS if key not in arrays]
            if missing:
                raise Absent(f"npz without {', '.join(missing)}")
            row, col, distance_m = (np.asarray(arrays[key], dtype=np.float64) for key in _KEYS)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, KeyError, TypeError, NotImplementedError) as error:
        raise ValueError(f"damaged npz: {error}") from error
    if not row.ndim == col.ndim == distance_m.ndim == 1 or not len(row) == len(col) == len(distance_m):
        raise ValueError(f"row, col and distance must be of equal length, got {row.shape}, {col.shape}, "
                         f"{distance_m.shape}")  # fmt: skip
    if not (np.isfinite(row).all() and np.isfinite(col).all() and np.isfinite(distance_m).all()):
        raise ValueError("row, col and distance must be finite")
    return row, col, distance_m


def convert_depth(
    row: Floats, col: Floats, distance_m: Floats, *, original_hw: tuple[int, int], size: int, point_px: int
) -> NDArray[np.float32]:
    """Points -> (S, S) float32 metres, 0 = no return; each a square of point_px, the nearest in front.

    Points outside the original image, and distances that are not positive, are dropped. Source: the contract's
    depth rule; never a resized sparse image, which would mix returns with nothing.
    """
    x = np.floor(sample_from_pixel(col, original_hw[1], size)).astype(np.int64)
    y = np.floor(sample_from_pixel(row, original_hw[0], size)).astype(np.int64)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size) & (distance_m > 0)
    x, y, kept = x[inside], y[inside], distance_m[inside].astype(np.float32)
    far_first = np.argsort(-kept, kind="stable")
    nearest = np.full((size, size), _NOTHING, dtype=np.float32)
    nearest[y[far_first], x[far_first]] = kept[far_first]  # of repeated places numpy keeps the last, the nearest
    spread = cv2.erode(nearest, np.ones((point_px, point_px), np.uint8))
    return np.where(spread == _NOTHING, 0, spread).astype(np.float32)


def quantise_depth(depth_m: NDArray[np.float32], rule: DepthRule) -> NDArray[Any]:
    """(S, S) metres -> uint8 max(1, round(255 d / max_m)) or uint16 max(1, round(256 d)); 0 stays no return."""
    clipped = np.minimum(depth_m, np.float32(rule.max_m)).astype(np.float64)
    scale, kind = (255 / rule.max_m, np.uint8) if rule.bits == 8 else (256.0, np.uint16)
    levels = np.maximum(1, np.round(clipped * scale))
    return np.where(depth_m > 0, levels, 0).astype(kind)
