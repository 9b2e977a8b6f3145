"""A small set of shards, written in a second: eight samples of 256 px, some of which lack labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.classes import SEGMENTATION_CLASSES
from shards.codec import encode_image, encode_json, encode_npy
from shards.manifest import Member, Sample, ShardIndex, build_manifest, write_manifest
from shards.png import encode_grey_png
from shards.schema import shard_name
from shards.writer import ShardWriter

SIZE = 256
MAX_M = 123.0
RULES = {
    "image": {"size": SIZE, "format": "jpg", "quality": 95},
    "depth": {"max_m": MAX_M, "bits": 8},
    "boxes": {"grid": 8, "slots": 10},
}
ALL = ("steering", "segmentation", "boxes", "depth")
TRAIN = (  # the labels of each train sample; two shards of three
    (ALL, ("segmentation", "boxes", "depth"), ALL),
    (("segmentation",), ALL, ("steering", "depth")),
)
VAL = ((ALL, ("steering", "segmentation"), ALL),)
Layout = tuple[tuple[tuple[str, ...], ...], ...]


def write_tiny_shards(folder: Path, train: Layout = TRAIN, val: Layout = VAL, rules: dict = RULES) -> Path:
    """A finished set: each inner tuple is a sample's labels, each outer one a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    indexes, frame = [], 0
    for split, layout in (("train", train), ("val", val)):
        for number, shard in enumerate(layout):
            samples = []
            name = shard_name(split, number)
            with ShardWriter(folder / name) as writer:
                for labels in shard:
                    key = f"20180807145028_frontcenter_{frame:09d}"
                    members = {
                        member: Member(*writer.add(f"{key}.{member}", data))
                        for member, data in members_of(frame, labels).items()
                    }
                    samples.append(Sample(key, members, {}))
                    frame += 1
            index = ShardIndex(name, split, writer.bytes, writer.sha256, "", {}, tuple(samples), (), {})
            index.write(folder)
            writer.publish()
            indexes.append(index)
    write_manifest(folder, build_manifest(indexes, [], rules, {}))
    return folder


def members_of(frame: int, labels: tuple[str, ...]) -> dict[str, bytes]:
    """A bright band at a height that all labels follow, in noise."""
    generator = np.random.default_rng(frame)
    edge = 96 + 16 * (frame % 5)
    image = generator.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    image[edge:] += 120
    classes = np.full((SIZE, SIZE), 3, np.uint8)
    classes[edge:] = len(SEGMENTATION_CLASSES) - 1
    classes[:4] = 255
    depth = np.zeros((SIZE, SIZE), np.uint8)
    depth[edge::4, ::4] = np.linspace(200, 10, len(range(edge, SIZE, 4)), dtype=np.uint8)[:, None]
    members = {"image.jpg": encode_image(image, "jpg", 95)}
    written = {
        "segmentation": ("segmentation.png", encode_grey_png(classes)),
        "depth": ("depth.png", encode_grey_png(depth)),
        "boxes": ("boxes.npy", encode_npy(grid_of(frame))),
        "steering": ("steering.json", encode_json(steering_of(frame))),
    }
    members.update(written[label] for label in labels)
    members["meta.json"] = encode_json({"key": frame})
    return members


def steering_of(frame: int) -> dict:
    """A window of 21 values around 10 degrees a frame, left for odd ones."""
    base = 10.0 * frame * (-1) ** frame
    return {"timestamps_us": list(range(21)), "angles_deg": [base + 0.5 * i for i in range(21)], "unit": "deg"}


def grid_of(frame: int) -> np.ndarray:
    """One car in cell (4, frame % 8), and a pedestrian in (5, 2) of even frames."""
    grid = np.zeros((8, 8, 10, 19), np.float32)
    grid[4, frame % 8, 0, :5] = (1, 0.5, 0.5, 0.2, 0.1)
    grid[4, frame % 8, 0, 5] = 1
    if frame % 2 == 0:
        grid[5, 2, 0, :5] = (1, 0.25, 0.5, 0.05, 0.2)
        grid[5, 2, 0, 6] = 1
    return grid
