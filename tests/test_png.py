"""PNGs: every form is read as it is, every damage is refused, and what is written is small and lossless."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from shards.codec import decode_grey_into
from shards.png import decode_png, decode_rgb_png, encode_grey_png, unfiltered_rows
from tests.conftest import png

RGB = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(data: bytes, new: bytes, *, behind_pixels: bool = False) -> bytes:
    """A chunk more, behind the header or before the end."""
    at = len(data) - 12 if behind_pixels else 33
    return data[:at] + new + data[at:]


def in_pieces(data: bytes, size: int) -> bytes:
    """A PNG of one IDAT chunk as one of many."""
    at = data.index(b"IDAT") + 4
    pixels = data[at : at + struct.unpack_from(">I", data, at - 8)[0]]
    pieces = [chunk(b"IDAT", pixels[start : start + size]) for start in range(0, len(pixels), size)]
    return data[:33] + b"".join(pieces) + data[-12:]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(RGB, id="rgb"),
        pytest.param(np.dstack([RGB, RGB[..., :1]]), id="rgba"),
        pytest.param(RGB[..., 0], id="grey"),
        pytest.param(RGB[..., 0].astype(np.uint16) * 257, id="grey 16"),
    ],
)
def test_every_form_is_read_as_it_is(array: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(decode_png(png(array)), array)
    np.testing.assert_array_equal(decode_png(in_pieces(png(array), 100)), array)


def test_what_the_fast_decoder_does_not_take_is_read_too(tmp_path: object) -> None:
    path = f"{tmp_path}/palette.png"
    Image.fromarray(RGB).quantize(16).save(path)
    with open(path, "rb") as file, Image.open(path) as image:  # noqa: PTH123 - both read the same name
        np.testing.assert_array_equal(decode_png(file.read()), np.asarray(image.convert("RGB")))


def test_alpha_is_dropped_and_colours_stay() -> None:
    np.testing.assert_array_equal(decode_rgb_png(png(np.dstack([RGB, RGB[..., :1]]))), RGB)


def test_a_description_beside_the_pixels_changes_nothing() -> None:
    for behind in (False, True):
        data = with_chunk(png(RGB), chunk(b"tEXt", b"Comment\0a car"), behind_pixels=behind)
        np.testing.assert_array_equal(decode_rgb_png(data), RGB)


def huge_png() -> bytes:
    data = bytearray(png(RGB))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"GIF89a" + bytes(50), "not a PNG", id="another format"),
        pytest.param(png(RGB)[:-60], "damaged PNG", id="cut"),
        pytest.param(huge_png(), "60000x60000 pixels is larger", id="bomb"),
        pytest.param(with_chunk(png(RGB), b"garbage", behind_pixels=True), "does not end as one", id="garbage"),
        pytest.param(
            with_chunk(png(RGB), chunk(b"tEXt", b"ok")[:-1] + b"x", behind_pixels=True), "checksum", id="text damaged"
        ),
        pytest.param(png(RGB)[:33] + png(RGB)[-12:], "damaged PNG", id="no pixels"),
        pytest.param(png(RGB) + b"more", "does not end as one", id="longer than itself"),
    ],
)
def test_bad_pngs_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_png(data)


@pytest.mark.parametrize("piece", [10_000, 100], ids=["one chunk", "many chunks"])
def test_no_flipped_bit_goes_unnoticed(piece: int) -> None:
    """Anywhere in the file, the ends of chunks and the stream's own checksum included."""
    data = in_pieces(png(RGB), piece)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match="PNG"):
            decode_png(bytes(damaged))


