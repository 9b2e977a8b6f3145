"""A set keeps its own rules unless others are asked for, and the closing line suggests a network that fits it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from preprocess.rules import ImageRule, Rules, rules_of_set
from preprocess.summary_text import next_line
from tests.conftest import prep

OWN = "with image.size 1024 -> 256, shard_samples 128 -> 5; --rules default asks for the defaults"


@pytest.fixture
def built(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards, at 256 px with 5 samples a shard, that may be changed."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def shard(synthetic: Path, out: Path, *options: object) -> str:
    result = prep("shard", "--root", synthetic, "--out", out, "--workers", 1, *options)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_set_keeps_its_own_rules(synthetic: Path, built: Path, unfinished: bool) -> None:
    if unfinished:
        (built / "manifest.json").rename(built / "manifest.previous.json")
    said = shard(synthetic, built)
    assert f"rules: those of {built}, {OWN}" in said
    assert ("is up to date" in said) != unfinished
    assert "to write" not in said


def test_others_can_be_asked_for(synthetic: Path, built: Path, small_rules: Path) -> None:
    assert "rules: as --rules says" in shard(synthetic, built, "--rules", small_rules, "--dry-run")
    said = shard(synthetic, built, "--rules", "default", "--dry-run")
    assert "rules changed: image.size 256 -> 1024, shard_samples 5 -> 128" in said


def test_a_new_set_gets_the_defaults(synthetic: Path, tmp_path: Path) -> None:
    assert "rules: the defaults" in shard(synthetic, tmp_path / "new", "--dry-run")


def test_a_set_of_a_later_version_needs_rules(built: Path) -> None:
    path = built / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"point_px"', b'"point_mm"'))
    with pytest.raises(ValueError, match=r"manifest.json: unknown key depth.point_mm: known are .*: give --rules$"):
        rules_of_set(built)


def test_the_next_command_fits_the_samples() -> None:
    large = next_line(Rules(), Path("shards"))
    assert large == "next: amtl-train --mode asymmetric --shards shards (the default network needs a GPU)"
    small = next_line(Rules(image=ImageRule(size=256)), Path("shards"))
    assert "--shards shards --backbone resnet18 --width 0.25 (" in small
