"""LiDAR returns to sparse depth: points placed at the sample's resolution, the nearest one wins."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from preprocess.absent import Absent, Mismatch
from preprocess.label import LabelConverter, LabelInput, LabelMember, Section
from preprocess.rules import DepthRule
from shards.geometry import Intrinsics, project, sample_from_pixel
from shards.png import encode_grey_png

_MAX_NPZ_BYTES = 256 << 20  # unpacked; A2D2's are under 2 MB
_NPY_PREFIX_BYTES = 10  # magic, version and length of the header
_ZIP_HEADER_BYTES, _ZIP_END_BYTES = 30, 22  # of a file, without its name; of the archive's end
_SIZE_BEHIND_DATA = 8  # a flag: what was written to a pipe has its sizes behind the data
_KEYS = ("row", "col", "distance")
_SENSOR_FUSION = "pcloud_attr."  # before the same names
_LATE, _BEHIND, _UNEQUAL, _OFF = (
    "other_time",
    "behind",
    "unequal_distance",
    "other_pixel",
)  # why single returns are dropped
_WHY = {  # the same, where most of them are
    _LATE: "LiDAR of another time than the image",
    _BEHIND: "LiDAR points behind the camera",
    _UNEQUAL: "LiDAR distances disagree with their points",
    _OFF: "LiDAR pixels disagree with their points",
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Returns:
    """The returns of a LiDAR file, each array (N,) float64 unless it says otherwise; None where the file has none."""

    row: Floats  # px of the undistorted image, centres at integers
    col: Floats
    distance_m: Floats
    ahead_m: Floats | None = None  # along the camera's axis; A2D2 calls it depth
    points_m: Floats | None = None  # (N, 3) in the camera's view frame, x ahead
    time_us: Floats | None = None


def read_returns(data: bytes) -> Returns:
    """A LiDAR npz as published, semantic or sensor fusion.

    Sensor fusion's has other names, and returns that are marked as not valid: they are dropped. Raises Absent where
    it has no rows and columns (the first frames of some scenes), ValueError where it is damaged, pickled, of unequal
    lengths or not finite.
    """
    try:
        arrays = _unpack(data)
    except Absent:
        raise
    except Exception as error:  # zipfile, its decompressors and numpy's parser raise any of them at random bytes
        raise ValueError(f"damaged npz: {error}") from error
    shapes = {name: array.shape for name, array in arrays.items()}
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) > 1 or any(array.ndim != 1 for name, array in arrays.items() if name != "points"):
        raise ValueError(f"row, col and distance must be of equal length, got {shapes}")
    valid = arrays.pop("valid", None)
    if valid is not None:
        arrays = {name: array[valid != 0] for name, array in arrays.items()}
    row, col, distance_m = (arrays[name] for name in _KEYS)
    if not (np.isfinite(row).all() and np.isfinite(col).all() and np.isfinite(distance_m).all()):
        raise ValueError("row, col and distance must be finite")
    return Returns(row, col, distance_m, arrays.get("depth"), arrays.get("points"), arrays.get("timestamp"))


def _unpack(data: bytes) -> dict[str, Floats]:
    """The arrays of `_KEYS`, and those for comparisons that are there; of sensor fusion `valid` too."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MAX_NPZ_BYTES:
            raise ValueError(f"{unpacked} bytes unpacked, more than {_MAX_NPZ_BYTES}")
        # Arrays that no label needs are read too, for their checksum: a file with one wrong bit is not to be trusted.
        files = {name.removesuffix(".npy"): content for name, content in _contents(archive, data)}
    prefix = _SENSOR_FUSION if any(name.startswith(_SENSOR_FUSION) for name in files) else ""
    missing = [name for name in _KEYS if prefix + name not in files]
    if missing:
        raise Absent(f"npz without {', '.join(missing)}")
    wanted = (*_KEYS, "depth", "timestamp", "valid") if prefix else (*_KEYS, "depth", "timestamp", "points")
    return {name: _numbers(name, files[prefix + name]) for name in wanted if prefix + name in files}


def _contents(archive: zipfile.ZipFile, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every file's name and content, checked; raises ValueError where they do not fill the archive.

    A damaged directory would hide files, and a label would be absent without a word.
    """
    entries, at = archive.infolist(), 0
    if any(entry.flag_bits & _SIZE_BEHIND_DATA for entry in entries):
        yield from ((entry.filename, archive.read(entry)) for entry in entries)
        return
    for entry in entries:
        start = at + _ZIP_HEADER_BYTES + sum(struct.unpack_from("<HH", data, at + 26))  # name and extra field
        at = start + entry.compress_size
        yield entry.filename, _content(archive, entry, data[start:at])
    if at != archive.start_dir or data[-_ZIP_END_BYTES:][:4] != b"PK\5\6":
        raise ValueError("its directory does not account for all its bytes")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, packed: bytes) -> bytes:
    """A file's content, inflated by libdeflate where it can be, in two thirds of zipfile's time."""
    if entry.flag_bits or entry.compress_type != zipfile.ZIP_DEFLATED:
        return archive.read(entry)
    content = bytes(imagecodecs.deflate_decode(packed, raw=True, out=entry.file_size))
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise ValueError(f"Bad CRC-32 for file {entry.filename!r}")
    return content


def _numbers(name: str, npy: bytes) -> Floats:
    header = npy[: _NPY_PREFIX_BYTES + int.from_bytes(npy[8:10], "little")]
    if np.lib.format.read_magic(io.BytesIO(npy)) != (1, 0):
        array = np.lib.format.read_array(io.BytesIO(npy), allow_pickle=False)
    else:
        shape, fortran_order, dtype = _npy_header(header)
        count = math.prod(shape)
        flat = np.frombuffer(npy, dtype, count, offset=len(header))
        array = flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be of numbers, got {array.dtype}")
    return np.asarray(array, dtype=np.float64)


@lru_cache(maxsize=16)
def _npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and dtype. Most arrays of a file have one header, and reading it is slow."""
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header[8:]))
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
    return shape, fortran_order, dtype


