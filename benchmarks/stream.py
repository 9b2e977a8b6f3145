"""The cost of feeding the trainer, beside other libraries: `python -m benchmarks.stream FOLDER`, in the checkout.

Samples with all four labels, 1024 px, in batches of 8. Every contender takes the same samples in every round, one
after the other, so that a busy machine disturbs all alike; each has a process of its own, and its CPU time is that of
this process and of those that read for it. FOLDER keeps the synthetic data set, which is drawn where it is not there,
and the peers' formats of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks.peers import how, peers
from shards.codec import decode_image_into
from shards.manifest import Member, Sample, ShardIndex, build_manifest, write_manifest
from shards.reader import SampleRef, ShardSet
from shards.schema import META, TASKS, shard_name
from shards.writer import ShardWriter
from train.config import AugmentConfig
from train.data.batch import Batch, StoredShapes
from train.data.order import cut_batches, epoch_order, group_reads
from train.data.stream import Stream
from train.tasks import DEFINITIONS

BATCH = 8
MERE = "decoding the same members in one thread, discarded"
TURN = "turn: "
Pass = Callable[[], object]


class Contender:
    """A way to read all samples once, in a process of its own that waits for its turns."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.stream", str(folder), "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cpu: list[float] = []  # seconds, a value per round
        self.wall: list[float] = []

    def take_turn(self) -> None:
        """One round."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("go", file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        while line and not line.startswith(TURN):
            line = self.process.stdout.readline()  # what a library says
        if not line:
            raise SystemExit(f"{self.name}: its process ended with {self.process.wait()}")
        cpu, wall = line.removeprefix(TURN).split()
        self.cpu.append(float(cpu))
        self.wall.append(float(wall))


def serve(run: Pass) -> None:
    """Take a turn whenever asked, and say what it took."""
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), cpu_s()
        run()
        print(TURN, cpu_s() - cpu, time.perf_counter() - wall, flush=True)
    os._exit(0)  # threads of some libraries would not end


def cpu_s() -> float:
    """CPU seconds of this process and of the processes that it started and that are still there."""
    return time.process_time() + sum(cpu_of(child.pid) for child in active_children() if child.pid)


def cpu_of(process: int) -> float:
    """CPU seconds of a process, in steps of 10 ms (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def a2d2_prep(*arguments: object) -> None:
    """The command, in a process of its own."""
    code = "from preprocess.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)


def complete_set(folder: Path) -> ShardSet:
    """The samples with all labels of a synthetic set, in shards of their own."""
    out = folder / "complete"
    if not (out / "manifest.json").exists():
        root, drawn = folder / "a2d2", folder / "shards"
        if not root.exists():
            a2d2_prep("synth", root, "--scenes", 3, "--frames", 48)
        a2d2_prep("shard", "--root", root, "--out", drawn)
        write_complete(ShardSet(drawn), out)
    return ShardSet(out)


def write_complete(drawn: ShardSet, out: Path) -> None:
    """The bytes as they are, 32 samples a shard."""
    refs = [ref for split in ("train", "val") for ref in drawn.samples(split) if set(TASKS) <= set(ref.labels)]
    out.mkdir(parents=True)
    indexes = []
    for number, first in enumerate(range(0, len(refs), 32)):
        name, samples = shard_name("train", number), []
        with ShardWriter(out / name) as writer:
            for ref in refs[first : first + 32]:
                places = {
                    member: Member(*writer.add(f"{ref.key}.{member}", drawn.read(ref, member)))
                    for member in [*ref.labels.values(), META]
                }
                samples.append(Sample(ref.key, places, {}))
        index = ShardIndex(name, "train", writer.bytes, writer.sha256, "", {}, tuple(samples), (), {})
        index.write(out)
        writer.publish()
        indexes.append(index)
    write_manifest(out, build_manifest(indexes, [], drawn.rules, {}))


def mere_decoding(shards: ShardSet, samples: list[SampleRef]) -> Pass:
    """Our decoders on bytes that are in memory, into the same arrays again and again: nothing can be less."""
    shapes = StoredShapes.of(shards)
    image = np.empty(shapes.image, np.uint8)
    labels = {task: np.empty(shapes.labels[task].shape, shapes.labels[task].dtype) for task in TASKS}
    held = [{label: shards.read(ref, name) for label, name in ref.labels.items()} for ref in samples]

    def run() -> None:
        for members in held:
            decode_image_into(members["image"], image)
            for task, label in labels.items():
                DEFINITIONS[task].decode(members[task], label)

    return run


class AsStored(Stream):
    """Depth stays as it is stored, as with all the others: on a GPU it becomes metres there."""

    def _delivered(self, batch: Batch) -> Batch:
        return batch


def our_stream(
    shards: ShardSet, samples: list[SampleRef], threads: int, kind: type[Stream] = Stream, *, augment: bool = False
) -> Pass:
    """An epoch in its shuffled order, as training reads it."""
    stream = kind(shards, samples, workers=threads, augment=AugmentConfig(on=augment))

    def run() -> None:
        reads = group_reads(epoch_order(samples, TASKS, 0, 0, "samples"), together=True)
        drain(stream.batches(cut_batches(reads, BATCH)), len(samples))

    return run


class ByProcesses:
    """The same reader and decoders as a map-style dataset, for a DataLoader's processes."""

    def __init__(self, shards: ShardSet, samples: list[SampleRef]) -> None:
        self.shards, self.samples, self.shapes = shards, samples, StoredShapes.of(shards)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Any]:
        ref = self.samples[position]
        image = np.empty(self.shapes.image, np.uint8)
        decode_image_into(self.shards.read(ref, ref.labels["image"]), image)
        sample = {"image": image}
        for task in TASKS:
            sample[task] = np.empty(self.shapes.labels[task].shape, self.shapes.labels[task].dtype)
            DEFINITIONS[task].decode(self.shards.read(ref, ref.labels[task]), sample[task])
        return sample


