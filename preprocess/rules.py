"""Conversion rules: one frozen dataclass per label, one TOML table each, and the fingerprints that follow from them.

A label's fingerprint is the hash of its rule, of the geometry that all labels share (calibration values and the
sample's size included) and of its converter's version. Where it differs, the label must be converted again.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import orjson

from shards.geometry import Calibration
from shards.schema import LABELS, SAMPLE_SIZES, TASKS

# Raised by hand whenever a converter's result changes for the same rule.
CONVERTER_VERSIONS = {"image": 2, "segmentation": 2, "depth": 2, "boxes": 1, "steering": 2}


def _require(holds: bool, name: str, rule: str, value: object, why: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value!r}: {why}")


@dataclass(frozen=True)
class GeometryRule:
    """What all labels share."""

    undistort: bool = True  # image and label remapped with the calibration; LiDAR and boxes are undistorted already


@dataclass(frozen=True)
class ImageRule:
    """`image.jpg` or `image.png`."""

    size: int = 1024  # px, the side of a sample; the full frame is resized to it
    format: str = "jpg"  # or "png", lossless
    quality: int = 95  # of the JPEG, 1..100

    def __post_init__(self) -> None:
        why = "the network's box head ends in 8x8 cells"
        _require(self.size in SAMPLE_SIZES, "image.size", f"one of {SAMPLE_SIZES}", self.size, why)
        _require(self.format in ("jpg", "png"), "image.format", "jpg or png", self.format, "readers know these")
        _require(1 <= self.quality <= 100, "image.quality", "in 1..100", self.quality, "it is the JPEG scale")


@dataclass(frozen=True)
class SegmentationRule:
    """`segmentation.png` or `segmentation.npy`, uint8 class ids either way."""

    encoding: str = "png"  # lossless; or "npy"

    def __post_init__(self) -> None:
        _require(
            self.encoding in ("png", "npy"), "segmentation.encoding", "png or npy", self.encoding, "readers know these"
        )


@dataclass(frozen=True)
class DepthRule:
    """`depth.png` from LiDAR distances."""

    max_m: float = 123.0  # metres, the largest distance that the thesis's author found; clipped here
    point_px: int = 3  # px of the sample, the side of a point's square; odd, so that it has a centre
    bits: int = 8  # 255 d / max_m; or 16: 256 d

    def __post_init__(self) -> None:
        _require(0 < self.max_m < 256, "depth.max_m", "in 0..256 m", self.max_m, "16 bits hold 256 d")
        odd = self.point_px % 2 == 1 and 1 <= self.point_px <= 31
        _require(odd, "depth.point_px", "odd and in 1..31", self.point_px, "a square needs a centre")
        _require(self.bits in (8, 16), "depth.bits", "8 or 16", self.bits, "a grey PNG has these")


@dataclass(frozen=True)
class BoxesRule:
    """`boxes.npy` from label3D's 2d_bbox."""

    grid: int = 8  # cells a side
    slots: int = 10  # boxes a cell; the thesis found at most 9
    min_px: float = 2.0  # px of the sample: a box with a shorter side is dropped

    def __post_init__(self) -> None:
        _require(1 <= self.grid <= 64, "boxes.grid", "in 1..64", self.grid, "a cell must hold pixels")
        _require(1 <= self.slots <= 255, "boxes.slots", "in 1..255", self.slots, "a cell must hold a box")
        _require(0 <= self.min_px <= 256, "boxes.min_px", "in 0..256", self.min_px, "it is a length in sample pixels")


@dataclass(frozen=True)
class SteeringRule:
    """`steering.json` from the vehicle bus."""

    signal: str = "steering_angle_calculated"  # magnitude in degrees of the wheel; its sign is `<signal>_sign`


@dataclass(frozen=True)
class SplitRule:
    """Which frames are held out."""

    by: str = "tail"  # the end of each (scene, camera), as in the thesis; or "scene": whole scenes, the last ones
    val_fraction: float = 0.2  # of the frames, or of the scenes

    def __post_init__(self) -> None:
        _require(self.by in ("tail", "scene"), "split.by", "tail or scene", self.by, "these are defined")
        share = 0 <= self.val_fraction <= 1
        _require(share, "split.val_fraction", "in 0..1", self.val_fraction, "it is a share")


