"""Members of a sample: arrays to bytes and back.

The `_into` decoders write into an array that is there, and are for bytes whose checksum was just compared.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Any

import cv2
import imagecodecs
import numpy as np
import orjson
from numpy.typing import NDArray

from shards.png import decode_png, decode_rgb_png, unfiltered_rows
from shards.schema import MEMBERS

_EVALUATING = Lock()
_RGB_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


def _imencode(extension: str, array: NDArray[Any], options: list[int]) -> bytes:
    ok, buffer = cv2.imencode(extension, array, options)
    assert ok, f"OpenCV could not encode a {array.shape} {array.dtype} array as {extension}"
    return buffer.tobytes()


def encode_image(rgb: NDArray[np.uint8], image_format: str, quality: int) -> bytes:
    """(S, S, 3) uint8 RGB -> JPEG (4:2:0) of that quality, or PNG."""
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    if image_format == "png":
        return _imencode(".png", bgr, _RGB_PNG)
    return _imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_npy(array: NDArray[Any]) -> bytes:
    """Any array -> .npy, never pickled."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def encode_json(document: Any) -> bytes:
    """Plain values -> compact UTF-8 JSON, keys in the order given."""
    return orjson.dumps(document)


def decode_json(data: bytes) -> Any:
    """UTF-8 JSON -> plain values. Raises ValueError where it is not JSON (NaN and Infinity are not)."""
    return orjson.loads(data)


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """`image.jpg` or `image.png` -> (S, S, 3) uint8 RGB."""
    if data[:3] != b"\xff\xd8\xff":
        return decode_rgb_png(data)
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data, outcolorspace="RGB"))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"damaged JPEG: {error}") from error


def decode_npy(data: bytes) -> NDArray[Any]:
    """.npy -> array. Raises ValueError where it is damaged or pickled."""
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (OSError, EOFError) as error:
        raise ValueError(f"damaged .npy: {error}") from error


def decode_segmentation(data: bytes) -> NDArray[np.uint8]:
    """`segmentation.png` or `.npy` -> (S, S) uint8 class id, 255 = ignored."""
    return decode_npy(data) if data[:6] == b"\x93NUMPY" else decode_png(data)


def decode_depth(data: bytes, max_m: float) -> NDArray[np.float32]:
    """`depth.png` -> (S, S) float32 metres, 0 = no return; 8 bits hold 255 d / max_m, 16 bits 256 d."""
    pixels = decode_png(data)
    scale = max_m / 255 if pixels.dtype == np.uint8 else 1 / 256
    return pixels.astype(np.float32) * np.float32(scale)


def decode_image_into(data: bytes, out: NDArray[np.uint8]) -> None:
    """`image.jpg` or `image.png` -> out (S, S, 3) uint8 RGB. Raises ValueError where damaged or of another size."""
    if data[:3] != b"\xff\xd8\xff":
        _copy(decode_rgb_png(data), out)
        return
    try:
        imagecodecs.jpeg8_decode(data, outcolorspace="RGB", out=out)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"must be a JPEG of {out.shape}: {error}") from error


def decode_grey_into(data: bytes, out: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Grey PNG or .npy -> out (S, S), as stored. Raises ValueError where it is damaged or of another size or type."""
    if data[:6] == b"\x93NUMPY":
        decode_npy_into(data, out)
        return
    rows = unfiltered_rows(data, out.shape, out.dtype)
    _copy(decode_png(data) if rows is None else rows, out)


def decode_npy_into(data: bytes, out: NDArray[Any]) -> None:
    """.npy -> out. Raises ValueError where it is damaged or of another shape or type.

    NumPy evaluates the header as Python, which fails at times in Python 3.11 where two threads do: so the header that
    we write is only compared, and any other waits its turn.
    """
    header = _npy_header(out.shape, out.dtype.str)
    if data.startswith(header) and len(data) == len(header) + out.nbytes:
        np.copyto(out, np.frombuffer(data, out.dtype, offset=len(header)).reshape(out.shape))
        return
    with _EVALUATING:
        array = decode_npy(data)
    _copy(array, out)


@cache
def _npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The header of the .npy file of such an array."""
    array = np.empty(shape, dtype)
    return encode_npy(array)[: -array.nbytes]


def _copy(array: NDArray[Any], out: NDArray[Any]) -> None:
    if array.shape != out.shape or array.dtype.newbyteorder("=") != out.dtype:
        raise ValueError(f"must be {out.shape} {out.dtype}, got {array.shape} {array.dtype}")
    np.copyto(out, array)


_DECODERS: dict[str, Callable[[bytes, float], Any]] = {  # label -> decoder, for what its member's suffix does not say
    "image": lambda data, _: decode_image(data),
    "segmentation": lambda data, _: decode_segmentation(data),
    "depth": decode_depth,
}
_DECODERS_BY_SUFFIX: dict[str, Callable[[bytes], Any]] = {"json": decode_json, "npy": decode_npy, "png": decode_png}


def decode_member(label: str, data: bytes, max_m: float) -> Any:
    """A label's member as the trainer takes it: arrays, and the JSON object of a `.json` member."""
    if label in _DECODERS:
        return _DECODERS[label](data, max_m)
    suffix = MEMBERS[label][0].rpartition(".")[2]
    return _DECODERS_BY_SUFFIX[suffix](data)
