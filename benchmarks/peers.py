"""Others that feed a trainer, on the same samples: webdataset, LitData, MosaicML Streaming; see stream.py.

Each in its own format and as its documentation reads it, and, where it can hold bytes, with this project's members
and decoders in it. All read in the order that is stored, in the reading process or in a DataLoader's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from shards.codec import decode_image_into
from shards.reader import ShardSet
from shards.schema import TASKS
from train.data.batch import StoredShapes
from train.tasks import DEFINITIONS
from train.tasks.steering import last_angles

Members = dict[str, bytes]
Loaders = dict[str, Callable[[], Iterable[Any]]]  # by name, how to make one
MEMBER = {
    "image": "image.jpg",
    "segmentation": "segmentation.png",
    "depth": "depth.png",
    "boxes": "boxes.npy",
    "steering": "steering.json",
}
PROCESSES = (0, 2)


def with_our_decoders(members: dict[str, Any], shapes: StoredShapes) -> dict[str, NDArray[Any]]:
    """Members by name, or labels by name -> arrays."""
    image = np.empty(shapes.image, np.uint8)
    decode_image_into(bytes(members[MEMBER["image"]]), image)
    sample = {"image": image}
    for task in TASKS:
        sample[task] = np.empty(shapes.labels[task].shape, shapes.labels[task].dtype)
        DEFINITIONS[task].decode(bytes(members[MEMBER[task]]), sample[task])
    return sample


def as_labels(decoded: dict[str, Any]) -> dict[str, Any]:
    """The members that webdataset decoded, under our names."""
    return {label: decoded[name] for label, name in MEMBER.items() if label != "steering"} | {
        "steering": last_angles(decoded[MEMBER["steering"]])
    }


def loader(dataset: Any, batch: int, processes: int, collate: Any = default_collate) -> Iterable[Any]:
    """A DataLoader whose processes live on."""
    return DataLoader(dataset, batch, num_workers=processes, persistent_workers=processes > 0, collate_fn=collate)


def how(processes: int) -> str:
    return f"{processes} processes" if processes else "in the process"


def peers(shards: ShardSet, folder: Path, batch: int) -> Loaders:
    """The installed libraries: a name, and a function that makes its loader."""
    return (
        webdataset_loaders(shards, batch)
        | litdata_loaders(shards, folder, batch)
        | mosaic_loaders(shards, folder, batch)
    )


def webdataset_loaders(shards: ShardSet, batch: int) -> Loaders:
    """Tar by tar; `.decode("rgb8")`, which makes RGB of grey PNGs, and this project's decoders."""
    tars = [str(shards.folder / name) for name in shards.shard_names("train")]

    def decoded(processes: int) -> Iterable[Any]:
        dataset = webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8").map(as_labels)
        return loader(dataset, batch, processes)

    def ours(processes: int) -> Iterable[Any]:
        decoders = partial(with_our_decoders, shapes=StoredShapes.of(shards))
        return loader(webdataset.WebDataset(tars, shardshuffle=False).map(decoders), batch, processes)

    return named("webdataset, `.decode`", decoded) | named("webdataset, this project's decoders", ours)


def named(name: str, make: Callable[[int], Iterable[Any]]) -> Loaders:
    """One entry per number of processes."""
    return {f"{name}, {how(processes)}": partial(make, processes) for processes in PROCESSES}


def all_members(shards: ShardSet) -> list[Members]:
    """The encoded members of every sample."""
    return [{MEMBER[label]: shards.read(ref, name) for label, name in ref.labels.items()}
            for ref in shards.samples("train")]  # fmt: skip


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def lit_sample(members: Members) -> dict[str, Any]:
    """LitData keeps a JPEG as it is, and arrays raw."""
    maps = {label: np.asarray(opened(members[MEMBER[label]])) for label in ("segmentation", "depth")}
    return {
        "image": opened(members[MEMBER["image"]]),
        **maps,
        "boxes": np.load(io.BytesIO(members[MEMBER["boxes"]])),
        "steering": last_angles(json.loads(members[MEMBER["steering"]])),
    }


class Decoded:
    """A map-style dataset of encoded members, decoded by this project."""

    def __init__(self, encoded: Any, shapes: StoredShapes) -> None:
        self.encoded, self.shapes = encoded, shapes

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return with_our_decoders(self.encoded[position], self.shapes)


def litdata_loaders(shards: ShardSet, folder: Path, batch: int) -> Loaders:
    """Its own format: JPEG beside raw arrays, six times the bytes; and our members in it."""
    try:
        import litdata  # noqa: PLC0415 - where it is installed
    except ImportError:
        print("LitData: not installed")
        return {}
    own, bytes_of = folder / "litdata", folder / "litdata-members"
    for out, convert in ((own, lit_sample), (bytes_of, dict)):
        if not (out / "index.json").exists():
            litdata.optimize(fn=convert, inputs=all_members(shards), output_dir=str(out), chunk_bytes="64MB",
                             num_workers=1, verbose=False)  # fmt: skip

    def its_own(processes: int) -> Iterable[Any]:
        dataset = litdata.StreamingDataset(str(own))
        live_on = processes > 0
        return litdata.StreamingDataLoader(dataset, batch_size=batch, num_workers=processes, persistent_workers=live_on)

    def ours(processes: int) -> Iterable[Any]:
        return loader(Decoded(litdata.StreamingDataset(str(bytes_of)), StoredShapes.of(shards)), batch, processes)

    return named("LitData, JPEG and raw arrays", its_own) | named("LitData, this project's members and decoders", ours)


MDS_COLUMNS = {"image": "jpeg", "segmentation": "png", "depth": "png", "boxes": "ndarray", "steering": "json"}


def mds_sample(members: Members) -> dict[str, Any]:
    """MosaicML's shards keep JPEG and PNG as they are."""
    images = {label: opened(members[MEMBER[label]]) for label in ("image", "segmentation", "depth")}
    boxes = np.load(io.BytesIO(members[MEMBER["boxes"]]))
    return {**images, "boxes": boxes, "steering": json.loads(members[MEMBER["steering"]])}


def mds_collate(samples: list[dict[str, Any]]) -> Any:
    """PIL images to arrays."""
    return default_collate([
        {name: last_angles(value) if name == "steering" else np.asarray(value) for name, value in sample.items()}
        for sample in samples
    ])  # fmt: skip


def mosaic_loaders(shards: ShardSet, folder: Path, batch: int) -> Loaders:
    """Its own encodings, read back with PIL; and our members in it."""
    try:
        import streaming  # noqa: PLC0415 - where it is installed
    except ImportError:
        print("MosaicML Streaming: not installed")
        return {}
    own, bytes_of = folder / "mds", folder / "mds-members"
    byte_columns = dict.fromkeys(MEMBER.values(), "bytes")
    for out, columns, convert in ((own, MDS_COLUMNS, mds_sample), (bytes_of, byte_columns, dict)):
        if not (out / "index.json").exists():
            with streaming.MDSWriter(out=str(out), columns=columns) as writer:
                for members in all_members(shards):
                    writer.write(convert(members))

    def its_own(processes: int) -> Iterable[Any]:
        dataset = streaming.StreamingDataset(local=str(own), batch_size=batch, shuffle=False)
        return loader(dataset, batch, processes, mds_collate)

    def ours(processes: int) -> Iterable[Any]:
        dataset = streaming.StreamingDataset(local=str(bytes_of), batch_size=batch, shuffle=False)
        return loader(Decoded(dataset, StoredShapes.of(shards)), batch, processes)

    return named("MosaicML, own encodings", its_own) | named("MosaicML, this project's members and decoders", ours)
