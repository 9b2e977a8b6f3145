"""The plan of a build: the split and the shard of each frame, and the changes that make a shard another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from preprocess.build_plan import make_plan, split_frames
from preprocess.rules import DepthRule, Rules, SplitRule
from preprocess.source import Frame, Source, find_source


def frames(scene: str, count: int, camera: str = "frontcenter") -> list[Frame]:
    return [Frame(scene, camera, f"{i:09d}", scene.replace("_", "")) for i in range(count)]


@pytest.mark.parametrize(
    ("count", "fraction", "train"),
    [
        pytest.param(10, 0.2, 8, id="80 of 100"),
        pytest.param(6, 0.2, 4, id="int, not round"),
        pytest.param(1, 0.2, 1, id="at least one"),
        pytest.param(1, 1.0, 1, id="even where all are to be held out"),
        pytest.param(10, 0.0, 10, id="none held out"),
    ],
)
def test_the_tail_of_each_scene_is_held_out(count: int, fraction: float, train: int) -> None:
    group = frames("20180807_145028", count)
    splits = split_frames(group, SplitRule(val_fraction=fraction))
    assert [splits[frame.key] for frame in group] == ["train"] * train + ["val"] * (count - train)


def test_each_camera_of_a_scene_has_its_own_tail() -> None:
    group = frames("20180807_145028", 5) + frames("20180807_145028", 5, "sideleft")
    splits = split_frames(group, SplitRule())
    assert [splits[frame.key] for frame in group] == (["train"] * 4 + ["val"]) * 2


def test_whole_scenes_can_be_held_out() -> None:
    group = frames("20180807_145028", 2) + frames("20180808_145028", 2) + frames("20180809_145028", 2)
    splits = split_frames(group, SplitRule(by="scene", val_fraction=0.34))
    assert [splits[frame.key] for frame in group] == ["train"] * 2 + ["val"] * 4


@pytest.fixture
def source(synthetic: Path) -> Source:
    return find_source(synthetic, cameras={"frontcenter"}, skip=synthetic / "out")


def test_shards_follow_the_order_of_scene_camera_and_id(source: Source) -> None:
    plan = make_plan(source, Rules(shard_samples=5))
    assert [(shard.name, len(shard.frames)) for shard in plan.shards] == [
        ("train-000000.tar", 5),
        ("train-000001.tar", 5),
        ("train-000002.tar", 2),
        ("val-000000.tar", 5),
        ("val-000001.tar", 1),
    ]
    keys = [planned.frame.key for shard in plan.shards if shard.split == "train" for planned in shard.frames]
    assert keys == sorted(keys)
    assert plan.frames == 18


def test_a_recipe_changes_with_rules_and_files(source: Source) -> None:
    before = [shard.recipe for shard in make_plan(source, Rules()).shards]
    assert [shard.recipe for shard in make_plan(source, Rules()).shards] == before
    assert [shard.recipe for shard in make_plan(source, Rules(depth=DepthRule(bits=16))).shards] != before
    last = source.frames[-1]
    last.files["image"] = replace(last.files["image"], stamp=(1, 2))
    train, val = (shard.recipe for shard in make_plan(source, Rules()).shards)
    assert train == before[0]
    assert val != before[1]


def test_other_cameras_need_their_calibration(tmp_path: Path) -> None:
    path = tmp_path / "20180807_145028/camera/cam_side_left/20180807145028_camera_sideleft_1.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"?")
    source = find_source(tmp_path, cameras={"sideleft"}, skip=tmp_path / "out")
    with pytest.raises(ValueError, match=r"cameras sideleft need cams_lidars.json under --root"):
        make_plan(source, Rules())


def test_frames_without_an_image_are_left_out_with_their_reason(real: Path) -> None:
    plan = make_plan(find_source(real, cameras={"frontcenter"}, skip=real / "out"), Rules())
    (left_out,) = plan.left_out
    assert (left_out.key, left_out.reason) == ("20180810142822_frontcenter_000015196", "no camera image")
    assert sum(len(shard.frames) for shard in plan.shards) == 3
