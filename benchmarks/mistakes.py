"""The share of wrong files that the conversion notices: `python -m benchmarks.mistakes [--files 2000]`.

Files of a few synthetic frames are changed as in benchmarks/wrong_files.py, and each is converted in the place of the
right one. Caught: the label is absent with a reason. Counted: what failed a comparison was dropped, and the sample
says how much. Harmless: the label is byte for byte the right one. Taken: all else. A set of only such files is odd
where the comparisons over the whole set say so.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.prepare import table
from benchmarks.wrong_files import BOXES, BUS, CLASSES, LIDAR, Files, Wrong
from preprocess.absent import Absent
from preprocess.bus import BusWindow, bus_windows, read_timestamp_us
from preprocess.convert import CONVERTERS, needed_signals
from preprocess.image import PixelMaps, make_pixel_maps
from preprocess.label import LabelInput, LabelMember
from preprocess.rules import ChecksRule, GeometryRule, ImageRule, Rules
from preprocess.source import FileRef, Frame, find_source
from shards.geometry import FRONT_CENTER
from shards.oddities import measure_sample, measure_set, odd_lines
from shards.png import decode_rgb_png
from synth.dataset import write_dataset

RULES = Rules(image=ImageRule(size=256), geometry=GeometryRule(undistort=False))
KINDS: dict[str, dict[str, Wrong]] = {"steering": BUS, "depth": LIDAR, "segmentation": CLASSES, "boxes": BOXES}
FRAMES = 12
_COMPARISONS = {"other_time", "behind", "unequal_distance", "other_pixel", "unknown_class"}
OUTCOMES = ("caught", "counted", "harmless", "taken")


@cache
def pixel_maps(hw: tuple[int, int]) -> PixelMaps:
    """Nothing is undistorted: colours, not places, are what is compared."""
    return make_pixel_maps(None, hw[1], hw[0], RULES.image.size)


def load(root: Path) -> list[tuple[Frame, Files]]:
    """The frames under a root that have every label, with their files decoded."""
    source = find_source(root, cameras=["frontcenter"], skip=root / "none")
    records = {}
    for file in source.bus.values():
        records |= {record["frame_name"]: record for record in orjson.loads(file.read())}
    whole = []
    for frame in source.frames:
        record = records.get(f"{frame.stamp}_camera_{frame.camera}_{frame.frame_id}.json")
        if record is None or {"segmentation", "depth", "boxes"} - frame.files.keys():
            continue
        with np.load(io.BytesIO(frame.files["depth"].read())) as stored:
            lidar = dict(stored)
        boxes = orjson.loads(frame.files["boxes"].read())
        if "row" in lidar and len(boxes) > 1 and "steering_angle_calculated" in record["flexray"]:
            classes = decode_rgb_png(frame.files["segmentation"].read())
            whole.append((frame, Files(record, lidar, classes, boxes)))
    return whole


def convert(label: str, frame: Frame, data: bytes | None, record: dict[str, Any]) -> LabelMember:
    """A frame's label, made from other bytes than its own where there are some."""
    bus = orjson.dumps([record])
    with tempfile.NamedTemporaryFile() as file:
        if data is not None and label == "steering":
            bus = data
        elif data is not None:
            file.write(data)
            file.flush()
            frame = replace(frame, files={**frame.files, label: FileRef(file.name, 0, len(data), ())})
        window: BusWindow = bus_windows(bus, needed_signals(RULES), [frame], lambda _: None)[frame.key]
        time_us = read_timestamp_us(frame.files["camera_json"].read())
        hw = (1208, 1920)
        given = LabelInput(frame, window, time_us, hw, lambda: pixel_maps(hw), RULES, FRONT_CENTER.undistorted)
        return CONVERTERS[label].convert(given)


def outcome(label: str, frame: Frame, data: bytes, files: Files, right: LabelMember) -> tuple[str, str, dict[str, Any]]:
    """One of OUTCOMES, the reason or "", and the sample's measures."""
    meta: dict[str, Any] = {"scene": frame.scene, "timestamp_us": files.record["timestamp"]}
    try:
        made = convert(label, frame, data, files.record)
    except Absent as reason:
        meta[label] = {"absent": str(reason), **reason.section}
        return "caught", str(reason), measure_sample(meta, RULES.image.size**2)
    except ValueError as error:
        return "caught", f"bad: {error}"[:60], {}
    meta[label] = made.section
    measures = measure_sample(meta, RULES.image.size**2)
    if made.data == right.data:
        return "harmless", "", measures
    said = _COMPARISONS & made.section.get("dropped", {}).keys() or "unlike_3d" in made.section
    return ("counted" if said else "taken"), "", measures


def whole_frames(root: Path) -> tuple[list[tuple[Frame, Files]], list[dict[str, LabelMember]]]:
    """The frames that have every label, and their right labels."""
    frames, right = [], []
    for frame, files in load(root):
        try:
            labels = {label: convert(label, frame, None, files.record) for label in KINDS}
        except Absent:
            continue  # one of the defects that the synthetic set has on purpose
        frames.append((frame, files))
        right.append(labels)
    return frames, right


def run(root: Path, files: int, seed: int = 0) -> Iterator[tuple[str, str, Counter[str], bool]]:
    """(label, mistake, outcomes, whether a set of such files is odd), over so many wrong files in all."""
    scene, right = whole_frames(root)
    found_files = [found for _, found in scene]
    mistakes = [(label, name, wrong) for label, kinds in KINDS.items() for name, wrong in kinds.items()]
    outcomes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    samples: dict[tuple[str, str], list[tuple[str, dict[str, Any], dict[str, int]]]] = defaultdict(list)
    for number in range(files):
        label, name, wrong = mistakes[number % len(mistakes)]
        place = number // len(mistakes) % len(scene)
        data = wrong(np.random.default_rng([seed, number]), found_files, place)
        result, _, measures = outcome(label, scene[place][0], data, found_files[place], right[place][label])
        outcomes[label, name][result] += 1
        samples[label, name].append((f"{scene[place][0].key}", measures, {} if result == "caught" else {label: number}))
    for (label, name), counted in outcomes.items():
        yield label, name, counted, bool(odd_lines(measure_set(samples[label, name]), asdict(ChecksRule())))


def main() -> None:
    """Draw the frames, spoil them, and print a row for each mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="wrong files in all")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), scenes=1, frames=FRAMES, seed=0, workers=1)
        rows = list(run(Path(folder), arguments.files))
    print(table(("label", "mistake", *OUTCOMES, "a set of them"), [
        (label, name, *(counted[each] for each in OUTCOMES), "odd" if odd else "") for label, name, counted, odd in rows
    ]))  # fmt: skip
    totals = sum((counted for _, _, counted, _ in rows), Counter[str]())
    print(f"\n{totals.total()} files: " + ", ".join(f"{each} {totals[each]}" for each in OUTCOMES))


if __name__ == "__main__":
    main()
