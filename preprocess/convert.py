"""A frame to a sample: the files read, each label converted by its rule, `meta.json` put together.

Nothing here depends on where or how the source lies: the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from preprocess.absent import Absent
from preprocess.boxes import convert_boxes
from preprocess.bus import BusRecord
from preprocess.depth import convert_depth, quantise_depth, read_points
from preprocess.image import PixelMaps, convert_image, make_pixel_maps
from preprocess.rules import Rules
from preprocess.segmentation import convert_segmentation, count_pixels
from preprocess.source import Frame
from preprocess.steering import convert_steering
from shards.codec import decode_json, decode_rgb_png, encode_grey_png, encode_image, encode_json, encode_npy
from shards.geometry import Calibration
from shards.manifest import LeftOut
from shards.schema import META, TASKS

Section = dict[str, Any]


@dataclass(frozen=True)
class BusWindow:
    """A frame's share of its scene's bus file: the record, or why there is none."""

    record: BusRecord | None = None
    bad: str = ""  # the bus file cannot be read: its reason


@dataclass
class Converted:
    """A frame's members by name, in the order of the shard; none where the frame is left out."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # label -> reason
    left_out: list[LeftOut] = field(default_factory=list)

    def drop(self, what: str, reason: str) -> None:
        """Note a file that cannot be read as what it is."""
        self.left_out.append(LeftOut(self.key, what, reason, bad=True))


class Converter:
    """Converts frames by one set of rules; holds the pixel maps that frames of a camera share."""

    def __init__(self, rules: Rules, calibrations: Mapping[str, Calibration]) -> None:
        cv2.setNumThreads(1)  # frames are converted side by side, in processes
        self.rules = rules
        self.calibrations = calibrations if rules.geometry.undistort else {}
        self._maps: dict[tuple[str, int, int], PixelMaps] = {}

    def convert(self, frame: Frame, bus: BusWindow, split: str) -> Converted:
        """One frame. A bad image leaves the frame out, any other bad file its label; both are noted."""
        result = Converted(frame.key)
        try:
            stored = decode_rgb_png(frame.files["image"].read())
            maps = self._pixel_maps(frame.camera, stored)
        except (ValueError, OSError) as error:
            result.drop("frame", f"image: {error}")
            return result
        image_rule = self.rules.image
        image = encode_image(convert_image(stored, maps), image_rule.format, image_rule.quality)
        result.members[f"image.{image_rule.format}"] = image
        original_hw = (maps.height_px, maps.width_px)
        sections: dict[str, Section] = {"image": {}}
        for label in TASKS:
            sections[label] = self._label(label, frame, bus, maps, result)
        meta = {
            "key": frame.key,
            "scene": frame.scene,
            "camera": frame.camera,
            "frame_id": frame.frame_id,
            "split": split,
            "timestamp_us": _timestamp_us(frame, bus, result),
            "original_hw": original_hw,
            **sections,
        }
        result.members[META] = encode_json(meta)
        return result

    def _pixel_maps(self, camera: str, stored: NDArray[np.uint8]) -> PixelMaps:
        height_px, width_px = stored.shape[:2]
        calibration = self.calibrations.get(camera)
        if calibration is not None and (width_px, height_px) != (calibration.width_px, calibration.height_px):
            wanted = f"{calibration.width_px}x{calibration.height_px}"
            raise ValueError(f"must be {wanted} as its calibration says, got {width_px}x{height_px}")
        place = (camera, width_px, height_px)
        if place not in self._maps:
            self._maps[place] = make_pixel_maps(calibration, width_px, height_px, self.rules.image.size)
        return self._maps[place]

    def _label(self, label: str, frame: Frame, bus: BusWindow, maps: PixelMaps, result: Converted) -> Section:
        """Add the label's member to the result, or the reason why it has none; returns its section of meta.json."""
        make: Callable[[Frame, BusWindow, PixelMaps], tuple[str, bytes, Section]] = getattr(self, f"_{label}")
        try:
            if label != "steering" and label not in frame.files:
                raise Absent("no file")
            name, data, section = make(frame, bus, maps)
        except Absent as reason:
            result.absent[label] = str(reason)
            return {"absent": str(reason)}
        except (ValueError, OSError) as error:
            result.drop(label, str(error))
            result.absent[label] = "unreadable"
            return {"absent": "unreadable"}
        result.members[name] = data
        return section

    def _segmentation(self, frame: Frame, _: BusWindow, maps: PixelMaps) -> tuple[str, bytes, Section]:
        stored = decode_rgb_png(frame.files["segmentation"].read())
        if stored.shape[:2] != (maps.height_px, maps.width_px):
            raise ValueError(f"label must have the image's size, got {stored.shape[1]}x{stored.shape[0]}")
        classes = convert_segmentation(stored, maps)
        if self.rules.segmentation.encoding == "npy":
            return "segmentation.npy", encode_npy(classes), count_pixels(classes, maps)
        return "segmentation.png", encode_grey_png(classes), count_pixels(classes, maps)

    def _depth(self, frame: Frame, _: BusWindow, maps: PixelMaps) -> tuple[str, bytes, Section]:
        row, col, distance_m = read_points(frame.files["depth"].read())
        size, rule = self.rules.image.size, self.rules.depth
        depth_m = convert_depth(
            row, col, distance_m, original_hw=(maps.height_px, maps.width_px), size=size, point_px=rule.point_px
        )
        pixels = int(np.count_nonzero(depth_m))
        if not pixels:
            raise Absent("no point inside the image")
        section = {
            "points": len(row),
            "pixels": pixels,
            "beyond_max_m": int(np.count_nonzero(distance_m > rule.max_m)),
        }
        return "depth.png", encode_grey_png(quantise_depth(depth_m, rule)), section

    def _boxes(self, frame: Frame, _: BusWindow, maps: PixelMaps) -> tuple[str, bytes, Section]:
        document = decode_json(frame.files["boxes"].read())
        original_hw = (maps.height_px, maps.width_px)
        grid, section = convert_boxes(
            document, original_hw=original_hw, size=self.rules.image.size, rule=self.rules.boxes
        )
        return "boxes.npy", encode_npy(grid), section

    def _steering(self, _: Frame, bus: BusWindow, __: PixelMaps) -> tuple[str, bytes, Section]:
        if bus.bad:
            raise ValueError(f"bus file: {bus.bad}")
        window = convert_steering(bus.record, self.rules.steering.signal)
        return "steering.json", encode_json(window), {"values": len(window["angles_deg"])}


def _timestamp_us(frame: Frame, bus: BusWindow, result: Converted) -> int | None:
    """The exposure's time: the camera JSON's cam_tstamp, else the bus record's, else none."""
    if "camera_json" in frame.files:
        try:
            document = decode_json(frame.files["camera_json"].read())
            stamp = document.get("cam_tstamp") if isinstance(document, Mapping) else None
            if type(stamp) is not int:
                raise ValueError(f"cam_tstamp must be microseconds, got {stamp!r}")
            return stamp
        except (ValueError, OSError) as error:
            result.drop("timestamp", f"camera JSON: {error}")
    stamp = bus.record.get("timestamp") if bus.record else None
    return stamp if type(stamp) is int else None
