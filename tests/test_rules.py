"""Rules come from TOML, go back to it, and decide fingerprints label by label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preprocess.rules import (
    BoxesRule,
    DepthRule,
    GeometryRule,
    ImageRule,
    Rules,
    SegmentationRule,
    SteeringRule,
    fingerprints,
    load_rules,
    rules_to_toml,
)
from shards.geometry import FRONT_CENTER, Intrinsics
from shards.schema import LABELS

CALIBRATIONS = {"frontcenter": FRONT_CENTER}


@pytest.mark.parametrize("name", ["default", "thesis"])
def test_toml_goes_round(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(rules_to_toml(load_rules(name), {"depth": "a comment"}))
    assert load_rules(str(path)) == load_rules(name)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        pytest.param("[depth]\nmax = 3", "unknown rule depth.max: known here are max_m, point_px, bits", id="key"),
        pytest.param("[dept]\nmax_m = 3", "unknown rule dept", id="table"),
        pytest.param("depth = 3", "depth must be a table, got 3", id="no table"),
        pytest.param("[depth]\nmax_m = 'far'", "depth.max_m must be of type float, got 'far'", id="type"),
        pytest.param("[geometry]\nundistort = 1", "geometry.undistort must be of type bool, got 1", id="bool"),
        pytest.param("[image]\nsize = 1000", r"image.size must be one of \(256, 512, 1024\), got 1000", id="size"),
        pytest.param("[depth]\nmax_m = nan", "depth.max_m must be in 0..256 m, got nan", id="nan"),
        pytest.param("[depth]\npoint_px = 2", "depth.point_px must be odd", id="even"),
        pytest.param("[split]\nval_fraction = 1.5", "split.val_fraction must be in 0..1", id="share"),
        pytest.param("shard_samples = 0", "shard_samples must be in 1..100000", id="shard"),
        pytest.param("[image", "Expected", id="no TOML"),
    ],
)
def test_wrong_rules_are_refused(toml: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(toml)
    with pytest.raises(ValueError, match=message):
        load_rules(str(path))


def test_whole_numbers_are_accepted_for_metres(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[depth]\nmax_m = 100")
    assert load_rules(str(path)) == Rules(depth=DepthRule(max_m=100.0))


MOVED = {"frontcenter": replace(FRONT_CENTER, undistorted=Intrinsics(1700.0, 1783.0, 965.0, 684.0))}


@pytest.mark.parametrize(
    ("rules", "calibrations", "stale"),
    [
        pytest.param(Rules(), CALIBRATIONS, set(), id="the same"),
        pytest.param(Rules(shard_samples=3), CALIBRATIONS, set(), id="shard size"),
        pytest.param(Rules(image=ImageRule(quality=90)), CALIBRATIONS, {"image"}, id="image"),
        pytest.param(Rules(segmentation=SegmentationRule("npy")), CALIBRATIONS, {"segmentation"}, id="segmentation"),
        pytest.param(Rules(depth=DepthRule(point_px=5)), CALIBRATIONS, {"depth"}, id="depth"),
        pytest.param(Rules(boxes=BoxesRule(min_px=3.0)), CALIBRATIONS, {"boxes"}, id="boxes"),
        pytest.param(Rules(steering=SteeringRule("x")), CALIBRATIONS, {"steering"}, id="steering"),
        pytest.param(Rules(geometry=GeometryRule(False)), CALIBRATIONS, set(LABELS), id="geometry"),
        pytest.param(Rules(image=ImageRule(size=512)), CALIBRATIONS, set(LABELS), id="size"),
        pytest.param(Rules(), MOVED, set(LABELS), id="calibration"),
    ],
)
def test_a_change_makes_stale_what_it_touches(rules: Rules, calibrations: dict[str, object], stale: set[str]) -> None:
    before, after = fingerprints(Rules(), CALIBRATIONS), fingerprints(rules, calibrations)  # type: ignore[arg-type]
    assert {label for label in LABELS if before[label] != after[label]} == stale
