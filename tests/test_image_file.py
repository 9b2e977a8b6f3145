"""Image files as people see them: upright, the right brightness, transparency over grey, every page, within a limit."""

from __future__ import annotations

import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from train.deploy.image_file import GROUND, ImageRules, Page, page_count, read_image, read_pages

RAMP = np.arange(0, 256, dtype=np.uint8).reshape(8, 32)
RULES = ImageRules()


def pages(path: Path, rules: ImageRules = RULES) -> list[Page]:
    return list(read_pages(path, rules))


def colours() -> np.ndarray:
    """(8, 32, 3) uint8, different in each channel."""
    return np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)


@pytest.mark.parametrize(
    ("bits", "known"), [(8, "8 bits"), (10, "10 bits"), (12, "12 bits"), (14, "14 bits"), (16, "")]
)
@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "rgb.png", "rgb.tif", "alpha.png"])
def test_values_in_16_bits(tmp_path: Path, kind: str, bits: int, known: str):
    """What a camera writes into the lower bits comes out as bright as it is, and what was assumed is said."""
    values = colours() if kind.startswith(("rgb", "alpha")) else RAMP
    wide = np.round(values.astype(float) / 255 * (2**bits - 1)).astype(np.uint16)
    expected = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    if kind == "alpha.png":
        wide = np.concatenate([wide, np.full((8, 32, 1), 65535, np.uint16)], axis=2)
        (tmp_path / kind).write_bytes(imagecodecs.png_encode(wide))
    elif values.ndim == 3:
        cv2.imwrite(str(tmp_path / kind), wide[..., ::-1])
    else:
        Image.fromarray(wide).save(tmp_path / kind)
    (page,) = pages(tmp_path / kind)
    assert page.image is not None
    np.testing.assert_allclose(page.image, expected, atol=1)
    assert len(page.remarks) == bool(known)
    assert all(f"are taken as {known}" in remark and "--max-value" in remark for remark in page.remarks)


def test_white_as_asked(tmp_path: Path):
    """One white for all pictures of a camera: a dark one among them stays dark. More than white is said."""
    dark = (RAMP.astype(np.uint16) * 2).clip(0, 500)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    (page,) = pages(tmp_path / "dark.png", ImageRules(max_value=4095))
    assert page.image is not None
    np.testing.assert_array_equal(page.image[..., 0], np.round(dark * (255 / 4095)))
    assert page.remarks == ()
    (page,) = pages(tmp_path / "dark.png", ImageRules(max_value=100))
    assert page.remarks[0] == "values up to 500 are above white, 100"


def test_other_ranges(tmp_path: Path):
    """32 bits and floating point; where nothing tells what is white, it must be given."""
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "wide.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "wide.tif")[..., 0], RAMP)
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "floats.tif")
    with pytest.raises(ValueError, match="floating point numbers, whose range is not known: --max-value says it"):
        read_image(tmp_path / "floats.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "floats.tif", ImageRules(max_value=1))[..., 0], RAMP)
    Image.fromarray(RAMP.astype(np.int32) - 5).save(tmp_path / "negative.tif")
    with pytest.raises(ValueError, match="values below 0"):
        read_image(tmp_path / "negative.tif")
    (tmp_path / "known.pgm").write_bytes(b"P5 32 8 1023\n" + (RAMP.astype(int) * 4).astype(">u2").tobytes())
    (page,) = pages(tmp_path / "known.pgm")  # the format says what is white
    assert page.image is not None
    np.testing.assert_allclose(page.image[..., 0], RAMP, atol=1)
    assert page.remarks == ()


def test_white_is_zero_in_16_bits(tmp_path: Path):
    deep = RAMP.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "x.tif") as opened:
        assert opened.tag_v2[262] == 0
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif")[..., 0], 255 - RAMP)


@pytest.mark.parametrize(("level", "said"), [(0, "nearly black"), (9, "nearly black"), (250, "nearly white"), (90, "")])
def test_nothing_to_see_is_said(tmp_path: Path, level: int, said: str):
    Image.new("RGB", (50, 40), (level,) * 3).save(tmp_path / "x.png")
    assert pages(tmp_path / "x.png")[0].remarks == ((said,) if said else ())


@pytest.mark.parametrize("kind", ["rgba8", "rgba16", "palette", "colour key"])
def test_hidden_colours_stay_hidden(tmp_path: Path, kind: str):
    """Under transparent pixels there may be anything: they are grey, half of it where they are half transparent."""
    found = []
    for hidden in ((0, 255, 0), (255, 0, 255)):
        rgba = np.full((4, 4, 4), 255, np.uint8)
        rgba[:2, :, :3], rgba[:2, :, 3] = hidden, 0
        rgba[2, :, :3], rgba[2, :, 3] = (200, 100, 0), 255 if kind in ("palette", "colour key") else 51
        path = tmp_path / "x.png"
        if kind == "rgba16":
            path.write_bytes(imagecodecs.png_encode(rgba.astype(np.uint16) * 257))
        elif kind == "palette":
            Image.fromarray(rgba).quantize(8).save(path)
        elif kind == "colour key":
            Image.fromarray(rgba[..., :3]).save(path, transparency=hidden)
        else:
            Image.fromarray(rgba).save(path)
        (page,) = pages(path)
        assert page.image is not None
        assert "of its pixels are transparent, and shown over grey (128)" in page.remarks[0]
        found.append(page.image)
    np.testing.assert_array_equal(found[0][:2], np.full((2, 4, 3), GROUND))
    np.testing.assert_allclose(found[0], found[1], atol=3 if kind == "palette" else 0)
    if kind.startswith("rgba"):
        np.testing.assert_allclose(found[0][2], np.broadcast_to([142, 122, 102], (4, 3)), atol=1)