@dataclass(frozen=True)
class Rules:
    """Everything that decides a set of shards, but for its source."""

    shard_samples: int = 128  # samples a shard
    labels: tuple[str, ...] = TASKS  # which labels the samples get, in any order; the image is always there
    geometry: GeometryRule = field(default_factory=GeometryRule)
    image: ImageRule = field(default_factory=ImageRule)
    segmentation: SegmentationRule = field(default_factory=SegmentationRule)
    depth: DepthRule = field(default_factory=DepthRule)
    boxes: BoxesRule = field(default_factory=BoxesRule)
    steering: SteeringRule = field(default_factory=SteeringRule)
    split: SplitRule = field(default_factory=SplitRule)

    def __post_init__(self) -> None:
        in_range = 1 <= self.shard_samples <= 100_000
        _require(in_range, "shard_samples", "in 1..100000", self.shard_samples, "a shard holds samples")
        known = set(self.labels) <= set(TASKS) and len(set(self.labels)) == len(self.labels)
        _require(known, "labels", f"some of {', '.join(TASKS)}, each once", list(self.labels), "these are the labels")
        object.__setattr__(self, "labels", tuple(task for task in TASKS if task in self.labels))


PRESETS = {
    "default": Rules(),
    # The thesis's own choices; no bug of its code. Depth and boxes stay misaligned with the image.
    "thesis": Rules(
        geometry=GeometryRule(undistort=False),
        image=ImageRule(format="png"),
        segmentation=SegmentationRule(encoding="npy"),
    ),
}


def load_rules(name_or_file: str) -> Rules:
    """A preset's name, or a TOML file with any of the tables and fields above; what it leaves out is the default.

    Raises ValueError on an unknown key, a wrong type or a value out of range.
    """
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]
    path = Path(name_or_file)
    if not path.is_file():
        raise ValueError(
            f"--rules must be a TOML file or one of {', '.join(PRESETS)}, got {name_or_file}: no such file"
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        return rules_from_tables(document)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def rules_from_tables(document: Mapping[str, Any]) -> Rules:
    """Rules from a dict per table, as TOML and the manifest hold them."""
    return _fill(Rules(), document, "")


def _fill(rule: Any, values: Mapping[str, Any], path: str) -> Any:
    known = {entry.name: getattr(rule, entry.name) for entry in fields(rule)}
    changes = {}
    for key, value in values.items():
        name = f"{path}{key}"
        if key not in known:
            raise ValueError(f"unknown rule {name}: known here are {', '.join(known)}")
        default = known[key]
        if isinstance(value, Mapping) != hasattr(default, "__dataclass_fields__"):
            raise ValueError(f"{name} must be {'a value' if isinstance(value, Mapping) else 'a table'}, got {value!r}")
        changes[key] = _fill(default, value, f"{name}.") if isinstance(value, Mapping) else _typed(name, default, value)
    return replace(rule, **changes)


def _typed(name: str, default: Any, value: Any) -> Any:
    wanted = type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is tuple and type(value) is list and all(type(entry) is str for entry in value):
        return tuple(value)
    _require(type(value) is wanted, name, f"of type {wanted.__name__}", value, "other types have no meaning here")
    return value


def rules_to_toml(rules: Rules, comments: Mapping[str, str]) -> str:
    """TOML that load_rules accepts unchanged; comments go behind the table's name."""
    lines = [f"shard_samples = {rules.shard_samples}", f"labels = {_toml_value(rules.labels)}"]
    for table, values in asdict(rules).items():
        if isinstance(values, dict):
            comment = f"  # {comments[table]}" if table in comments else ""
            lines += ["", f"[{table}]{comment}", *(f"{key} = {_toml_value(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    # JSON's strings, integers, finite floats, booleans and lists of them are TOML's.
    return orjson.dumps(value).decode()


def rules_to_tables(rules: Rules) -> dict[str, Any]:
    """The rules as plain values, as the manifest holds them and rules_from_tables takes them."""
    return {**asdict(rules), "labels": list(rules.labels)}


def rule_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`depth.point_px` -> (3, 5), for each value that differs between two sets of rule tables."""
    flat_before, flat_after = (_flatten(tables) for tables in (before, after))
    return {
        name: (flat_before.get(name), flat_after.get(name))
        for name in sorted(flat_before | flat_after)
        if flat_before.get(name) != flat_after.get(name)
    }


def change_lines(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """`depth.point_px 3 -> 5` for each."""
    return [f"{name} {_toml_value(before)} -> {_toml_value(after)}" for name, (before, after) in changes.items()]


def _flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= (
            {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, Mapping) else {name: value}
        )
    return flat


def fingerprints(rules: Rules, calibrations: Mapping[str, Calibration]) -> dict[str, str]:
    """Label of the set -> 16 hex digits. `calibrations` are those of the cameras in the set, by file token."""
    tables = asdict(rules)
    geometry = {
        **tables["geometry"],
        "size": rules.image.size,
        "calibrations": {camera: asdict(calibration) for camera, calibration in calibrations.items()},
    }
    in_set = [label for label in LABELS if label == "image" or label in rules.labels]
    return {label: _digest([label, CONVERTER_VERSIONS[label], tables[label], geometry]) for label in in_set}


def _digest(document: Any) -> str:
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
