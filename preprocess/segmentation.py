"""Colour-coded labels to class ids: nearest neighbour first, then a table of all 2^24 colours.

Nearest neighbour only: any mixing of colours invents classes along every border.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.absent import Mismatch
from preprocess.image import PixelMaps
from preprocess.label import LabelConverter, LabelInput, LabelMember
from shards.classes import CLASS_LIST, IGNORE_INDEX, SEGMENTATION_ID, class_of_entry, rgb_of_hex
from shards.codec import encode_npy
from shards.png import decode_rgb_png, encode_grey_png

_WITHOUT_ALPHA = np.uint32((1 << 24) - 1)


@cache
def _class_of_colour() -> NDArray[np.uint8]:
    """(2^24,) uint8: class id by r + 256 g + 65536 b; 255 where the colour is not on the list."""
    table = np.full(1 << 24, IGNORE_INDEX, dtype=np.uint8)
    for colour, entry in CLASS_LIST.items():
        red, green, blue = rgb_of_hex(colour)
        table[red + (green << 8) + (blue << 16)] = SEGMENTATION_ID[class_of_entry(entry)]
    return table


def class_ids(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 class id; 255 where the colour is not on A2D2's list."""
    packed = cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA).view("<u4")[..., 0]
    return _class_of_colour().take(packed & _WITHOUT_ALPHA)


def convert_segmentation(rgb: NDArray[np.uint8], maps: PixelMaps) -> NDArray[np.uint8]:
    """Stored label (H, W, 3) uint8 RGB -> (S, S) uint8 class id, 255 = unknown colour or not seen."""
    classes = np.empty(maps.outside.shape, dtype=np.uint8)
    for strip in maps.strips:
        sample = cv2.remap(rgb, strip.nearest, None, cv2.INTER_NEAREST)  # type: ignore[call-overload]
        classes[strip.rows] = class_ids(sample)
    classes[maps.outside] = IGNORE_INDEX
    return classes


def count_pixels(classes: NDArray[np.uint8], maps: PixelMaps) -> dict[str, Any]:
    """The section of `meta.json` for a class map: pixels per class id, of unknown colours, and not seen."""
    counts = np.ravel(cv2.calcHist([classes], [0], None, [256], [0, 256]))  # float32, exact below 2^24 pixels
    outside = int(np.count_nonzero(maps.outside))
    return {
        "pixels": {str(class_id): int(counts[class_id]) for class_id in np.flatnonzero(counts[:IGNORE_INDEX])},
        "unknown_colour": int(counts[IGNORE_INDEX]) - outside,
        "outside": outside,
    }


def check_class_list(document: Any) -> None:
    """Raises ValueError where a source's `class_list.json` names other colours or classes than A2D2's."""
    entries = document if isinstance(document, Mapping) else {}
    if dict(entries) != CLASS_LIST:
        differing = sorted(set(map(str, entries.items())) ^ set(map(str, CLASS_LIST.items())))
        raise ValueError(f"class_list.json is not A2D2's: it differs in {len(differing)} entries, e.g. {differing[:2]}")


def _convert(given: LabelInput) -> LabelMember:
    stored, maps = decode_rgb_png(given.read("segmentation")), given.pixel_maps()
    if stored.shape[:2] != (maps.height_px, maps.width_px):
        raise ValueError(f"label must have the image's size, got {stored.shape[1]}x{stored.shape[0]}")
    classes = convert_segmentation(stored, maps)
    section = count_pixels(classes, maps)
    seen = classes.size - section["outside"]
    encoding, most = given.rules.segmentation.encoding, given.rules.segmentation.max_unknown
    if section["unknown_colour"] > most * seen:
        raise Mismatch("colours that A2D2 does not list", {"unknown_colour": section["unknown_colour"]})
    data = encode_npy(classes) if encoding == "npy" else encode_grey_png(classes)
    return LabelMember(f"segmentation.{encoding}", data, section)


CONVERTER = LabelConverter(_convert, files=("image", "segmentation"))  # the image's size decides the pixel maps
