"""A frame to a sample: each label converted by its rule, or carried over from an earlier build, byte for byte.

Nothing here depends on where or how the source lies: the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from preprocess.absent import Absent, reason_of
from preprocess.boxes import convert_boxes
from preprocess.bus import BusWindow, read_timestamp_us
from preprocess.depth import convert_depth, read_points
from preprocess.image import PixelMaps, convert_image, make_pixel_maps
from preprocess.rules import Rules
from preprocess.segmentation import convert_segmentation, count_pixels
from preprocess.source import Frame
from preprocess.steering import convert_steering
from shards.codec import decode_json, encode_image, encode_json, encode_npy
from shards.geometry import Calibration
from shards.manifest import LeftOut
from shards.png import decode_rgb_png, encode_grey_png
from shards.schema import META, TIMESTAMP

Section = dict[str, Any]  # what meta.json says of a label
Made = tuple[str, bytes, Section]  # member name, its bytes, section


@dataclass(frozen=True)
class Carried:
    """What stands of a sample that an earlier build wrote."""

    labels: dict[str, tuple[str, bytes] | None]  # label -> its member, None where it was and stays absent
    meta: dict[str, Any]  # the sample's meta.json
    left_out: tuple[LeftOut, ...]  # of these labels


NOTHING_CARRIED = Carried({}, {}, ())


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
        self.calibrations = calibrations
        self._maps: dict[tuple[str, int, int], PixelMaps] = {}

    def convert(self, frame: Frame, bus: BusWindow, split: str, carried: Carried = NOTHING_CARRIED) -> Converted:
        """One frame. A bad image leaves the frame out, any other bad file its label; both are noted."""
        result = Converted(frame.key, left_out=list(carried.left_out))
        try:
            original_hw = self._image(frame, carried, result)
        except (ValueError, OSError) as error:
            result.left_out = [LeftOut(frame.key, "frame", f"image: {reason_of(error)}", bad=True)]
            return result
        sections = {label: self._label(label, frame, bus, original_hw, carried, result) for label in self.rules.labels}
        meta = {
            "key": frame.key,
            "scene": frame.scene,
            "camera": frame.camera,
            "frame_id": frame.frame_id,
            "split": split,
            "timestamp_us": _timestamp_us(frame, bus, carried, result),
            "original_hw": original_hw,
            **sections,
        }
        result.members[META] = encode_json(meta)
        return result

    def _image(self, frame: Frame, carried: Carried, result: Converted) -> tuple[int, int]:
        """Add the image's member to the result; returns the stored image's height and width."""
        stands = carried.labels.get("image")
        if stands is not None:
            name, data = stands
            result.members[name] = data
            height_px, width_px = carried.meta["original_hw"]
            return height_px, width_px
        stored = decode_rgb_png(frame.files["image"].read())
        height_px, width_px = stored.shape[:2]
        calibration = self.calibrations.get(frame.camera)
        if calibration is not None and (width_px, height_px) != (calibration.width_px, calibration.height_px):
            wanted = f"{calibration.width_px}x{calibration.height_px}"
            raise ValueError(f"must be {wanted} as its calibration says, got {width_px}x{height_px}")
        rule, image = self.rules.image, convert_image(stored, self._pixel_maps(frame.camera, (height_px, width_px)))
        result.members[f"image.{rule.format}"] = encode_image(image, rule.format, rule.quality)
        return height_px, width_px

    def _pixel_maps(self, camera: str, original_hw: tuple[int, int]) -> PixelMaps:
        place = (camera, *original_hw)
        if place not in self._maps:
            height_px, width_px = original_hw
            calibration = self.calibrations.get(camera)
            self._maps[place] = make_pixel_maps(calibration, width_px, height_px, self.rules.image.size)
        return self._maps[place]

    def _label(
        self,
        label: str,
        frame: Frame,
        bus: BusWindow,
        original_hw: tuple[int, int],
        carried: Carried,
        result: Converted,
    ) -> Section:
        """Add the label's member to the result, or the reason why it has none; returns its section of meta.json."""
        try:
            if label in carried.labels:
                name, data, section = _carry(label, carried)
            else:
                name, data, section = self._make(label, frame, bus, original_hw)
        except Absent as reason:
            result.absent[label] = str(reason)
            return {"absent": str(reason)}
        except (ValueError, OSError) as error:
            result.drop(label, reason_of(error))
            result.absent[label] = "unreadable"
            return {"absent": "unreadable"}
        result.members[name] = data
        return section

    def _make(self, label: str, frame: Frame, bus: BusWindow, original_hw: tuple[int, int]) -> Made:
        """Convert one label. Raises Absent where the frame does not have it, ValueError where its file is bad."""
        if label == "steering":
            return self._steering(bus)
        if label not in frame.files:
            raise Absent("no file")
        data = frame.files[label].read()
        if label == "segmentation":
            return self._segmentation(data, self._pixel_maps(frame.camera, original_hw))
        return self._depth(data, original_hw) if label == "depth" else self._boxes(data, original_hw)

    def _segmentation(self, data: bytes, maps: PixelMaps) -> Made:
        stored = decode_rgb_png(data)
        if stored.shape[:2] != (maps.height_px, maps.width_px):
            raise ValueError(f"label must have the image's size, got {stored.shape[1]}x{stored.shape[0]}")
        classes = convert_segmentation(stored, maps)
        if self.rules.segmentation.encoding == "npy":
            return "segmentation.npy", encode_npy(classes), count_pixels(classes, maps)
        return "segmentation.png", encode_grey_png(classes), count_pixels(classes, maps)

    def _depth(self, data: bytes, original_hw: tuple[int, int]) -> Made:
        row, col, distance_m = read_points(data)
        rule = self.rules.depth
        levels = convert_depth(row, col, distance_m, original_hw=original_hw, size=self.rules.image.size, rule=rule)
        pixels = int(np.count_nonzero(levels))
        if not pixels:
            raise Absent("no point inside the image")
        section = {
            "points": len(row),
            "pixels": pixels,
            "beyond_max_m": int(np.count_nonzero(distance_m > rule.max_m)),
        }
        return "depth.png", encode_grey_png(levels), section

    def _boxes(self, data: bytes, original_hw: tuple[int, int]) -> Made:
        grid, section = convert_boxes(
            decode_json(data), original_hw=original_hw, size=self.rules.image.size, rule=self.rules.boxes
        )
        return "boxes.npy", encode_npy(grid), section

    def _steering(self, bus: BusWindow) -> Made:
        window = convert_steering(bus.signals(), self.rules.steering.signal)
        return "steering.json", encode_json(window), {"values": len(window["angles_deg"])}


def _carry(label: str, carried: Carried) -> Made:
    member, section = carried.labels[label], carried.meta[label]
    if member is None:
        raise Absent(section["absent"])
    return *member, section


def _timestamp_us(frame: Frame, bus: BusWindow, carried: Carried, result: Converted) -> int | None:
    """The exposure's time: the camera JSON's cam_tstamp, else the bus record's, else none."""
    if TIMESTAMP in carried.labels:
        stands: int | None = carried.meta["timestamp_us"]
        return stands
    if "camera_json" in frame.files:
        try:
            return read_timestamp_us(frame.files["camera_json"].read())
        except (ValueError, OSError) as error:
            result.drop(TIMESTAMP, f"camera JSON: {reason_of(error)}")
    return bus.timestamp_us
