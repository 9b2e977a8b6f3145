"""The seam: what is written is what is read, by our reader and by stock webdataset."""

from __future__ import annotations

import gc
import io
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import orjson
import pytest
import webdataset

from shards.codec import (
    decode_depth,
    decode_image,
    decode_npy_into,
    decode_segmentation,
    encode_image,
    encode_npy,
)
from shards.png import encode_grey_png
from shards.reader import ShardSet
from shards.writer import ShardWriter


def test_shards_are_plain_tars_with_neighbouring_members(shards: Path) -> None:
    with tarfile.open(shards / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
        (0, 0, 0, "", 0o644)
    }
    keys = [member.name.split(".", 1)[0] for member in members]
    assert list(dict.fromkeys(keys)) == sorted(set(keys))
    assert sum(one != other for one, other in pairwise(keys)) == len(set(keys)) - 1


@pytest.fixture
def collected() -> Iterator[None]:
    """webdataset 1.0 leaves its shards to the garbage collector, which warns of each: let it be here."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_webdataset_reads_every_member_with_no_code_of_ours(shards: Path, shard_set: ShardSet) -> None:
    pattern = str(shards / "train-{000000..000002}.tar")
    read = list(webdataset.WebDataset(pattern, shardshuffle=False))
    refs = shard_set.samples("train")
    assert [sample["__key__"] for sample in read] == [ref.key for ref in refs]
    for sample, ref in zip(read, refs, strict=True):
        assert {name for name in sample if not name.startswith("__")} == set(ref.sample.members)
        mine = shard_set.load(ref, ref.labels)
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(sample["image.jpg"], np.uint8), 1), cv2.COLOR_BGR2RGB)
        assert np.abs(image.astype(int) - mine["image"]).max() <= 4  # two JPEG decoders
        classes = cv2.imdecode(np.frombuffer(sample["segmentation.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        assert (classes.shape, classes.dtype) == ((256, 256), np.uint8)
        np.testing.assert_array_equal(classes, mine["segmentation"])
        assert ((classes < 38) | (classes == 255)).all()
        if "depth.png" in sample:
            depth = cv2.imdecode(np.frombuffer(sample["depth.png"], np.uint8), cv2.IMREAD_UNCHANGED)
            assert (depth.shape, depth.dtype) == ((256, 256), np.uint8)
            np.testing.assert_allclose(depth * (123 / 255), mine["depth"], rtol=1e-6)
        if "boxes.npy" in sample:
            boxes = np.load(io.BytesIO(sample["boxes.npy"]))
            assert (boxes.shape, boxes.dtype) == ((8, 8, 10, 19), np.float32)
            assert set(np.unique(boxes[..., [0, *range(5, 19)]])) <= {0.0, 1.0}
            assert (boxes[..., 1:5] >= 0).all()
            assert (boxes[..., 1:5] <= 1).all()
            np.testing.assert_array_equal(boxes[..., 5:].sum(axis=-1), boxes[..., 0])
        if "steering.json" in sample:
            steering = orjson.loads(sample["steering.json"])
            assert steering["unit"] == "deg"
            assert len(steering["angles_deg"]) == len(steering["timestamps_us"]) == 21
        meta = orjson.loads(sample["meta.json"])
        assert (meta["key"], meta["split"], meta["original_hw"]) == (ref.key, "train", [1208, 1920])


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("collected")
def test_webdatasets_own_pipeline_decodes_what_it_can(shards: Path) -> None:
    dataset = webdataset.WebDataset(str(shards / "val-000000.tar"), shardshuffle=False).decode("rgb8")
    sample = next(iter(dataset))
    assert sample["image.jpg"].shape == (256, 256, 3)
    assert sample["meta.json"]["split"] == "val"


def test_a_pickled_reader_reads(shard_set: ShardSet) -> None:
    ref = shard_set.samples("val")[0]
    before = shard_set.read(ref, "meta.json")
    copy = pickle.loads(pickle.dumps(shard_set))
    assert copy.read(ref, "meta.json") == before
    copy.close()


def test_a_flipped_byte_is_noticed_where_it_is_read(shards: Path, tmp_path: Path) -> None:
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = ShardSet(tmp_path)
    ref = damaged.samples("train")[0]
    place = ref.sample.members["segmentation.png"]
    with (tmp_path / ref.shard).open("r+b") as file:
        file.seek(place.offset + 50)
        file.write(b"\x00\xff\x00\xff")
    assert damaged.meta(ref)["key"] == ref.key
    with pytest.raises(ValueError, match=rf"train-000000.tar fails its checksum at {ref.key}.segmentation.png"):
        damaged.load(ref, ["segmentation"])
    damaged.close()


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "train-000000.tar") as writer:
            writer.add("a.txt", b"a")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert not list(tmp_path.iterdir())


RGB = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def test_codecs_go_round() -> None:
    np.testing.assert_array_equal(decode_image(encode_image(RGB, "png", 95)), RGB)
    smooth = cv2.GaussianBlur(RGB, (0, 0), 5)
    assert np.abs(decode_image(encode_image(smooth, "jpg", 95)).astype(int) - smooth).mean() < 2
    classes = RGB[..., 0]
    np.testing.assert_array_equal(decode_segmentation(encode_grey_png(classes)), classes)
    np.testing.assert_array_equal(decode_segmentation(encode_npy(classes)), classes)
    np.testing.assert_allclose(decode_depth(encode_grey_png(np.full((2, 2), 255, np.uint8)), 123.0), 123, rtol=1e-6)
    np.testing.assert_allclose(decode_depth(encode_grey_png(np.full((2, 2), 2688, np.uint16)), 123.0), 10.5)


def test_npy_with_our_header_is_not_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).random((8, 8, 10, 19), dtype=np.float32)
    out, foreign = np.empty_like(array), io.BytesIO()
    np.lib.format.write_array(foreign, array, version=(2, 0))
    decode_npy_into(foreign.getvalue(), out)
    np.testing.assert_array_equal(out, array)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("NumPy evaluates the header"))
    out.fill(0)
    decode_npy_into(encode_npy(array), out)
    np.testing.assert_array_equal(out, array)


def test_preparation_never_loads_torch() -> None:
    """Not through webdataset either, which imports it: `a2d2-prep` starts in a fraction of the time."""
    code = "import sys, preprocess.cli.commands; print({'torch', 'webdataset', 'torchvision'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
