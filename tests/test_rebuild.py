"""Rebuilds: what a change touches is converted, everything else is reused, and the result is a fresh build's."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import preprocess.convert
from preprocess import boxes, depth, segmentation, steering
from preprocess.build import survey
from preprocess.build_plan import make_plan
from preprocess.rules import DepthRule, load_rules
from preprocess.source import find_source
from shards.reader import ShardSet
from tests.conftest import SMALL_RULES, png, prep

Calls = Counter[str]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The number of calls of each converter."""
    counted: Calls = Counter()

    def count(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            counted[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    count(preprocess.convert, "convert_image")
    for module in (segmentation, depth, boxes, steering):
        count(module, f"convert_{module.__name__.removeprefix('preprocess.')}")
    return counted


def shard(root: Path, out: Path, toml: str, *options: object) -> str:
    out.parent.mkdir(parents=True, exist_ok=True)
    rules = out.parent / f"{out.name}.toml"
    rules.write_text(toml)
    result = prep("shard", "--root", root, "--out", out, "--rules", rules, "--workers", 1, *options)
    assert result.exit_code == 0, result.output
    return result.output


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def assert_fresh(root: Path, out: Path, toml: str, calls: Calls) -> None:
    """The same bytes as a build into an empty folder, and nothing set aside is left."""
    counted = dict(calls)
    fresh = out.with_name("fresh")
    shard(root, fresh, toml)
    assert tars(out) == tars(fresh)
    assert (out / "manifest.json").read_bytes() == (fresh / "manifest.json").read_bytes()
    assert not list(out.glob("*.a2d2-*"))
    calls.clear()
    calls.update(counted)


@pytest.fixture
def built(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards that may be changed."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


@pytest.mark.parametrize(
    ("toml", "label", "converted"),
    [
        pytest.param("[boxes]\nmin_px = 9.0\n", "boxes", {"convert_boxes": 17}, id="boxes"),
        pytest.param("[depth]\npoint_px = 1\n", "depth", {"convert_depth": 11}, id="depth"),
        pytest.param("[steering]\nsignal = 'steering_angle'\n", "steering", {"convert_steering": 18}, id="steering"),
        pytest.param("[segmentation]\nencoding = 'npy'\n", "segmentation", {"convert_segmentation": 18}, id="classes"),
        pytest.param("[image]\nsize = 256\nquality = 80\n", "image", {"convert_image": 18}, id="image"),
    ],
)
def test_a_changed_rule_converts_its_label_alone(
    synthetic: Path, built: Path, calls: Calls, toml: str, label: str, converted: dict[str, int]
) -> None:
    rules = (SMALL_RULES if "[image]" not in toml else SMALL_RULES.split("[image]")[0]) + toml
    said = shard(synthetic, built, rules, "--dry-run")
    assert f"  {label}: 5 shards: rule changed (18 frames)" in said
    assert f"rules changed: {label}." in said
    assert "carried over, byte for byte: " in said
    assert not calls
    shard(synthetic, built, rules)
    assert dict(calls) == converted
    assert_fresh(synthetic, built, rules, calls)


def test_a_raised_converter_version_is_a_changed_rule(
    synthetic: Path, built: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(preprocess.convert.CONVERTER_VERSIONS, "depth", 99)
    assert "  depth: 5 shards: rule changed (18 frames)" in shard(synthetic, built, SMALL_RULES)
    assert dict(calls) == {"convert_depth": 11}


@pytest.mark.parametrize(
    "toml",
    [
        pytest.param(SMALL_RULES.replace("5", "4", 1), id="shard size"),
        pytest.param(SMALL_RULES + "[split]\nval_fraction = 0.5\n", id="share"),
        pytest.param(SMALL_RULES + "[split]\nby = 'scene'\n", id="scenes"),
    ],
)
def test_a_changed_split_writes_every_shard_and_converts_nothing(
    synthetic: Path, built: Path, calls: Calls, toml: str
) -> None:
    assert "split or shard size changed: all " in shard(synthetic, built, toml, "--dry-run")
    shard(synthetic, built, toml)
    assert not calls
    assert_fresh(synthetic, built, toml, calls)


def test_labels_can_be_left_out_and_added_later(synthetic: Path, tmp_path: Path, calls: Calls) -> None:
    out = tmp_path / "some"
    shard(synthetic, out, "labels = ['boxes', 'steering']\n" + SMALL_RULES)
    assert set(calls) == {"convert_image", "convert_boxes", "convert_steering"}
    some = ShardSet(out)
    assert {label for ref in some.samples("train") for label in ref.labels} == {"image", "boxes", "steering"}
    assert set(some.manifest["fingerprints"]) == {"image", "boxes", "steering"}
    assert (
        prep("inspect", out).exit_code
        == prep("verify", out).exit_code
        == prep("show", out, "--out", tmp_path / "panel.png").exit_code
        == 0
    )
    calls.clear()
    assert "  depth: 5 shards: new label (18 frames)" in shard(synthetic, out, SMALL_RULES)
    assert set(calls) == {"convert_segmentation", "convert_depth"}
    assert_fresh(synthetic, out, SMALL_RULES, calls)


@pytest.fixture
def root(extracted: Path, tmp_path: Path) -> Path:
    """The source as folders that may be changed."""
    out = tmp_path / "root"
    shutil.copytree(extracted, out)
    return out


def files_of(root: Path, kind: str) -> list[Path]:
    return sorted(root.glob(f"*/*/{kind}/*/*.*"))


def test_added_frames_move_their_neighbours_and_are_converted_alone(root: Path, tmp_path: Path, calls: Calls) -> None:
    out, away = tmp_path / "out", tmp_path / "away"
    frame_id = files_of(root, "label")[2].stem[-9:]
    scene = files_of(root, "label")[2].parents[2]
    moved = {path: away / path.relative_to(root) for path in scene.rglob(f"*_{frame_id}.*")}
    for path, target in moved.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    shard(root, out, SMALL_RULES)
    for path, target in moved.items():
        target.rename(path)
    calls.clear()
    said = shard(root, out, SMALL_RULES)
    assert "segmentation: " in said
    assert "new frame (1 frames)" in said
    assert set(calls.values()) == {1}
    assert_fresh(root, out, SMALL_RULES, calls)
    for path in moved:
        path.unlink()
    calls.clear()
    shard(root, out, SMALL_RULES)
    assert not calls, "a removed frame takes nothing but itself away"
    assert_fresh(root, out, SMALL_RULES, calls)


@pytest.mark.parametrize(
    ("kind", "changed", "converted"),
    [
        pytest.param("label", png(np.full((1208, 1920, 3), 255, np.uint8)), {"convert_segmentation": 1}, id="label"),
        pytest.param("label3D", b"{}", {"convert_boxes": 1}, id="boxes"),
        pytest.param("label3D", b"{", {"convert_boxes": 0}, id="boxes go bad"),
        pytest.param("camera", png(np.zeros((1208, 1920, 3), np.uint8)), {
            "convert_image": 1, "convert_segmentation": 1, "convert_depth": 1, "convert_boxes": 1}, id="image"),
    ],
)  # fmt: skip
def test_a_changed_source_file_converts_its_frame_alone(
    root: Path, tmp_path: Path, calls: Calls, kind: str, changed: bytes, converted: dict[str, int]
) -> None:
    out = tmp_path / "out"
    shard(root, out, SMALL_RULES, "--max-bad", "1")
    calls.clear()
    path = [path for path in files_of(root, kind) if path.suffix != ".json" or kind == "label3D"][3]
    path.write_bytes(changed)
    assert "source file changed (1 frames)" in shard(root, out, SMALL_RULES, "--max-bad", "1")
    assert dict(calls) == {name: count for name, count in converted.items() if count}
    fresh = tmp_path / "fresh"
    shard(root, fresh, SMALL_RULES, "--max-bad", "1")
    assert tars(out) == tars(fresh)


def test_a_bad_label_stays_bad_when_another_is_rebuilt(root: Path, tmp_path: Path, calls: Calls) -> None:
    """Its reason is carried over with it."""
    files_of(root, "label3D")[3].write_bytes(b"{")
    out = tmp_path / "out"
    shard(root, out, SMALL_RULES, "--max-bad", "1")
    rules = SMALL_RULES + "[depth]\nbits = 16\n"
    said = shard(root, out, rules, "--max-bad", "1")
    assert "bad boxes of " in said
    (bad,) = [entry for entry in ShardSet(out).manifest["left_out"] if entry["bad"]]
    assert bad["what"] == "boxes"
    fresh = tmp_path / "fresh"
    shard(root, fresh, rules, "--max-bad", "1")
    assert tars(out) == tars(fresh)
    assert (out / "manifest.json").read_bytes() == (fresh / "manifest.json").read_bytes()


def test_with_checksums_a_touched_file_is_the_same_and_a_changed_one_is_not(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shard(root, out, SMALL_RULES, "--checksum", "--max-bad", "1")
    path = files_of(root, "lidar")[2]
    before = path.stat()
    path.touch()
    assert "is up to date" in shard(root, out, SMALL_RULES, "--checksum")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "depth: 1 shards: source file changed (1 frames)" in shard(
        root, out, SMALL_RULES, "--checksum", "--max-bad", "1"
    )


def test_with_checksums_a_file_that_cannot_be_read_is_bad_and_no_more(root: Path, tmp_path: Path) -> None:
    path = files_of(root, "label")[2]
    path.unlink()
    path.symlink_to("nowhere")
    said = shard(root, tmp_path / "out", SMALL_RULES, "--checksum", "--max-bad", "1")
    assert f"cannot be opened: No such file or directory: {path}" in said


def test_damage_in_what_would_be_carried_over_is_noticed_and_mended(synthetic: Path, built: Path, calls: Calls) -> None:
    """A flipped byte in the image of a shard whose boxes are rebuilt: that frame is converted whole."""
    opened = ShardSet(built)
    ref = opened.samples("train")[1]
    place = ref.sample.members["image.jpg"]
    opened.close()
    with (built / ref.shard).open("r+b") as file:
        file.seek(place.offset + 999)
        byte = file.read(1)
        file.seek(place.offset + 999)
        file.write(bytes([byte[0] ^ 1]))
    rules = SMALL_RULES + "[boxes]\nmin_px = 9.0\n"
    shard(synthetic, built, rules)
    assert calls["convert_image"] == 1
    assert calls["convert_steering"] == 1
    assert_fresh(synthetic, built, rules, calls)


def test_rules_in_code_are_rules(synthetic: Path, built: Path) -> None:
    """Rules made in Python mean the same as rules from TOML."""
    source = find_source(synthetic, cameras={"frontcenter"}, skip=built)
    rules_file = built.parent / "small.toml"
    rules_file.write_text(SMALL_RULES)
    rules = load_rules(str(rules_file))
    assert not survey(built, make_plan(source, rules)).stale
    work = survey(built, make_plan(source, replace(rules, depth=DepthRule(bits=16))))
    assert {label: sum(why.values()) for label, why in work.conversions.items() if why} == {"depth": 18}
