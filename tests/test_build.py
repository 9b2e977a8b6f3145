"""The build: same bytes however it is run, nothing stale kept, nothing foreign touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest

import preprocess.build
from shards.reader import ShardSet
from tests.conftest import SMALL_RULES, prep, tree_bytes


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.mark.parametrize("workers", [1, 2])
def test_same_bytes_from_folders_at_any_number_of_workers(
    shards: Path, extracted: Path, small_rules: Path, tmp_path: Path, workers: int
) -> None:
    """`shards` was built from tars by one worker."""
    result = prep("shard", "--root", extracted, "--out", tmp_path, "--rules", small_rules, "--workers", workers)
    assert result.exit_code == 0, result.output
    assert tars(tmp_path) == tars(shards)
    assert (tmp_path / "manifest.json").read_bytes() == (shards / "manifest.json").read_bytes()


@pytest.fixture
def built(synthetic: Path, shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards that may be changed."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def rebuild(synthetic: Path, out: Path, rules: Path, *options: object) -> str:
    result = prep("shard", "--root", synthetic, "--out", out, "--rules", rules, "--workers", 1, *options)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_second_run_has_nothing_to_do(synthetic: Path, built: Path, small_rules: Path) -> None:
    before = tree_bytes(built)
    assert "is up to date" in rebuild(synthetic, built, small_rules)
    assert tree_bytes(built) == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "deleted"])
def test_a_damaged_shard_is_converted_again_and_no_other(
    synthetic: Path, built: Path, small_rules: Path, damage: str
) -> None:
    before, times = tree_bytes(built), {path: path.stat().st_mtime_ns for path in built.glob("*.tar")}
    path = built / "train-000001.tar"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "flipped":
            path.write_bytes(data)
        case _:
            path.unlink()
    assert "to write: 1 shards, 5 frames" in rebuild(synthetic, built, small_rules)
    assert {name: data for name, data in tree_bytes(built).items() if "previous" not in name} == before
    kept = [name for name in times if name != path]
    assert {name: name.stat().st_mtime_ns for name in kept} == {name: times[name] for name in kept}


def test_an_interrupted_build_goes_on(synthetic: Path, built: Path, small_rules: Path) -> None:
    """As a kill leaves it: no manifest, a shard missing, an unfinished file."""
    before = tree_bytes(built)
    (built / "manifest.json").unlink()
    (built / "val-000000.tar").unlink()
    (built / "val-000000.tar.4242.a2d2-partial").write_bytes(b"half")
    assert "to keep: 4 shards" in rebuild(synthetic, built, small_rules)
    assert tree_bytes(built) == before


def test_other_rules_leave_nothing_stale(synthetic: Path, built: Path, tmp_path: Path) -> None:
    rules = tmp_path / "other.toml"
    rules.write_text(SMALL_RULES.replace("5", "9", 1) + "[depth]\nbits = 16\n")
    assert "to delete from" in rebuild(synthetic, built, rules)
    assert sorted(tars(built)) == ["train-000000.tar", "train-000001.tar", "val-000000.tar"]
    fresh = tmp_path / "fresh"
    rebuild(synthetic, fresh, rules)
    assert tars(built) == tars(fresh)
    assert not list(built.glob("train-000002*"))


def test_a_dry_run_changes_nothing(synthetic: Path, built: Path) -> None:
    before = tree_bytes(built)
    result = prep("shard", "--root", synthetic, "--out", built, "--rules", "thesis", "--dry-run")
    assert "to write: 2 shards, 18 frames: rules, frames or source files changed" in result.output
    assert tree_bytes(built) == before
    assert prep("shard", "--root", synthetic, "--out", built / "new", "--dry-run").exit_code == 0
    assert not (built / "new").exists()


@pytest.mark.parametrize(
    "name",
    ["train-000000.tar", "train-000000.index.json", "manifest.json", "manifest.previous.json"],
    ids=["tar", "index", "manifest", "previous manifest"],
)
def test_foreign_files_in_the_way_are_refused(synthetic: Path, tmp_path: Path, small_rules: Path, name: str) -> None:
    (tmp_path / name).write_text('{"mine": true}')
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", small_rules)
    assert result.exit_code == 1
    assert f"{tmp_path / name} " in result.output
    assert "choose another" in result.output
    assert tree_bytes(tmp_path) == {name: b'{"mine": true}'}


def test_foreign_files_beside_the_shards_stay(synthetic: Path, built: Path, tmp_path: Path) -> None:
    mine = {"schema.py": b"x = 1", "train-000099.tar": b"mine", "x.index.json": b"{}", "train-000098.index.json": b"{}"}
    for name, data in mine.items():
        (built / name).write_bytes(data)
    rules = tmp_path / "other.toml"
    rules.write_text(SMALL_RULES.replace("5", "9", 1))
    rebuild(synthetic, built, rules)
    after = tree_bytes(built)
    assert {name: after[name] for name in mine} == mine


def test_left_out_and_absent_are_said_with_their_reason(shards: Path) -> None:
    manifest = orjson.loads((shards / "manifest.json").read_bytes())
    assert manifest["data_set"] == "synthetic"
    assert manifest["left_out"] == []
    assert manifest["absent"] == {
        "boxes": {"no file": 1},
        "depth": {"no file": 6, "npz without row, col, distance": 1},
        "steering": {"error code": 1, "no bus record": 1, "no signal steering_angle_calculated": 1},
    }
    totals = manifest["totals"]
    assert (totals["train"]["samples"], totals["val"]["samples"]) == (12, 6)
    assert totals["train"]["labels"]["depth"] + totals["val"]["labels"]["depth"] == 11


def test_an_absent_label_is_an_absent_member(shard_set: ShardSet) -> None:
    samples = [*shard_set.samples("train"), *shard_set.samples("val")]
    without = [ref for ref in samples if "boxes" not in ref.labels]
    assert len(without) == 1
    assert shard_set.meta(without[0])["boxes"] == {"absent": "no file"}
    empty = [ref for ref in samples if "boxes" in ref.labels and not shard_set.load(ref, ["boxes"])["boxes"].any()]
    assert len(empty) == 1, "the frame whose label3D is {} has boxes, and they are zeros"


def test_the_thesis_preset_stores_other_members(synthetic: Path, tmp_path: Path) -> None:
    result = prep("shard", "--root", synthetic, "--out", tmp_path, "--rules", "thesis")
    assert result.exit_code == 0, result.output
    thesis = ShardSet(tmp_path)
    ref = thesis.samples("train")[0]
    assert {"image.png", "segmentation.npy"} <= set(ref.sample.members)
    sample = thesis.load(ref, ["image", "segmentation"])
    assert sample["image"].shape == (1024, 1024, 3)
    assert sample["segmentation"].dtype == np.uint8


@pytest.mark.parametrize("damage", [b"", b"{", None], ids=["empty", "cut", "deleted"])
def test_a_shard_whose_index_is_lost_is_the_manifests_and_written_again(
    synthetic: Path, shards: Path, built: Path, small_rules: Path, damage: bytes | None
) -> None:
    index = built / "train-000001.index.json"
    index.unlink() if damage is None else index.write_bytes(damage)
    arguments = ["shard", "--root", synthetic, "--out", built, "--rules", small_rules, "--workers", 1]
    assert "to write: 1 shards, 5 frames: its index is missing or damaged" in prep(*arguments, "--dry-run").output
    result = prep(*arguments)
    assert result.exit_code == 0, result.output
    assert tree_bytes(built).keys() - {"manifest.previous.json"} == tree_bytes(shards).keys()
    assert all(tree_bytes(built)[name] == data for name, data in tree_bytes(shards).items())


def test_a_tar_without_index_that_the_manifest_does_not_know_stays(
    synthetic: Path, built: Path, small_rules: Path
) -> None:
    (built / "train-000001.index.json").unlink()
    (built / "train-000001.tar").write_bytes(b"mine")
    result = prep("shard", "--root", synthetic, "--out", built, "--rules", small_rules)
    assert result.exit_code == 1
    assert "train-000001.tar is in the way, and was not written by this tool" in result.output
    assert (built / "train-000001.tar").read_bytes() == b"mine"


def test_an_index_copied_under_another_name_takes_nothing_with_it(
    synthetic: Path, built: Path, small_rules: Path
) -> None:
    """Read as a shard too many, it once had its namesake deleted, behind the manifest's back."""
    shutil.copy(built / "train-000000.index.json", built / "train-000077.index.json")
    (built / "manifest.json").unlink()
    result = prep("shard", "--root", synthetic, "--out", built, "--rules", small_rules)
    assert result.exit_code == 0, result.output
    assert prep("verify", built).exit_code == 0


