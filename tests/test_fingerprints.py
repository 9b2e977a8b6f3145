"""Fingerprints change label by label, stay those of the first release, and pass over new rules that change nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from preprocess import convert
from preprocess.fingerprints import fingerprints
from preprocess.rules import (  # fmt: skip
    BoxesRule,
    DepthRule,
    GeometryRule,
    ImageRule,
    Rules,
    SegmentationRule,
    SteeringRule,
    load_rules,
    rule_changes,
    rules_to_tables,
)
from shards.geometry import FRONT_CENTER, Intrinsics
from shards.schema import LABELS

CALIBRATIONS = {"frontcenter": FRONT_CENTER}


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


# Computed by the first release, with the versions that its converters had.
FIRST_VERSIONS = {"image": 2, "segmentation": 2, "depth": 2, "boxes": 1, "steering": 2}
FIRST_FINGERPRINTS = {
    "default": {
        "image": "ad7cdc5ff7f31d22", "steering": "80e31f135cc10062", "segmentation": "8253f865df1fc36d",
        "boxes": "0c6997bed2a1d80e", "depth": "a89ec1c3b036abe5",
    },
    "thesis": {
        "image": "d6c24e1f22e2a3d1", "steering": "b1f417bd4f692278", "segmentation": "0ac124a5845cc560",
        "boxes": "20f04260bd78a6b2", "depth": "27c1967e0a871b79",
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", FIRST_FINGERPRINTS)
def test_sets_of_the_first_release_stay_fresh(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for label, version in FIRST_VERSIONS.items():
        monkeypatch.setitem(convert.CONVERTER_VERSIONS, label, version)
    rules = load_rules(preset)
    assert fingerprints(rules, CALIBRATIONS if rules.geometry.undistort else {}) == FIRST_FINGERPRINTS[preset]


@dataclass(frozen=True)
class LaterDepthRule(DepthRule):
    """The depth rule with a field that a later release might add."""

    skip_m: float = 0.0


@dataclass(frozen=True)
class LaterGeometryRule(GeometryRule):
    """The geometry with a field that a later release might add."""

    flip: bool = False


def test_a_new_rule_whose_default_changes_nothing_makes_no_label_stale() -> None:
    before = fingerprints(Rules(), CALIBRATIONS)
    assert fingerprints(Rules(depth=LaterDepthRule(), geometry=LaterGeometryRule()), CALIBRATIONS) == before
    after = fingerprints(Rules(depth=LaterDepthRule(skip_m=2.0)), CALIBRATIONS)
    assert {label for label in before if before[label] != after[label]} == {"depth"}
    moved = fingerprints(Rules(geometry=LaterGeometryRule(flip=True)), CALIBRATIONS)
    assert not set(before.items()) & set(moved.items())


def test_a_rule_that_a_set_does_not_know_counts_there_with_its_default() -> None:
    tables = rules_to_tables(Rules())
    del tables["depth"]["bits"]
    assert rule_changes(tables, rules_to_tables(Rules())) == {}
    assert rule_changes(tables, rules_to_tables(Rules(depth=DepthRule(bits=16)))) == {"depth.bits": (8, 16)}
