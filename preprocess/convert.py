"""A frame to a sample: each label is converted by its rule, or reused byte for byte from an earlier build.

Nothing here depends on where or how the source lies: the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2

from preprocess import boxes, depth, segmentation, steering
from preprocess.absent import Absent, reason_of
from preprocess.bus import BusWindow, read_timestamp_us
from preprocess.image import PixelMaps, convert_image, make_pixel_maps
from preprocess.label import LabelConverter, LabelInput, LabelMember, Section
from preprocess.rules import Rules
from preprocess.source import Frame
from shards.codec import encode_image, encode_json
from shards.geometry import FRONT_CENTER, Calibration, Intrinsics
from shards.manifest import LeftOut
from shards.oddities import measure_sample
from shards.png import decode_rgb_png
from shards.schema import META, TIMESTAMP

CONVERTERS: dict[str, LabelConverter] = {  # task -> how its label is made; the image has no entry, all else needs it
    "steering": steering.CONVERTER,
    "segmentation": segmentation.CONVERTER,
    "boxes": boxes.CONVERTER,
    "depth": depth.CONVERTER,
}
# Raised by hand whenever a converter's result changes for the same rule.
CONVERTER_VERSIONS = {"image": 2, "steering": 3, "segmentation": 3, "boxes": 2, "depth": 3}


def files_of(label: str) -> tuple[str, ...]:
    """The kinds of files that decide a label, the image or the timestamp; "bus" is the scene's bus file."""
    other = {"image": ("image",), TIMESTAMP: ("camera_json", "bus")}
    return other[label] if label in other else CONVERTERS[label].files


def needed_signals(rules: Rules) -> tuple[str, ...]:
    """The bus signals that the labels of a set need."""
    signals = (signal for label in rules.labels for signal in CONVERTERS[label].signals(getattr(rules, label)))
    return tuple(dict.fromkeys(signals))


@dataclass(frozen=True)
class Reused:
    """The labels of a sample that an earlier build wrote and that need no conversion."""

    labels: dict[str, tuple[str, bytes] | None]  # label -> its member, None where it was and stays absent
    meta: dict[str, Any]  # the sample's meta.json
    left_out: tuple[LeftOut, ...]  # of these labels


NOTHING_REUSED = Reused({}, {}, ())


@dataclass
class Converted:
    """A frame's members by name, in the order of the shard; none where the frame is left out."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)  # what the set is checked by
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

    def convert(self, frame: Frame, bus: BusWindow, split: str, reused: Reused = NOTHING_REUSED) -> Converted:
        """One frame. A bad image leaves the frame out, any other bad file its label; both are noted."""
        result = Converted(frame.key, left_out=list(reused.left_out))
        try:
            original_hw = self._image(frame, reused, result)
        except Absent as reason:
            result.left_out = [LeftOut(frame.key, "frame", f"image: {reason}", bad=False)]
            return result
        except (ValueError, OSError) as error:
            result.left_out = [LeftOut(frame.key, "frame", f"image: {reason_of(error)}", bad=True)]
            return result
        nothing_to_do = {*self.rules.labels, TIMESTAMP} <= reused.labels.keys()
        camera_time_us = None if nothing_to_do else _camera_time_us(frame, reused, result)
        timestamp_us = bus.timestamp_us if camera_time_us is None else camera_time_us
        maps = partial(self._pixel_maps, frame.camera, original_hw)
        given = LabelInput(frame, bus, camera_time_us, original_hw, maps, self.rules, self._intrinsics(frame.camera))
        sections = {label: _add_label(label, given, reused, result) for label in self.rules.labels}
        meta = {
            "key": frame.key,
            "scene": frame.scene,
            "camera": frame.camera,
            "frame_id": frame.frame_id,
            "split": split,
            "timestamp_us": reused.meta["timestamp_us"] if TIMESTAMP in reused.labels else timestamp_us,
            "original_hw": original_hw,
            **sections,
        }
        result.members[META] = encode_json(meta)
        result.measures = measure_sample(meta, self.rules.image.size**2)
        result.left_out.sort(key=lambda entry: entry.what)
        return result

    def _image(self, frame: Frame, reused: Reused, result: Converted) -> tuple[int, int]:
        """Add the image's member to the result; returns the stored image's height and width."""
        earlier = reused.labels.get("image")
        if earlier is not None:
            name, data = earlier
            result.members[name] = data
            height_px, width_px = reused.meta["original_hw"]
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

    def _intrinsics(self, camera: str) -> Intrinsics | None:
        """Front centre's: its files are the only ones whose pixels were checked to be their points' projections."""
        return self.calibrations.get(camera, FRONT_CENTER).undistorted if camera == "frontcenter" else None

    def _pixel_maps(self, camera: str, original_hw: tuple[int, int]) -> PixelMaps:
        place = (camera, *original_hw)
        if place not in self._maps:
            height_px, width_px = original_hw
            calibration = self.calibrations.get(camera)
            self._maps[place] = make_pixel_maps(calibration, width_px, height_px, self.rules.image.size)
        return self._maps[place]


def _add_label(label: str, given: LabelInput, reused: Reused, result: Converted) -> Section:
    """Add the label's member to the result, or the reason why it has none; returns its section of meta.json."""
    try:
        if label in reused.labels:
            name, data, section = _reuse(label, reused)
        else:
            name, data, section = CONVERTERS[label].convert(given)
    except Absent as reason:
        result.absent[label] = str(reason)
        return {"absent": str(reason), **reason.section}
    except (ValueError, OSError) as error:
        result.drop(label, reason_of(error))
        result.absent[label] = "unreadable"
        return {"absent": "unreadable"}
    result.members[name] = data
    return section


def _reuse(label: str, reused: Reused) -> LabelMember:
    member, section = reused.labels[label], dict(reused.meta[label])
    if member is None:
        raise Absent(section.pop("absent"), section)
    return LabelMember(*member, section)


def _camera_time_us(frame: Frame, reused: Reused, result: Converted) -> int | None:
    """The time of the exposure in the camera JSON; None where there is none that can be read, which is noted once."""
    if "camera_json" not in frame.files:
        return None
    try:
        return read_timestamp_us(frame.files["camera_json"].read())
    except Absent:
        return None  # two camera JSONs that differ
    except (ValueError, OSError) as error:
        if TIMESTAMP not in reused.labels:  # else it was noted by the build that wrote the sample
            result.drop(TIMESTAMP, f"camera JSON: {reason_of(error)}")
        return None
