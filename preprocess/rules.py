"""Conversion rules: one frozen dataclass per label, one TOML table each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from shards.manifest import find_record
from shards.schema import GRID, MANIFEST, PREVIOUS_MANIFEST, SLOTS, TASKS, SampleSize
from shards.settings import build, read_toml, to_tables, to_toml, toml_value


@dataclass(frozen=True)
class GeometryRule:
    """The geometry that all labels share."""

    undistort: bool = True  # image and label remapped with the calibration; LiDAR and boxes are undistorted already


@dataclass(frozen=True)
class ImageRule:
    """`image.jpg` or `image.png`."""

    # px, the side of a sample; the full frame is resized to it
    size: Annotated[SampleSize, Meta(description="the network's box head ends in 8x8 cells")] = 1024
    format: Literal["jpg", "png"] = "jpg"  # png is lossless
    quality: Annotated[int, Meta(ge=1, le=100, description="it is the JPEG scale")] = 95  # of the JPEG


@dataclass(frozen=True)
class SegmentationRule:
    """`segmentation.png` or `segmentation.npy`, uint8 class ids either way."""

    encoding: Literal["png", "npy"] = "png"  # both are lossless
    # The share of a label's pixels that may have a colour that A2D2 does not list. A2D2 lists all but strays; a label
    # with red and blue exchanged has 79 % of them, and its other pixels have wrong classes.
    max_unknown: Annotated[float, Meta(ge=0, le=1, description="it is a share")] = 0.5


@dataclass(frozen=True)
class DepthRule:
    """`depth.png` from LiDAR distances."""

    # metres, the largest distance that the thesis's author found; clipped here
    max_m: Annotated[float, Meta(gt=0, lt=256, description="16 bits hold 256 d")] = 123.0
    point_px: int = 3  # px of the sample, the side of a point's square; odd, so that it has a centre
    bits: Annotated[Literal[8, 16], Meta(description="a grey PNG has these")] = 8  # 255 d / max_m; 16: 256 d

    # s, between the image and a return. A scan of A2D2 takes 0.1 s, and is matched to the image.
    max_gap_s: Annotated[float, Meta(gt=0, description="times are compared")] = 1.0
    # m, between a return's distance and the norm of its point: A2D2's are equal to 1e-13 m, as are depth and x.
    max_disagreement_m: Annotated[float, Meta(gt=0, description="distances are compared")] = 0.1
    # px of the undistorted image, between a return's pixel and its point's projection; compared for front centre alone,
    # whose published files agree to 1e-8 px. No file of another camera was at hand.
    max_offset_px: Annotated[float, Meta(gt=0, description="pixels are compared")] = 3.0
    # The share of a file's returns that may fail these comparisons, and are dropped; of more the file is not believed.
    max_dropped: Annotated[float, Meta(ge=0, le=1, description="it is a share")] = 0.5

    def __post_init__(self) -> None:
        if self.point_px % 2 == 0 or not 1 <= self.point_px <= 31:
            raise ValueError(f"depth.point_px must be odd and in 1..31, got {self.point_px}: a square needs a centre")


@dataclass(frozen=True)
class BoxesRule:
    """`boxes.npy` from label3D's 2d_bbox."""

    grid: Annotated[int, Meta(ge=1, le=64, description="a cell must hold pixels")] = GRID  # cells a side
    slots: Annotated[int, Meta(ge=1, le=255, description="a cell must hold a box")] = (
        SLOTS  # the thesis found 9 at most
    )
    # px of the sample: a box with a shorter side is dropped
    min_px: Annotated[float, Meta(ge=0, le=256, description="it is a length in sample pixels")] = 2.0
    # px of the undistorted image, between a side of 2d_bbox and the projection of 3d_points; compared for front centre
    # alone, whose published boxes agree to 0.2 px. Of a file with more boxes that do not than do, none is believed.
    max_offset_px: Annotated[float, Meta(gt=0, description="pixels are compared")] = 20.0


@dataclass(frozen=True)
class SteeringRule:
    """`steering.json` from the vehicle bus."""

    signal: str = "steering_angle_calculated"  # magnitude in degrees of the wheel; its sign is `<signal>_sign`
    # Spellings of degrees, the first of them A2D2's; a signal without a unit is taken too.
    units: tuple[str, ...] = ("Unit_DegreOfArc", "Unit_DegreeOfArc", "deg", "degree", "degrees", "°")
    # s, between neighbouring values, between a value and its sign, and between the image and the window and its record.
    # Signals come every 10 to 50 ms, and a window of 21 of them spans the image.
    max_gap_s: Annotated[float, Meta(gt=0, description="times are compared")] = 1.0


@dataclass(frozen=True)
class SplitRule:
    """The frames that are held out."""

    # tail: the end of each scene, at one moment for all cameras; scene: whole scenes, the last ones
    by: Literal["tail", "scene"] = "tail"
    val_fraction: Annotated[float, Meta(ge=0, le=1, description="it is a share")] = 0.2  # of the frames, or the scenes
    # of them likewise, the very last ones; a third split that amtl-eval --split test alone reads
    test_fraction: Annotated[float, Meta(ge=0, le=1, description="it is a share")] = 0.0
    # s, of tail: frames closer than half of it to a cut are left out, so that two splits lie this far apart
    gap_s: Annotated[float, Meta(ge=0, description="it is a time")] = 0.0

    def __post_init__(self) -> None:
        if self.val_fraction + self.test_fraction > 1:
            total = self.val_fraction + self.test_fraction
            raise ValueError(f"split.val_fraction + test_fraction must be in 0..1, got {total:g}: they are shares")


