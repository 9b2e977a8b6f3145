"""The plan of a build: the split and the shard of each frame, and the changes that make a shard another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from preprocess.build_plan import make_plan
from preprocess.rules import DepthRule, Rules, SplitRule
from preprocess.source import Frame, Source, find_source
from preprocess.split import IN_GAP, NO_TIME, Split, split_frames
from shards.summary import count_near


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
    splits = split_frames(group, SplitRule(val_fraction=fraction), no_times).of
    assert [splits[frame.key] for frame in group] == ["train"] * train + ["val"] * (count - train)


def no_times(frame: Frame) -> int | None:
    return None


def test_without_times_the_cameras_of_a_scene_are_cut_at_one_id() -> None:
    group = frames("20180807_145028", 5) + frames("20180807_145028", 5, "sideleft")
    splits = split_frames(group, SplitRule(), no_times).of
    assert [splits[frame.key] for frame in group] == (["train"] * 4 + ["val"]) * 2


def test_whole_scenes_can_be_held_out() -> None:
    group = frames("20180807_145028", 2) + frames("20180808_145028", 2) + frames("20180809_145028", 2)
    splits = split_frames(group, SplitRule(by="scene", val_fraction=0.34), no_times).of
    assert [splits[frame.key] for frame in group] == ["train"] * 2 + ["val"] * 4


def timed(splits: Split, times: dict[str, int], name: str) -> list[int]:
    return [time for key, time in times.items() if splits.of.get(key) == name]


def test_all_cameras_of_a_scene_are_cut_at_one_moment() -> None:
    """Of cameras with unequal numbers of frames, no val frame shows the time of another camera's train frame."""
    centre, left = frames("20180807_145028", 100), frames("20180807_145028", 30, "frontleft")
    times = {frame.key: 1_000_000 * place for place, frame in enumerate(centre)}
    times |= {frame.key: 1_000_000 * (40 + 2 * place) for place, frame in enumerate(left)}
    splits = split_frames(centre + left, SplitRule(), lambda frame: times[frame.key])
    assert max(timed(splits, times, "train")) < min(timed(splits, times, "val"))
    assert len(timed(splits, times, "val")) == pytest.approx(26, abs=1)
    assert {splits.of[frame.key] for frame in left} == {"train", "val"}
    assert splits.left_out == {}


def test_a_gap_is_left_out_around_the_cut_and_counted() -> None:
    group = frames("20180807_145028", 20)
    times = {frame.key: 500_000 * place for place, frame in enumerate(group)}
    splits = split_frames(group, SplitRule(gap_s=2.0), lambda frame: times[frame.key])
    train, val = timed(splits, times, "train"), timed(splits, times, "val")
    assert min(val) - max(train) >= 2_000_000
    assert (len(train), len(val), len(splits.left_out)) == (14, 2, 4)
    assert set(splits.left_out.values()) == {IN_GAP}
    assert count_near(val, train, 1_000_000) == 0
    assert count_near([8_000_000, 9_500_000], [7_500_000], 1_000_000) == 1
    lacking = split_frames(group, SplitRule(gap_s=2.0), lambda frame: times[frame.key] or None)
    assert lacking.left_out[group[0].key] == NO_TIME


def test_one_camera_without_a_gap_needs_no_times() -> None:
    def unread(frame: Frame) -> int | None:
        raise AssertionError(frame)

    assert split_frames(frames("20180807_145028", 10), SplitRule(), unread).left_out == {}


@pytest.mark.parametrize("by", ["tail", "scene"])
def test_the_last_frames_or_scenes_are_test(by: Literal["tail", "scene"]) -> None:
    group = frames("20180807_145028", 10)
    if by == "scene":
        group = [frame for day in range(10) for frame in frames(f"201808{day:02d}_145028", 1)]
    splits = split_frames(group, SplitRule(by=by, test_fraction=0.1), no_times).of
    assert [splits[frame.key] for frame in group] == ["train"] * 7 + ["val"] * 2 + ["test"]


def test_fractions_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"val_fraction \+ test_fraction must be in 0..1, got 1.1"):
        SplitRule(val_fraction=0.6, test_fraction=0.5)


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


def test_a_test_split_has_its_own_shards_and_a_gap_is_counted(source: Source) -> None:
    plan = make_plan(source, Rules(split=SplitRule(val_fraction=0.3, test_fraction=0.3)))
    assert [shard.name for shard in plan.shards] == ["train-000000.tar", "val-000000.tar", "test-000000.tar"]
    assert plan.left_out == ()
    with_gap = make_plan(source, Rules(split=SplitRule(gap_s=1000.0)))
    assert {entry.reason for entry in with_gap.left_out} == {IN_GAP}
    assert with_gap.frames == plan.frames == 18