def convert_depth(
    row: Floats, col: Floats, distance_m: Floats, *, original_hw: tuple[int, int], size: int, rule: DepthRule
) -> NDArray[Any]:
    """Points -> (S, S) levels as quantise_depth's, 0 = no return; each a square of point_px, the nearest in front.

    Points outside the original image, and distances that are not positive, are dropped. Source: the contract's
    depth rule; never a resized sparse image, which would mix returns with nothing.
    """
    x, y = sample_from_pixel(col, original_hw[1], size), sample_from_pixel(row, original_hw[0], size)
    inside = (x >= 0) & (x < size) & (y >= 0) & (y < size) & (distance_m > 0)
    x, y = x[inside].astype(np.int64), y[inside].astype(np.int64)
    # Unsigned, -level is 256 - level: the nearest is the largest, and 0, no return, stays 0 and lies behind all.
    nearness = np.negative(quantise_depth(distance_m[inside], rule))
    far_first = np.argsort(nearness, kind="stable")
    placed = np.zeros((size, size), dtype=nearness.dtype)
    placed[y[far_first], x[far_first]] = nearness[far_first]  # of repeated places numpy keeps the last, the nearest
    return np.negative(cv2.dilate(placed, np.ones((rule.point_px, rule.point_px), np.uint8)))


def quantise_depth(distance_m: Floats, rule: DepthRule) -> NDArray[Any]:
    """Metres, positive -> uint8 max(1, round(255 d / max_m)) or uint16 max(1, round(256 d)), d clipped at max_m."""
    scale, kind = (255 / rule.max_m, np.uint8) if rule.bits == 8 else (256.0, np.uint16)
    return np.maximum(1, np.round(np.minimum(distance_m, rule.max_m) * scale)).astype(kind)


def agreeing(
    returns: Returns, image_us: int | None, rule: DepthRule, intrinsics: Intrinsics | None = None
) -> tuple[NDArray[np.bool_], Counter[str]]:
    """(N,) which returns agree with the image and with themselves; and how many do not, by reason.

    A return may be of another time than the image, lie behind the camera, or have a distance or a pixel that is not its
    point's (the semantic set alone: no published file of sensor fusion was at hand to check it).
    """
    keep = np.ones(len(returns.row), dtype=bool)
    wrong: dict[str, NDArray[np.bool_]] = {}
    if returns.time_us is not None and image_us is not None:
        wrong[_LATE] = ~(abs(returns.time_us - image_us) <= 1e6 * rule.max_gap_s)
    if returns.ahead_m is not None:
        wrong[_BEHIND] = ~(returns.ahead_m > 0)
    points_m = returns.points_m
    if points_m is not None and points_m.ndim == 2 and points_m.shape[1] == 3:
        norm_m = np.sqrt(np.einsum("ij,ij->i", points_m, points_m))
        wrong[_UNEQUAL] = ~(abs(returns.distance_m - norm_m) <= rule.max_disagreement_m)
        if intrinsics is not None:
            with np.errstate(all="ignore"):  # a point in the camera's plane has no pixel
                col, row = project(points_m, intrinsics).T
                near = (abs(returns.col - col) <= rule.max_offset_px) & (abs(returns.row - row) <= rule.max_offset_px)
            wrong[_OFF] = ~near
    dropped: Counter[str] = Counter()
    for reason, mask in wrong.items():
        if count := int(np.count_nonzero(mask & keep)):
            dropped[reason] = count
            keep &= ~mask
    return keep, dropped


def _convert(given: LabelInput) -> LabelMember:
    returns = read_returns(given.read("depth"))
    rule, size, image_us = given.rules.depth, given.rules.image.size, given.camera_time_us
    keep, dropped = agreeing(returns, image_us, rule, given.intrinsics)
    offset: Section = {}
    if returns.time_us is not None and image_us is not None and len(keep):
        offset["offset_ms"] = round(float(np.median(returns.time_us - image_us)) / 1e3, 3)
    if dropped.total() > rule.max_dropped * len(keep) or (dropped and not keep.any()):
        raise Mismatch(_WHY[dropped.most_common(1)[0][0]], offset)
    row, col, distance_m = returns.row, returns.col, returns.distance_m
    if dropped:
        row, col, distance_m = row[keep], col[keep], distance_m[keep]
    levels = convert_depth(row, col, distance_m, original_hw=given.original_hw, size=size, rule=rule)
    pixels = int(np.count_nonzero(levels))
    if not pixels:
        raise Absent("no point inside the image")
    section = {
        "points": len(keep),
        "pixels": pixels,
        "beyond_max_m": int(np.count_nonzero(distance_m > rule.max_m)),
        "dropped": dict(sorted(dropped.items())),
        **offset,
    }
    return LabelMember("depth.png", encode_grey_png(levels), section)


CONVERTER = LabelConverter(_convert, files=("image", "camera_json", "depth"))