def test_class_maps_are_written_small_and_whole() -> None:
    classes = np.repeat(np.repeat(RGB[..., 0] % 38, 40, axis=0), 40, axis=1)
    for array in (classes, classes.astype(np.uint16) * 300):
        data = encode_grey_png(array)
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), array)
        np.testing.assert_array_equal(decode_png(data), array)
        assert len(data) < 0.05 * array.nbytes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_plain_grey_is_read_past_the_decoder(dtype: type[np.generic]) -> None:
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (16, 24)).astype(dtype)
    data, out = encode_grey_png(array), np.empty_like(array)
    for plain in (data, in_pieces(data, 100)):
        rows = unfiltered_rows(plain, array.shape, array.dtype)
        assert rows is not None
        np.testing.assert_array_equal(rows, array)
        decode_grey_into(plain, out)
        np.testing.assert_array_equal(out, array)
    assert unfiltered_rows(data, (24, 16), array.dtype) is None
    with pytest.raises(ValueError, match="must be"):
        decode_grey_into(data, np.empty((24, 16), dtype))


@pytest.mark.parametrize("filter_type", [cv2.IMWRITE_PNG_FILTER_SUB, cv2.IMWRITE_PNG_FILTER_PAETH])
def test_grey_with_row_filters_is_left_to_the_decoder(filter_type: int) -> None:
    data = cv2.imencode(".png", RGB[:, :, 0], [cv2.IMWRITE_PNG_FILTER, filter_type])[1].tobytes()
    out = np.empty((16, 24), np.uint8)
    assert unfiltered_rows(data, out.shape, out.dtype) is None
    decode_grey_into(data, out)
    np.testing.assert_array_equal(out, RGB[:, :, 0])


def test_damaged_pixels_are_noticed_past_the_decoder_too() -> None:
    data = encode_grey_png(RGB[:, :, 0])
    at, end = data.index(b"IDAT") + 4, len(data) - 16
    for place in range(at, end, 7):
        damaged = bytearray(data)
        damaged[place] ^= 4
        with pytest.raises(ValueError, match="damaged PNG"):
            decode_grey_into(bytes(damaged), np.empty((16, 24), np.uint8))
    short = data[:33] + chunk(b"IDAT", zlib.compress(bytes(16 * 25 - 1))) + data[-12:]
    with pytest.raises(ValueError, match="must hold 400 bytes of pixels, got 399"):
        decode_grey_into(short, np.empty((16, 24), np.uint8))


DECODE_ALL = """
import pathlib, sys
from shards.png import decode_png
whole = 0
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        decode_png(path.read_bytes())
        whole += 1
    except ValueError:
        pass
print(whole)
"""


def test_libpng_prints_nothing(tmp_path: Path):
    """What is wrong with a file is one ValueError; libpng's own lines would reach a terminal without a file's name."""
    draw = np.random.default_rng(0)
    deep = bytes(cv2.imencode(".png", RGB[..., 0].astype(np.uint16) * 200)[1])
    extra = ((b"iCCP", b"x\0\0abc"), (b"pHYs", bytes(12)), (b"tRNS", b"x"), (b"gAMA", bytes(4)), (b"sRGB", b"\7"))
    files = [with_chunk(deep, chunk(kind, content)) for kind, content in extra]
    files.append(deep[:33] + chunk(b"IDAT", zlib.compress(bytes(16 * (1 + 48)) + b"more")) + deep[-12:])
    start, end = deep.index(b"IDAT") + 4, len(deep) - 16
    for _ in range(200):  # damaged before the checksums were made
        torn = bytearray(deep)
        torn[draw.integers(16, 29)] = draw.integers(256)
        torn[draw.integers(start, end)] = draw.integers(256)
        files.append(
            deep[:8] + chunk(b"IHDR", bytes(torn[16:29])) + chunk(b"IDAT", bytes(torn[start:end])) + deep[-12:]
        )
    for number, data in enumerate(files):
        (tmp_path / f"{number:03d}.png").write_bytes(data)
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", DECODE_ALL, tmp_path], cwd=root, capture_output=True, check=True)
    assert done.stderr == b""
    assert 3 <= int(done.stdout) < len(files) // 2