_Share = Annotated[float, Meta(ge=0, le=1, description="it is a share")]


@dataclass(frozen=True)
class ChecksRule:
    """The bounds beyond which a whole set is odd, and `a2d2-prep shard` ends with 1; they decide no label."""

    # s, the median over the set from the image to its bus window or LiDAR scan. A window spans the image, and a scan of
    # 0.1 s is matched to it: a constant offset of more is another frame's file.
    max_offset_s: Annotated[float, Meta(gt=0, description="times are compared")] = 0.2
    # Of the pixels of labels that are used; A2D2 has strays alone. Labels resized with interpolation have 2.5 %.
    max_unknown_colour: _Share = 0.02
    max_unknown_class: _Share = 0.1  # of boxes; A2D2's 14 classes are all known
    max_clipped: _Share = 0.5  # of LiDAR returns; A2D2's sensors reach 100 m: all beyond max_m means another unit
    max_dropped_returns: _Share = 0.1  # of LiDAR returns; none of A2D2's, as far as known
    max_repeated_windows: _Share = 0.1  # of steering windows; frames of a camera are further apart than bus values
    # Of images. A2D2's times are microseconds since 1970, its names are local time; said, and odd where asked for: the
    # labels' own comparisons see times in other units.
    max_far_from_date: _Share = 1.0
    max_mismatches: _Share = 0.1  # of a label's files; single ones may be odd, more mean that something is mixed up


@dataclass(frozen=True)
class Rules:
    """Everything that decides a set of shards, except its source; each label of the schema has a field of its name."""

    shard_samples: Annotated[int, Meta(ge=1, le=100_000, description="a shard holds samples")] = 128  # samples a shard
    labels: tuple[str, ...] = TASKS  # the labels that the samples get, in any order; the image is always there
    geometry: GeometryRule = field(default_factory=GeometryRule)
    image: ImageRule = field(default_factory=ImageRule)
    segmentation: SegmentationRule = field(default_factory=SegmentationRule)
    depth: DepthRule = field(default_factory=DepthRule)
    boxes: BoxesRule = field(default_factory=BoxesRule)
    steering: SteeringRule = field(default_factory=SteeringRule)
    split: SplitRule = field(default_factory=SplitRule)
    checks: ChecksRule = field(default_factory=ChecksRule)

    def __post_init__(self) -> None:
        if not set(self.labels) <= set(TASKS) or len(set(self.labels)) != len(self.labels):
            known = f"some of {', '.join(TASKS)}, each once"
            raise ValueError(f"labels must be {known}, got {list(self.labels)}: these are the labels")
        object.__setattr__(self, "labels", tuple(task for task in TASKS if task in self.labels))


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # The thesis's own choices, without the errors of its code. Depth and boxes stay misaligned with the image.
    "thesis": {"geometry": {"undistort": False}, "image": {"format": "png"}, "segmentation": {"encoding": "npy"}},
}


def load_rules(name_or_file: str) -> Rules:
    """A preset by name, or a TOML file with any of the tables and fields above; a field left out has its default.

    Raises ValueError on an unknown key, a wrong type or a value out of range.
    """
    if name_or_file in PRESETS:
        return build(Rules, PRESETS[name_or_file])
    path = Path(name_or_file)
    if not path.is_file():
        raise ValueError(
            f"--rules must be a TOML file or one of {', '.join(PRESETS)}, got {name_or_file}: no such file"
        )
    tables = read_toml(path)
    try:
        return build(Rules, tables)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def rules_of_set(out: Path) -> Rules | None:
    """The rules of the set in a folder, finished or not; None where there is none. Raises ValueError for unknown ones.

    A rule that is younger than the set has its default.
    """
    for name in (MANIFEST, PREVIOUS_MANIFEST):
        if (record := find_record(out / name)) is not None:
            try:
                return build(Rules, record.get("rules", {}))
            except ValueError as error:
                raise ValueError(f"{out / name}: {error}: give --rules") from error
    return None


def rules_to_toml(rules: Rules, comments: Mapping[str, str]) -> str:
    """TOML that load_rules accepts unchanged; `comments` maps a table's name to a comment behind it."""
    return to_toml(rules, comments)


def rules_to_tables(rules: Rules) -> dict[str, Any]:
    """The rules as plain values, as the manifest holds them."""
    return to_tables(rules)


def rule_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """`depth.point_px` -> (3, 5), for each value that differs between two sets of rule tables.

    A rule that is younger than the tables counts there with its default.
    """
    defaults = _flatten(rules_to_tables(Rules()))
    flat_before, flat_after = (defaults | _flatten(tables) for tables in (before, after))
    return {
        name: (flat_before.get(name), flat_after.get(name))
        for name in sorted(flat_before | flat_after)
        if flat_before.get(name) != flat_after.get(name)
    }


def change_lines(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """`depth.point_px 3 -> 5` for each."""
    return [f"{name} {toml_value(before)} -> {toml_value(after)}" for name, (before, after) in changes.items()]


def _flatten(tables: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        flat |= (
            {f"{name}.{key}": entry for key, entry in value.items()} if isinstance(value, Mapping) else {name: value}
        )
    return flat
