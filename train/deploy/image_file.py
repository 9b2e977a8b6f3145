"""Image files as 8-bit RGB: every page, the range of values that more than 8 bits hold, transparency, and a size limit.

What had to be decided for a picture, and what a person should look at, comes with it as remarks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from shards.draw import Picture
from shards.png import decode_png

MAX_MEGAPIXELS = 100.0
GROUND = 128  # grey level that shows through transparent pixels
_LEVELS = (255, 1023, 4095, 16383, 65535)  # the greatest values of cameras' 8 to 16 bits
_DARK, _LIGHT = 12, 243  # a picture is nearly black or white where all but 1 % of its values lie beyond
_LOOKED_AT = 500  # rows and columns of a picture, at most, that this is judged by
_ORIENTATION = 0x0112  # tag of EXIF and TIFF
_SUBFILE, _BITS, _PHOTOMETRIC = 254, 258, 262  # tags of TIFF
_SMALLER_COPY, _WHITE_IS_ZERO = 1, 0  # their values
_ONE_PICTURE = ("MPO",)  # formats whose further pictures belong to the first: depth, gain map, other eye
_DAMAGE = (OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError, struct.error, RuntimeError, EOFError)
_OPENING = Lock()


@dataclass(frozen=True)
class ImageRules:
    """Settings for reading image files."""

    max_value: float | None = None  # white, in pictures of more than 8 bits; None: found in each picture
    max_megapixels: float = MAX_MEGAPIXELS  # larger pictures are refused


@dataclass(frozen=True)
class Page:
    """One picture of a file, or why there is none."""

    image: Picture | None  # (H, W, 3) uint8 RGB
    reason: str = ""
    remarks: tuple[str, ...] = ()


def is_image(path: Path) -> bool:
    """Whether the file begins as an image; True where it is not there, which is said when it is read."""
    try:
        with _opened(path):
            return True
    except UnidentifiedImageError:
        return False
    except OSError:
        return True


def page_count(path: Path) -> int:
    """Pictures in the file, at least 1; 1 where it is no image, and 2 or more where it has pages and is damaged."""
    pages = 1
    try:
        with _opened(path) as opened:
            pages = 2
            if opened.format == "TIFF":
                return max(1, sum(not _is_smaller_copy(opened) for _ in _pages(opened)))
            return 1 if opened.format in _ONE_PICTURE else max(1, int(getattr(opened, "n_frames", 1)))
    except Exception:  # damaged files fail in any way; reading the pages says how
        return pages


def read_pages(path: Path, rules: ImageRules) -> Iterator[Page]:
    """The pictures of a file in its order; a page without a picture where one, or all from there on, cannot be read."""
    try:
        with _opened(path) as opened:
            for number in _pages(opened):
                if number and _is_smaller_copy(opened):
                    continue
                try:
                    yield _read_page(opened, path, number, rules)
                except _DAMAGE:
                    yield Page(None, "a damaged image")
    except UnidentifiedImageError:
        yield Page(None, "not an image")
    except FileNotFoundError:
        yield Page(None, "no such file")
    except _DAMAGE:
        yield Page(None, "a damaged image")


def _pages(opened: Image.Image) -> Iterator[int]:
    """The numbers of the pages, at each of which the file then stands."""
    for number in range(1) if opened.format in _ONE_PICTURE else count():
        try:
            opened.seek(number)
        except EOFError:
            return
        yield number


def _is_smaller_copy(opened: Image.Image) -> bool:
    return bool(getattr(opened, "tag_v2", {}).get(_SUBFILE, 0) & _SMALLER_COPY)


def read_image(path: Path, rules: ImageRules | None = None) -> Picture:
    """The first picture of a file, (H, W, 3) uint8 RGB. Raises ValueError where there is none."""
    page = next(read_pages(path, rules or ImageRules()))
    if page.image is None:
        raise ValueError(page.reason)
    return page.image


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file, opened without Pillow's own limit of pixels, whose place ours takes.

    Pillow gets no name but an open file: by its name it maps uncompressed pixels into memory, and those of a TIFF that
    is turned by 90 degrees come out as rows of the wrong length.
    """
    with path.open("rb") as file:
        with _OPENING:
            before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                opened = Image.open(file)
            finally:
                Image.MAX_IMAGE_PIXELS = before
        with opened:
            yield opened


