"""Rules come from TOML and go back to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocess.rules import (
    DepthRule,
    Rules,
    load_rules,
    rules_to_toml,
)


@pytest.mark.parametrize("name", ["default", "thesis"])
def test_toml_goes_round(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(rules_to_toml(load_rules(name), {"depth": "a comment"}))
    assert load_rules(str(path)) == load_rules(name)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        pytest.param("[depth]\nmax = 3", "unknown key depth.max: known are max_m, point_px, bits", id="key"),
        pytest.param("[dept]\nmax_m = 3", "unknown key dept", id="table"),
        pytest.param("depth = 3", "depth must be a table, got 3", id="no table"),
        pytest.param("[depth]\nmax_m = 'far'", "depth.max_m must be a number, got 'far'", id="type"),
        pytest.param("[geometry]\nundistort = 1", "geometry.undistort must be true or false, got 1", id="bool"),
        pytest.param("[image]\nsize = 1000", r"image.size must be one of 256, 512, 1024, got 1000", id="size"),
        pytest.param("[depth]\nmax_m = nan", "depth.max_m must be a number, got nan: 16 bits", id="nan"),
        pytest.param("[depth]\nmax_m = 256", "depth.max_m must be above 0 and below 256, got 256: 16 bits", id="far"),
        pytest.param("[depth]\npoint_px = 2", "depth.point_px must be odd", id="even"),
        pytest.param("[split]\nval_fraction = 1.5", "split.val_fraction must be in 0..1", id="share"),
        pytest.param("shard_samples = 0", "shard_samples must be in 1..100000", id="shard"),
        pytest.param("[image", "is not TOML: Expected", id="no TOML"),
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
