"""The val split through a network: what is summed, and the same by camera and scene."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.made_up import CONTEXT, objective_of
from tests.tiny_shards import write_tiny_shards
from tests.toy import ToyNet
from train.data.grouping import GROUPINGS, WHOLE, rows_of_groups
from train.data.stream import Stream
from train.engine.baselines import score_baselines, score_groups
from train.engine.evaluate import Evaluation, evaluate
from train.engine.objective import Objective


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(write_tiny_shards(tmp_path_factory.mktemp("evaluate") / "shards"))


@pytest.fixture
def objective() -> Objective:
    torch.manual_seed(0)
    return objective_of(ToyNet())


def odd_and_even(key: str) -> str:
    return "odd" if int(key.rsplit("_", 1)[1]) % 2 else "even"


def plain(result: Evaluation) -> dict:
    return result.record({}, {})


def test_a_camera_and_a_scene_of_a_key():
    key = "20180807145028_frontcenter_000006882"
    assert GROUPINGS["camera"](key) == "frontcenter"
    assert GROUPINGS["scene"](key) == "20180807_145028"


def test_rows_of_groups():
    assert rows_of_groups(["a_1", "a_2"], None) == {WHOLE: slice(None)}
    assert rows_of_groups(["a_1", "a_2", "a_3"], odd_and_even) == {WHOLE: slice(None), "odd": [0, 2], "even": [1]}


def test_groups_in_one_pass_equal_a_pass_for_each(shards: ShardSet, objective: Objective):
    samples = [*shards.samples("train"), *shards.samples("val")]
    whole = evaluate(objective, Stream(shards, samples), TASKS, 4, grouping=odd_and_even)
    assert list(whole.groups) == ["even", "odd"]
    assert replace(whole, groups={}) == evaluate(objective, Stream(shards, samples), TASKS, 4)
    for name, group in whole.groups.items():
        of_group = Stream(shards, [ref for ref in samples if odd_and_even(ref.key) == name])
        alone = evaluate(objective, of_group, TASKS, 1)
        assert group.samples == alone.samples < whole.samples
        assert group.labels == alone.labels
        assert group.losses == pytest.approx(alone.losses, rel=1e-5)
        for task in TASKS:
            assert group.scores[task] == pytest.approx(alone.scores[task], rel=1e-5)
            assert [part["count"] for part in group.parts[task]] == [part["count"] for part in alone.parts[task]]


def test_constants_of_groups_come_from_all_of_train(shards: ShardSet):
    train, val = (Stream(shards, shards.samples(split)) for split in ("train", "val"))
    groups = score_groups(train, val, TASKS, CONTEXT, odd_and_even)
    assert groups[WHOLE] == score_baselines(train, val, TASKS, CONTEXT)
    assert set(groups) == {WHOLE, "odd", "even"}
    whats = [list(found["steering"]) for found in groups.values()]
    assert whats[0] == whats[1] == whats[2]
    errors = [found["steering"]["always 0 deg"]["scores"]["MAE"] for found in groups.values()]
    assert min(errors[1:]) < errors[0] < max(errors[1:])


def test_parts_of_a_record_add_up(shards: ShardSet, objective: Objective):
    stream = Stream(shards, shards.samples("val"))
    record = plain(evaluate(objective, stream, TASKS, 2))
    assert list(record["parts"]) == list(TASKS)
    values = sum(row["count"] for row in record["parts"]["steering"])
    assert values == 10 * record["val_labels"]["steering"]
    assert objective.network.training


def test_the_best_and_the_worst_samples_of_a_task_are_named(shards: ShardSet, objective: Objective):
    samples = [*shards.samples("train"), *shards.samples("val")]
    found = evaluate(objective, Stream(shards, samples), TASKS, 4).extremes["depth"]
    alone = {ref.key: evaluate(objective, Stream(shards, [ref]), ["depth"], 1).losses["depth"]
             for ref in samples if "depth" in ref.labels}  # fmt: skip
    order = sorted(alone, key=lambda key: alone[key])
    assert len(order) > 4
    assert [key for key, _ in found["best"]] == order[:2]
    assert [key for key, _ in found["worst"]] == order[:-3:-1]
    assert dict(found["worst"])[order[-1]] == pytest.approx(alone[order[-1]], rel=1e-5)


def test_of_few_samples_none_is_both_best_and_worst(shards: ShardSet, objective: Objective):
    samples = [ref for ref in shards.samples("val") if "depth" in ref.labels]
    for count, best in ((1, 0), (2, 0), (3, 1)):
        chosen = (samples + [ref for ref in shards.samples("train") if "depth" in ref.labels])[:count]
        found = evaluate(objective, Stream(shards, chosen), ["depth"], 4).extremes["depth"]
        assert (len(found["worst"]), len(found["best"])) == (min(2, count), best)