def _read_page(opened: Image.Image, path: Path, number: int, rules: ImageRules) -> Page:
    """The page that the file stands at."""
    width, height = opened.size
    if width * height > rules.max_megapixels * 1e6:
        limit = f"the limit of {rules.max_megapixels:g} megapixels, which --max-megapixels raises"
        return Page(None, f"{width} x {height} pixels are above {limit}")
    tags = getattr(opened, "tag_v2", {})
    known = _known_maximum(opened, tags)
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    deep = _deep_values(opened, path, number)
    if deep is None:
        turned = ImageOps.exif_transpose(opened)
        values = np.asarray(turned.convert("RGBA" if turned.has_transparency_data else "RGB"))
        image, remarks = _blended(values)
    else:
        coloured = deep[..., None] if deep.ndim == 2 else deep
        alpha = coloured[..., coloured.shape[2] - 1 :] if coloured.shape[2] in (2, 4) else coloured[..., :0]
        colours = coloured[..., : coloured.shape[2] - alpha.shape[2]]
        try:
            levels, remarks = _levels_of(colours, known, rules.max_value)
        except _UnknownRange as error:
            return Page(None, str(error))
        levels = 255 - levels if inverted else levels
        opaque = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1
        image, said = _blended(np.concatenate([levels, np.round(alpha / opaque * 255).astype(np.uint8)], axis=2))
        remarks += said
    shade = nearly(image)
    return Page(image, "", (*remarks, *([f"nearly {shade}"] if shade else [])))


class _UnknownRange(Exception):
    """White is nowhere said."""


def _deep_values(opened: Image.Image, path: Path, number: int) -> NDArray[Any] | None:
    """The values of a page of more than 8 bits, turned upright: (H, W) or (H, W, channels); None for 8 bits.

    Pillow keeps the upper 8 bits alone where there are colours or alpha, so those are decoded by libpng and libtiff.
    """
    tiles = getattr(opened, "tile", None)
    packed = str(tiles[0][3]) if tiles else ""  # as Pillow's decoder calls the form of the pixels
    orientation = opened.getexif().get(_ORIENTATION, 1)  # of a PNG this loads the pixels
    if opened.mode == "F" or opened.mode.startswith("I"):
        opened.load()
        values = np.asarray(opened)
        turned_already = opened.getexif().get(_ORIENTATION, 1) != orientation  # Pillow turns TIFF as it loads it
        return values if turned_already else _upright(values, orientation)
    if opened.format == "PNG" and ";16" in packed:
        return _upright(decode_png(path.read_bytes(), opened.width * opened.height), orientation)
    if opened.format == "TIFF" and max(getattr(opened, "tag_v2", {}).get(_BITS, (8,))) > 8:
        values = imagecodecs.tiff_decode(path.read_bytes(), index=number)
        if values.shape[:2] != (opened.height, opened.width):  # a plane per channel
            values = np.moveaxis(values, 0, -1)
        return _upright(values, orientation)
    return None


def _upright(values: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turned and mirrored as EXIF's orientation 1..8 says."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _known_maximum(opened: Image.Image, tags: Any) -> float | None:
    """The value of white by the format itself; None where the type alone has more room than values may use."""
    if opened.format == "PPM":
        return 65535.0  # Pillow scales by the file's own maximum
    bits = max(tags.get(_BITS, (8,))) if tags else 8
    return float(2**bits - 1) if 8 < bits < 16 else None


def _levels_of(values: NDArray[Any], known: float | None, asked: float | None) -> tuple[Picture, list[str]]:
    """Values from black 0 to white -> 0..255, and how white was found."""
    found = float(np.nanmax(values)) if values.size else 0.0
    remarks = []
    white = asked or known
    if white is None and values.dtype.kind == "f":
        raise _UnknownRange("an image of floating point numbers, whose range is not known: --max-value says it")
    if white is None and values.min() < 0:
        raise _UnknownRange("an image with values below 0, whose range is not known: --max-value says it")
    if white is None:
        white = next((level for level in _LEVELS if found <= level), 2.0 ** int(found).bit_length() - 1)
        if white != _LEVELS[-1]:
            remarks.append(f"values up to {found:.0f} are taken as {int(white).bit_length()} bits, white being "
                           f"{white:.0f}: --max-value says another")  # fmt: skip
    elif found > white:
        remarks.append(f"values up to {found:g} are above white, {white:g}")
    scaled = np.nan_to_num(values.astype(np.float32)) * np.float32(255 / white)
    return np.round(scaled.clip(0, 255)).astype(np.uint8), remarks


def _blended(values: NDArray[np.uint8]) -> tuple[Picture, list[str]]:
    """(H, W, 1 to 4) grey or RGB, with or without alpha -> RGB, transparent pixels over grey."""
    channels = values.shape[2]
    colours = values[..., : 1 if channels < 3 else 3]
    rgb = np.ascontiguousarray(np.broadcast_to(colours, (*values.shape[:2], 3)))
    if channels in (1, 3):
        return rgb, []
    share = values[..., channels - 1 : channels].astype(np.float32) / 255
    clear = float((share < 1).mean())
    if not clear:
        return rgb, []
    mixed = np.round(rgb * share + GROUND * (1 - share)).astype(np.uint8)
    return mixed, [f"{clear:.1%} of its pixels are transparent, and shown over grey ({GROUND})"]


def nearly(image: Picture) -> str:
    """`black` or `white` where almost all of a picture is; else empty."""
    steps = [max(1, side // _LOOKED_AT) for side in image.shape[:2]]
    dark, light = np.percentile(image[:: steps[0], :: steps[1]], (99, 1))
    return "black" if dark <= _DARK else "white" if light >= _LIGHT else ""
