"""The format of a sample on disk: names of labels, members, shards and files.

A shard is a tar. Its members are named `<key>.<member>`; the members of one sample are neighbours. A label
that a frame does not have is an absent member: absent, never zeros.
"""

from __future__ import annotations

from typing import Literal, get_args

FORMAT_VERSION = 1

Task = Literal["steering", "segmentation", "boxes", "depth"]
TASKS: tuple[str, ...] = get_args(Task)  # the order of an image's items under --order samples
LABELS = ("image", *TASKS)  # everything with a conversion rule and a fingerprint of its own
SPLITS = ("train", "val", "test")  # a set has test where its rules ask for it

MEMBERS: dict[str, tuple[str, ...]] = {  # label -> the member names it may have, one of them in any one set
    "image": ("image.jpg", "image.png"),
    "segmentation": ("segmentation.png", "segmentation.npy"),
    "depth": ("depth.png",),
    "boxes": ("boxes.npy",),
    "steering": ("steering.json",),
}
META = "meta.json"
TIMESTAMP = "timestamp"  # not a label, but a part of meta.json with source files of its own
MISMATCH = (
    "mismatch"  # key in a section of meta.json: the label failed a comparison with the image's time, place or unit
)
LABEL_OF_MEMBER = {member: label for label, members in MEMBERS.items() for member in members}

MANIFEST = "manifest.json"
PREVIOUS_MANIFEST = "manifest.previous.json"

SampleSize = Literal[256, 512, 1024]  # px, the sides of a square sample
GRID = 8  # cells of boxes.npy along a side, unless the rules say otherwise
SLOTS = 10  # boxes of a cell, likewise
STEERING_STEPS = 10  # the last values of the window, which the steering head predicts
BOX_VALUES = 5  # objectness, x, y, w, h; then one value a class


def sample_key(stamp: str, camera: str, frame_id: str) -> str:
    """`20180807145028`, `frontcenter`, `000006882` -> the sample's `__key__`."""
    return f"{stamp}_{camera}_{frame_id}"


def shard_name(split: str, index: int) -> str:
    """`train`, 0 -> `train-000000.tar`."""
    return f"{split}-{index:06d}.tar"


def index_name(shard: str) -> str:
    """`train-000000.tar` -> `train-000000.index.json`, which lies beside it."""
    return shard.removesuffix(".tar") + ".index.json"
