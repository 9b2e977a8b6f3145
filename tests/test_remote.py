"""Shards behind a pipe are the shards of the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.tiny_shards import ALL, write_tiny_shards
from tests.toy import ToyNet
from train.cli.train import main
from train.data import remote
from train.data.order import cut_batches, epoch_order, group_reads
from train.data.remote import RemoteShards, is_remote
from train.data.stream import Stream
from train.engine import run
from train.run_folder import metrics_lines

LAYOUT = ((ALL, ALL),) * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("remote") / "shards", train=LAYOUT)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that were fetched."""
    names: list[str] = []
    original = RemoteShards._fetch_shard
    monkeypatch.setattr(RemoteShards, "_fetch_shard", lambda self, name: names.append(name) or original(self, name))
    return names


def pipe(folder: Path, shards: str = "train-{000000..000003}.tar") -> str:
    return f"pipe:cat {folder}/{shards}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("shards", False), ("/data/shards:1", False), ("pipe:cat x.tar", True), ("https://host/train-000000.tar", True)],
)
def test_what_is_no_folder(text: str, expected: bool):
    assert is_remote(text) == expected


@pytest.mark.parametrize("workers", [0, 3])
def test_the_same_batches_come_and_a_shard_is_fetched_once_a_block(tiny: Path, fetched: list[str], workers: int):
    here, there = ShardSet(tiny), RemoteShards(pipe(tiny), held=2)
    assert there.sha256 == here.sha256
    assert there.samples("val") == here.samples("val")
    samples = here.samples("train")
    assert there.samples("train") == samples
    batches = cut_batches(group_reads(epoch_order(samples, TASKS, 0, 0, shuffle_shards=2), together=False), 2)
    stream = Stream(there, samples, workers=workers)
    for ours, theirs in zip(stream.batches(batches), Stream(here, samples).batches(batches), strict=True):
        assert ours.keys == theirs.keys
        assert all(torch.equal(*pair) for pair in zip(ours.tensors, theirs.tensors, strict=True))
    stream.close()
    assert set(fetched) == {ref.shard for ref in samples}
    if not workers:  # threads that read ahead into the next block may push out what others still need
        assert len(fetched) == 4
    there.close()


def test_a_pattern_takes_some_of_the_shards(tiny: Path):
    there = RemoteShards(pipe(tiny, "train-{000001..000002}.tar"), held=1)
    assert {ref.shard for ref in there.samples("train")} == {"train-000001.tar", "train-000002.tar"}
    assert [ref.shard for ref in there.samples("val")] == ["val-000000.tar"] * 3
    assert there.sha256 != ShardSet(tiny).sha256, "another data set: no run goes on with it"
    assert there.url_of("val-000000.tar") == f"pipe:cat {tiny}/val-000000.tar"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pipe:cat {folder}/shards.tar", "must name one shard, like train-000000.tar"),
        (
            "pipe:cat {folder}/train-{{000000..000009}}.tar",
            "names train-000004.tar, which is not in the set's manifest",
        ),
        ("pipe:cat {folder}/none/train-000000.tar 2>/dev/null", "none/manifest.json .*cannot be read: .*exit 1"),
        ("pipe:cat {folder}/train-{{000000..000003.tar", "must have as many"),
        ("nonesuch://host/train-000000.tar", "nonesuch://host/manifest.json cannot be read"),
    ],
    ids=["no shard", "too many", "no manifest", "braces", "scheme"],
)
def test_patterns_that_lead_nowhere(tiny: Path, pattern: str, message: str):
    with pytest.raises(ValueError, match=message):
        RemoteShards(pattern.format(folder=tiny), held=1)


def test_a_shard_cut_short_or_altered_is_named(tmp_path: Path):
    folder = write_tiny_shards(tmp_path / "shards", train=((ALL,), (ALL,)), val=())
    there = RemoteShards(pipe(folder, "train-{000000..000001}.tar"), held=2)
    first, second = there.samples("train")
    with (folder / first.shard).open("r+b") as file:
        file.seek(first.sample.members["boxes.npy"].offset + 200)
        file.write(b"\1\2\3")
    os.truncate(folder / second.shard, 5000)
    with pytest.raises(ValueError, match=rf"pipe:cat .*/{first.shard} fails its checksum at {first.key}.boxes.npy"):
        there.read(first, "boxes.npy")
    assert there.read(first, "steering.json")
    with pytest.raises(ValueError, match=rf"pipe:cat .*/{second.shard} must have \d+ bytes, got 5000"):
        there.read(second, "steering.json")


def test_training_says_what_it_costs_and_validates(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "build_network", lambda config, facts: ToyNet(config.tasks))
    monkeypatch.setattr(remote, "HELD", 2)

    def train(shards: object, name: str, *more: str) -> tuple[str, list[dict]]:
        task = ("--mode", "single", "--task", "steering", "--network", "mtl")
        options = (*task, "--epochs", "1", "--weights", "none", "--device", "cpu", *more)
        result = CliRunner().invoke(main, [*options, "--shards", str(shards), "--out", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
        return result.output, metrics_lines(tmp_path / name / "metrics.jsonl")

    said, lines = train(pipe(tiny), "there")
    assert "shuffled within 2 shards only, which are held in memory" in said
    _, same = train(tiny, "here", "--shuffle-shards", "2")
    assert [line.get("val_losses") for line in lines] == [line.get("val_losses") for line in same]