def test_a_set_that_loses_shards_is_unfinished_until_they_are_gone(
    synthetic: Path, built: Path, small_rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = orjson.loads((built / "val-000001.index.json").read_bytes())
    (built / "val-000009.index.json").write_bytes(orjson.dumps({**document, "shard": "val-000009.tar"}))
    with monkeypatch.context() as patch:
        patch.setattr(preprocess.build, "remove_old", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert prep("shard", "--root", synthetic, "--out", built, "--rules", small_rules).exit_code == 75
    assert not (built / "manifest.json").exists()
    result = prep("shard", "--root", synthetic, "--out", built, "--rules", small_rules)
    assert result.exit_code == 0, result.output
    assert not list(built.glob("val-000009*"))


def test_a_manifest_that_lacks_a_part_is_one_line(synthetic: Path, built: Path, small_rules: Path) -> None:
    manifest = orjson.loads((built / "manifest.json").read_bytes())
    del manifest["shards"]
    (built / "manifest.json").write_bytes(orjson.dumps(manifest))
    for command in ("verify", "inspect", "show"):
        result = prep(command, built)
        assert result.exit_code == 1
        assert "manifest.json is damaged: it lacks shards; run a2d2-prep shard again" in result.output
    assert prep("shard", "--root", synthetic, "--out", built, "--rules", small_rules).exit_code == 0
    assert prep("verify", built).exit_code == 0
