"""What a batch holds, and how it is read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch

from shards.reader import ShardSet
from shards.schema import TASKS
from tests.tiny_shards import ALL, grid_of, steering_of, write_tiny_shards
from train.order import Read, cut_batches, epoch_order, group_reads, label_reads
from train.stream import Stopped, Stream, steering_target, worker_count


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet(write_tiny_shards(tmp_path_factory.mktemp("data") / "shards"))


def test_a_batch_holds_the_labels_in_natural_units(tiny):
    samples = tiny.samples("train")[:2]
    (batch,) = Stream(tiny, samples).batches([label_reads(samples, TASKS, image=True)])
    assert batch.keys == tuple(ref.key for ref in samples)
    assert batch.images.shape == (2, 256, 256, 3)
    assert batch.images.dtype == torch.uint8
    assert {task: rows.tolist() for task, rows in batch.rows.items()} == {
        "steering": [0], "segmentation": [0, 1], "boxes": [0, 1], "depth": [0, 1],
    }  # fmt: skip
    assert batch.items == 7
    assert batch.labels["steering"].tolist() == [steering_of(0)["angles_deg"][-10:]]
    assert torch.equal(batch.labels["boxes"][1], torch.from_numpy(grid_of(1)))
    assert set(batch.labels["segmentation"].unique().tolist()) == {3, 37, 255}
    assert batch.labels["depth"].max().item() == pytest.approx(200 * 123 / 255, rel=1e-6)
    assert batch.labels["depth"][0, :96].max() == 0


def test_only_what_an_item_needs_is_decoded(tiny, monkeypatch):
    read = []
    original = ShardSet.read
    monkeypatch.setattr(ShardSet, "read", lambda self, ref, member: read.append(member) or original(self, ref, member))
    samples = tiny.samples("train")
    list(Stream(tiny, samples).batches([[Read(0, ("depth",))], [Read(0, ("boxes",), image=False)]]))
    assert read == ["image.jpg", "depth.png", "boxes.npy"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on fork beside torch's threads
def test_workers_change_nothing_and_live_on(tiny):
    samples = tiny.samples("train")
    alone, helped = Stream(tiny, samples), Stream(tiny, samples, workers=2)
    for epoch in range(2):
        batches = cut_batches(group_reads(epoch_order(samples, TASKS, 0, epoch), together=False), 3)
        pairs = list(zip(alone.batches(batches), helped.batches(batches), strict=True))
        assert len(pairs) == len(batches)
        for ours, theirs in pairs:
            assert ours.keys == theirs.keys
            assert torch.equal(ours.images, theirs.images)
            assert all(torch.equal(label, theirs.labels[task]) for task, label in ours.labels.items())
    helped.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_member_is_one_line_with_its_sample(tmp_path: Path, workers: int):
    folder = write_tiny_shards(tmp_path / "shards", train=((ALL,),), val=())
    tiny = ShardSet(folder)
    (ref,) = tiny.samples("train")
    place = ref.sample.members["depth.png"]
    with (folder / ref.shard).open("r+b") as file:
        file.seek(place.offset + 40)
        file.write(b"\xff\xff")
    stream = Stream(tiny, [ref], workers=workers)
    with pytest.raises(ValueError, match=rf"fails its checksum at {ref.key}.depth.png") as caught:
        list(stream.batches([[Read(0, ("depth",))]]))
    assert "\n" not in str(caught.value)
    stream.close()


def test_a_stop_comes_before_the_next_batch(tiny):
    asked: list[bool] = []
    stream = Stream(tiny, tiny.samples("train"), stopping=lambda: bool(asked))
    batches = stream.batches([[Read(0, ("boxes",))], [Read(0, ("boxes",))]])
    next(batches)
    asked.append(True)
    with pytest.raises(Stopped):
        next(batches)


@pytest.mark.parametrize("document", [{}, [], {"angles_deg": [1.0] * 9}, {"angles_deg": "x" * 20}], ids=repr)
def test_a_steering_window_must_have_ten_values(document):
    with pytest.raises(ValueError, match="at least 10 angles_deg"):
        steering_target(document)


@pytest.mark.parametrize(("asked", "device", "expected"), [(-1, "cpu", 0), (3, "cpu", 3), (0, "cuda", 0)])
def test_worker_count(asked, device, expected):
    assert worker_count(asked, torch.device(device)) == expected


def test_shards_hold_what_stock_tar_reads(tiny):
    with tarfile.open(fileobj=io.BytesIO((tiny.folder / "val-000000.tar").read_bytes())) as tar:
        assert len(tar.getnames()) == 6 + 4 + 6
