"""What a regime trains on: labels kept and dropped, rare tasks repeated, warnings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from shards.manifest import Member, Sample
from shards.reader import SampleRef
from shards.schema import TASKS
from train.data.order import epoch_order
from train.data.regimes import choose_samples, keep_labels, plan_warnings
from train.presets import build_config

MEMBER_OF = {"image": "image.jpg", "steering": "steering.json", "segmentation": "segmentation.png",
             "boxes": "boxes.npy", "depth": "depth.png"}  # fmt: skip


def ref(number: int, *labels: str) -> SampleRef:
    members = {MEMBER_OF[label]: Member(0, 1, 0) for label in ("image", *labels)}
    return SampleRef("train-000000.tar", Sample(f"20180807145028_frontcenter_{number:09d}", members, {}))


FULL = [ref(number, *TASKS) for number in range(2000)]


def counts(samples: list[SampleRef]) -> Counter[str]:
    return Counter(label for sample in samples for label in sample.labels if label in TASKS)


def test_a_share_of_a_task_s_labels_is_kept_whatever_else_there_is() -> None:
    kept = keep_labels(FULL, {"boxes": 0.1, "depth": 0.5}, one=False)
    held = counts(kept)
    assert held["steering"] == held["segmentation"] == 2000
    assert held["boxes"] == pytest.approx(200, abs=50)
    assert held["depth"] == pytest.approx(1000, abs=100)
    assert all("image" in sample.labels for sample in kept)
    assert keep_labels(FULL[::7], {"boxes": 0.1, "depth": 0.5}, one=False) == kept[::7]


def test_a_smaller_share_is_part_of_a_larger_one() -> None:
    few, many = ({sample.key for sample in keep_labels(FULL, {"boxes": share}, one=False) if "boxes" in sample.labels}
                 for share in (0.1, 0.3))  # fmt: skip
    assert few < many


def test_one_label_a_sample_every_one_as_likely() -> None:
    kept = keep_labels(FULL, {}, one=True)
    assert all(len(set(sample.labels) & set(TASKS)) == 1 for sample in kept)
    assert all(count == pytest.approx(500, abs=80) for count in counts(kept).values())


def test_nothing_is_dropped_by_default() -> None:
    assert keep_labels(FULL, {}, one=False) == FULL


def test_dropped_labels_are_counted_and_symmetric_training_misses_them(tmp_path: Path) -> None:
    config = build_config({"mode": "symmetric", "shards": str(tmp_path), "stream": {"keep_labels": {"boxes": 0.25}}})
    chosen, lines = choose_samples(config, FULL)
    left = counts(keep_labels(FULL, {"boxes": 0.25}, one=False))["boxes"]
    assert len(chosen) == left
    assert lines[1] == f"labels left unused on purpose: boxes {2000 - left}"
    one = build_config({"mode": "symmetric", "shards": str(tmp_path), "stream": {"one_label": True}})
    with pytest.raises(ValueError, match=r"no train sample of .* has all four labels"):
        choose_samples(one, FULL)


@pytest.mark.parametrize(("most", "boxes", "steering"), [(1, 10, 100), (4, 40, 100), (20, 100, 100)])
def test_labels_of_rare_tasks_come_up_again(most: int, boxes: int, steering: int) -> None:
    samples = [ref(number, "steering", *(("boxes",) if number % 10 == 0 else ())) for number in range(100)]
    items = epoch_order(samples, TASKS, 0, 0, "items", 0, most)
    found = Counter(item.task for item in items)
    assert (found["boxes"], found["steering"]) == (boxes, steering)
    assert Counter(item for item in items if item.task == "steering").most_common(1)[0][1] == 1
    again = Counter(item for item in items if item.task == "boxes")
    assert set(again.values()) == {boxes // 10}
    assert epoch_order(samples, TASKS, 0, 0, "items", 0, most) == items


def test_a_fraction_of_a_repetition_is_a_matter_of_chance() -> None:
    samples = [ref(number, "steering", *(("boxes",) if number % 5 < 2 else ())) for number in range(1000)]
    found = Counter(item.task for item in epoch_order(samples, TASKS, 0, 0, "samples", 0, 9))
    assert found["boxes"] == pytest.approx(1000, abs=50)


@pytest.mark.parametrize(
    ("changes", "ranks", "warned"),
    [
        ({"network": {"norm": "batch"}}, 1, True),
        ({"network": {"norm": "batch"}, "stream": {"micro_batch": 1}}, 1, False),
        ({"network": {"norm": "batch"}, "mode": "symmetric"}, 1, False),
        ({"network": {"norm": "batch"}, "mode": "symmetric"}, 2, True),
        ({"network": {"norm": "group"}}, 2, False),
        ({"network": {"norm": "sample"}}, 2, False),
    ],
)
def test_batch_norm_is_warned_of_where_grouping_changes_results(changes, ranks, warned) -> None:
    assert bool(plan_warnings(build_config({"mode": "asymmetric"}, changes), ranks)) is warned


@pytest.mark.parametrize("mode", ["asymmetric", "symmetric", "single"])
def test_require_all_gives_every_regime_the_same_samples(mode: str):
    task = {"task": "depth"} if mode == "single" else {}
    config = build_config({"mode": mode, **task, "stream": {"require_all": True, "keep_labels": {"depth": 0.5}}})
    whole = {sample.key for sample in FULL}
    lacking = [ref(5000 + number, "depth", "steering") for number in range(9)]
    chosen, lines = choose_samples(replace(config, stream=replace(config.stream, keep_labels={})), [*FULL, *lacking])
    assert {sample.key for sample in chosen} == whole
    assert f"{len(FULL)} of {len(FULL) + 9} train samples have all four labels" in lines[0]
    some, _ = choose_samples(config, [*FULL, *lacking])
    assert {sample.key for sample in some} <= whole, "labels that are left out on purpose do not decide it"
    with pytest.raises(ValueError, match="has all four labels: leave out --require-all"):
        choose_samples(config, lacking)
