"""What a batch holds, and how it is read."""

from __future__ import annotations

import contextlib
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.codec import encode_image, encode_npy
from shards.png import encode_grey_png
from shards.reader import ShardSet
from shards.schema import TASKS
from tests.tiny_shards import ALL, grid_of, steering_of, write_tiny_shards
from train.data import batch as batch_room
from train.data.batch import BufferPool
from train.data.order import SampleRequest, cut_batches, epoch_order, group_reads, label_reads
from train.data.stream import Batch, Stream, worker_count
from train.stop import Stopped
from train.tasks.steering import last_angles as steering_target


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
        "steering": [0],
        "segmentation": [0, 1],
        "boxes": [0, 1],
        "depth": [0, 1],
    }
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
    list(Stream(tiny, samples).batches([[SampleRequest(0, ("depth",))], [SampleRequest(0, ("boxes",), image=False)]]))
    assert read == ["image.jpg", "depth.png", "boxes.npy"]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("order", ["items", "samples"])
def test_workers_change_nothing_and_live_on(tiny, order, workers):
    samples = tiny.samples("train")
    alone, helped = Stream(tiny, samples), Stream(tiny, samples, workers=workers)
    for epoch in range(2):
        reads = group_reads(epoch_order(samples, TASKS, 0, epoch, order), together=order == "samples")
        batches = cut_batches(reads, 3)
        pairs = list(zip(alone.batches(batches), helped.batches(iter(batches)), strict=True))
        assert len(pairs) == len(batches)
        for ours, theirs in pairs:
            assert same(ours, theirs)
    helped.close()


def same(ours: Batch, theirs: Batch) -> bool:
    assert ours.keys == theirs.keys
    assert list(ours.labels) == list(theirs.labels)
    return all(torch.equal(*pair) for pair in zip(ours.tensors, theirs.tensors, strict=True))


def test_a_sample_has_one_row_in_a_batch_whatever_reads_name_it(tiny):
    reads = [SampleRequest(2, ("boxes",)), SampleRequest(0, ("depth", "boxes")), SampleRequest(2, ("depth",))]
    (batch,) = Stream(tiny, tiny.samples("train")).batches([reads])
    assert [int(key[-9:]) for key in batch.keys] == [2, 0]
    assert {task: rows.tolist() for task, rows in batch.rows.items()} == {"boxes": [0, 1], "depth": [1, 0]}
    assert torch.equal(batch.labels["boxes"], torch.from_numpy(np.stack([grid_of(2), grid_of(0)])))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_the_batch_in_front_has_is_not_decoded_again(tiny, monkeypatch, workers):
    decoded: list[int] = []
    original = batch_room.decode_image_into
    monkeypatch.setattr(
        batch_room, "decode_image_into", lambda data, out: decoded.append(len(data)) or original(data, out)
    )
    stream = Stream(tiny, tiny.samples("train"), workers=workers)
    reads = [
        [SampleRequest(0, ("depth",)), SampleRequest(2, ("boxes",))],
        [SampleRequest(2, ("depth",))],
        [SampleRequest(0, ("boxes",))],
    ]
    first, second, third = ((batch.keys, batch.images.clone()) for batch in stream.batches(reads))
    stream.close()
    assert len(decoded) == 3, "0 and 2, and 0 again: it was not in the batch in front"
    assert torch.equal(second[1][0], first[1][1])
    assert torch.equal(third[1][0], first[1][0])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_are_begun_two_ahead_or_two_reads_a_thread(tiny, workers):
    taken: list[int] = []

    def plan() -> Iterator[list[SampleRequest]]:
        for position in range(12):
            taken.append(position)
            yield [SampleRequest(0, ("boxes",), image=False)]

    stream = Stream(tiny, tiny.samples("train"), workers=workers)
    batches = stream.batches(plan())
    next(batches)
    assert len(taken) == 1 + 2 * workers
    assert len(list(batches)) == 11
    stream.close()