@pytest.mark.parametrize("kind", ["tif", "gif", "webp", "png"])
def test_every_page(tmp_path: Path, kind: str):
    levels = [10, 90, 170, 250]
    drawn = [Image.new("RGB", (20, 10), (level, 255 - level, 60)) for level in levels]
    path = tmp_path / f"x.{kind}"
    options = {"webp": {"lossless": True}, "png": {"blend": 0}}.get(kind, {})
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=100, **options)
    assert page_count(path) == 4
    assert [page.image[0, 0, 0] for page in pages(path) if page.image is not None] == pytest.approx(levels, abs=2)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_damaged_page_among_others(tmp_path: Path):
    """It is said, and the others are there."""
    drawn = [Image.fromarray(np.roll(colours(), 7 * number, axis=1)) for number in range(3)]
    drawn[0].save(tmp_path / "x.tif", save_all=True, append_images=drawn[1:], compression="tiff_adobe_deflate")
    data = bytearray((tmp_path / "x.tif").read_bytes())
    with Image.open(tmp_path / "x.tif") as opened:
        opened.seek(1)
        at, size = opened.tag_v2[273][0], opened.tag_v2[279][0]
    data[at + 2 : at + size] = bytes(size - 2)
    (tmp_path / "x.tif").write_bytes(bytes(data))
    found = pages(tmp_path / "x.tif")
    assert [page.reason for page in found] == ["", "a damaged image", ""]
    (tmp_path / "cut.tif").write_bytes(bytes(data[: len(data) // 2]))
    assert any(page.image is None for page in pages(tmp_path / "cut.tif"))


def test_smaller_copies_are_no_pages(tmp_path: Path):
    whole, copy = Image.fromarray(colours()), Image.fromarray(colours()[::2, ::2])
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    whole.save(tmp_path / "x.tif", save_all=True, append_images=[copy])
    with Image.open(tmp_path / "x.tif") as opened:
        assert opened.n_frames == 2
        opened.seek(1)
        assert opened.tag_v2[254] == 1
    assert page_count(tmp_path / "x.tif") == len(pages(tmp_path / "x.tif")) == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path: Path, orientation: int, deep: bool, suffix: str):
    """All eight ways that a camera can be held, in 8 and in 16 bits."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = RAMP.astype(np.uint16) * 257 if deep else RAMP
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(stored).save(path, exif=exif)
    upright = {1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.T, 6: np.rot90(RAMP, -1),
               7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP)}  # fmt: skip
    np.testing.assert_array_equal(read_image(path)[..., 0], upright[orientation])


def test_the_limit_is_ours(tmp_path: Path):
    """Its number and the option that raises it are said, and Pillow neither warns nor refuses."""
    Image.new("1", (14_000, 14_000)).save(tmp_path / "panorama.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (page,) = pages(tmp_path / "panorama.png")
        assert page.reason == (
            "14000 x 14000 pixels are above the limit of 100 megapixels, which --max-megapixels raises"
        )
        Image.new("RGB", (1000, 900), (90, 90, 90)).save(tmp_path / "small.png")
        assert pages(tmp_path / "small.png", ImageRules(max_megapixels=0.5))[0].image is None
        assert pages(tmp_path / "small.png", ImageRules(max_megapixels=0.9))[0].image is not None
    assert Image.MAX_IMAGE_PIXELS is not None


READ_ALL = """
import pathlib, sys, warnings
from train.deploy.image_file import ImageRules, read_pages
warnings.filterwarnings("ignore", module="PIL")  # as amtl-predict does
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(sum(page.image is not None for page in read_pages(path, ImageRules())))
"""


def test_nothing_but_our_words(tmp_path: Path):
    """libpng and libtiff print on stderr what they think of a damaged file."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    folder = tmp_path / "files"
    folder.mkdir()
    whole = bytes(imagecodecs.png_encode(colours().astype(np.uint16) * 257))
    for number, extra in enumerate((chunk(b"iCCP", b"x\0\0abc"), chunk(b"pHYs", b"x" * 12), chunk(b"tRNS", b"x"))):
        (folder / f"{number}.png").write_bytes(whole[:33] + extra + whole[33:])
    cv2.imwrite(str(tmp_path / "x.tif"), colours().astype(np.uint16) * 257)
    data = (tmp_path / "x.tif").read_bytes()
    for at in range(8, len(data), 40):
        (folder / f"{at}.tif").write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", READ_ALL, folder], cwd=root, capture_output=True, check=True)
    assert done.stderr == b""
    assert set(done.stdout.split()) == {b"0", b"1"}