def by_processes(shards: ShardSet, samples: list[SampleRef], processes: int) -> Pass:
    """A DataLoader whose processes live on from pass to pass."""
    loader = DataLoader(ByProcesses(shards, samples), BATCH, num_workers=processes, persistent_workers=processes > 0)
    return lambda: drain(iter(loader), len(samples))


def drain(batches: Iterator[Any], expected: int) -> None:
    """Take every batch; each holds images first or under `image`, or is a batch of ours."""
    seen = 0
    for batch in batches:
        seen += len(batch["image"]) if isinstance(batch, dict) else len(batch.keys)
    assert seen == expected, f"{seen} samples came, {expected} are there"


def contenders(shards: ShardSet, folder: Path) -> dict[str, Callable[[], Pass]]:
    """Every way that is installed, and how to make it ready."""
    samples = shards.samples("train")
    found: dict[str, Callable[[], Pass]] = {MERE: partial(mere_decoding, shards, samples)}
    for threads in (0, 1, 2):
        found[f"this project, {threads} threads"] = partial(our_stream, shards, samples, threads)
        found[f"this project, {threads} threads, depth as stored"] = partial(
            our_stream, shards, samples, threads, AsStored
        )
    found["this project, 1 thread, --augment"] = partial(our_stream, shards, samples, 1, augment=True)
    for processes in (0, 2):
        name = f"this project's reader and decoders in a DataLoader, {how(processes)}"
        found[name] = partial(by_processes, shards, samples, processes)
    for name, batches in peers(shards, folder, BATCH).items():
        found[name] = partial(passes_of, batches, len(samples))
    return found


def passes_of(made: Callable[[], Iterable[Any]], expected: int) -> Pass:
    """Passes over a loader."""
    loader = made()
    return lambda: drain(iter(loader), expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="keeps the data; made where it is not there")
    parser.add_argument("--rounds", type=int, default=7, help="passes of each that count [7]")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shards = complete_set(options.folder)
    ways = contenders(shards, options.folder)
    if options.serve:
        serve(ways[options.serve]())
    found = [Contender(name, options.folder) for name in ways]
    for _ in range(options.rounds + 1):
        for contender in found:
            contender.take_turn()
    for contender in found:
        contender.process.kill()
    report(found, len(shards.samples("train")), options.rounds)


def report(found: Sequence[Contender], samples: int, rounds: int) -> None:
    """A Markdown table; the first round warmed up."""
    print(f"\n{samples} samples, batches of {BATCH}, medians of {rounds} rounds\n")
    print(
        "| read by | CPU, ms a sample | times mere decoding (lowest and highest round) | samples/s |\n|---|---|---|---|"
    )
    (mere,) = (contender.cpu for contender in found if contender.name == MERE)
    for contender in found:
        ratios = [one / least for one, least in zip(contender.cpu[1:], mere[1:], strict=True)]
        print(f"| {contender.name} | {1e3 * median(contender.cpu[1:]) / samples:.2f} | {median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}) | {samples / median(contender.wall[1:]):.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