def test_memory_comes_back_only_once_nothing_looks_at_it():
    memory, shape = BufferPool(pinned=False), (2, 1024, 1024)
    first = memory.take(shape, np.uint8)
    place, part = first.data_ptr(), first[1:].permute(1, 2, 0)
    del first
    second = memory.take(shape, np.uint8)
    second.fill_(1)
    part.fill_(2)
    assert second.unique().tolist() == [1], "the view still holds the first"
    del part
    assert memory.take((1, 1024, 1024), np.uint16).data_ptr() == place


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_member_is_one_line_before_its_batch(tmp_path: Path, workers: int):
    folder = write_tiny_shards(tmp_path / "shards", train=((ALL, ALL),), val=())
    tiny = ShardSet(folder)
    good, bad = tiny.samples("train")
    place = bad.sample.members["depth.png"]
    with (folder / bad.shard).open("r+b") as file:
        file.seek(place.offset + 40)
        file.write(b"\xff\xff")
    stream = Stream(tiny, [good, bad], workers=workers)
    batches = stream.batches(
        [
            [SampleRequest(0, ("depth",))],
            [SampleRequest(0, ("boxes",)), SampleRequest(1, ("depth",))],
            [SampleRequest(0, ("depth",))],
        ]
    )
    assert next(batches).keys == (good.key,)
    with pytest.raises(ValueError, match=rf"{bad.shard} fails its checksum at {bad.key}.depth.png") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    assert len(list(stream.batches([[SampleRequest(0, ("depth",))]]))) == 1, "the stream itself goes on"
    stream.close()


@pytest.mark.parametrize(
    ("member", "data", "rule"),
    [
        ("image.jpg", encode_image(np.zeros((128, 128, 3), np.uint8), "jpg", 95), "must be a JPEG of"),
        ("depth.png", encode_grey_png(np.zeros((128, 128), np.uint8)), r"must be \(256, 256\) uint8, got \(128, 128\)"),
        ("depth.png", encode_grey_png(np.zeros((256, 256), np.uint16)), "uint8, got .* uint16"),
        ("boxes.npy", encode_npy(np.zeros((8, 8, 10, 18), np.float32)), r"got \(8, 8, 10, 18\) float32"),
        ("steering.json", b"{}", "at least 10 angles_deg"),
    ],
)
def test_a_member_that_is_not_what_the_set_holds_is_named(tiny, monkeypatch, member, data, rule):
    original = ShardSet.read
    monkeypatch.setattr(ShardSet, "read", lambda self, ref, name: data if name == member else original(self, ref, name))
    (ref, *_) = samples = tiny.samples("train")
    with pytest.raises(ValueError, match=f"^{ref.shard}, {ref.key}: .*{rule}"):
        list(Stream(tiny, samples).batches([[SampleRequest(0, TASKS)]]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stop_comes_before_the_next_batch(tiny, workers):
    asked: list[bool] = []
    stream = Stream(tiny, tiny.samples("train"), workers=workers, stopping=lambda: bool(asked))
    batches = stream.batches([[SampleRequest(0, ("boxes",))], [SampleRequest(0, ("boxes",))]])
    next(batches)
    asked.append(True)
    with pytest.raises(Stopped):
        next(batches)
    stream.close()


@pytest.mark.parametrize("end", ["close", "error", "abandoned"])
def test_no_thread_is_left(tiny, end):
    before = set(threading.enumerate())
    stream = Stream(tiny, tiny.samples("train"), workers=3)
    reads = [
        [SampleRequest(0, TASKS)],
        [SampleRequest(0, ("steering",)), SampleRequest(1, ("steering",))],
    ]  # sample 1 has no steering
    batches = stream.batches(reads * 4)
    next(batches)
    assert len(set(threading.enumerate()) - before) > 0
    if end == "error":
        with pytest.raises(ValueError, match="has no steering: run a2d2-prep verify"):
            next(batches)
    elif end == "abandoned":
        del batches
    stream.close()
    assert not set(threading.enumerate()) - before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are listed on Linux alone")
def test_many_threads_read_through_few_open_files(tmp_path: Path):
    layout = ((ALL,),) * 6
    tiny = ShardSet(write_tiny_shards(tmp_path / "shards", train=layout, val=()), open_files=2)
    samples = tiny.samples("train")
    stream = Stream(tiny, samples, workers=4)
    for batch in stream.batches([[SampleRequest(position % 6, ("boxes",), image=False)] for position in range(60)]):
        assert torch.equal(batch.labels["boxes"][0], torch.from_numpy(grid_of(int(batch.keys[0][-9:]))))
        assert len(open_links(tmp_path)) <= 2 + 4, "those kept, and one that each thread may still read from"
    stream.close()
    assert len(open_links(tmp_path)) <= 2
    tiny.close()
    assert not open_links(tmp_path)


def open_links(folder: Path) -> list[Path]:
    """The files under a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found.append(descriptor.readlink())
    return [link for link in found if folder in link.parents]


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
