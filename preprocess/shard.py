"""Writes one shard; every engine calls this, in this process, in a pool or on a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from preprocess.build_plan import PlannedFrame
from preprocess.bus import BusWindow
from preprocess.convert import NOTHING_REUSED, Converted, Converter, needed_signals
from preprocess.lock import Claim
from preprocess.reuse import Reuse, ReuseReader
from preprocess.rules import Rules
from preprocess.source import FileRef, file_of, locate
from preprocess.windows import NO_BUS_WINDOW, BusWindows
from shards.geometry import Calibration
from shards.manifest import LeftOut, Member, Sample, ShardIndex
from shards.writer import ShardWriter

Progress = Callable[[int], None]  # frames done


@dataclass(frozen=True)
class FrameJob:
    """A frame with everything that its conversion needs."""

    planned: PlannedFrame
    bus: BusWindow | None  # None: not read, since all that it decides is reused
    reuse: Reuse | None


@dataclass(frozen=True)
class ShardJob:
    """A shard to be written. Can be pickled, and holds no image."""

    name: str
    split: str
    recipe: str
    frames: tuple[FrameJob, ...]

    def describe(self) -> str:
        """The shard and its frames, for messages."""
        keys = [job.planned.frame.key for job in self.frames]
        return f"{self.name} (frames {keys[0]} to {keys[-1]})"


@dataclass(frozen=True)
class Context:
    """The settings that all shards of a build share."""

    out: Path
    claim: Claim  # the build's hold on `out`
    rules: Rules
    calibrations: dict[str, Calibration]
    fingerprints: dict[str, str]
    bus: dict[str, FileRef]  # by scene
    strict: bool  # stop at the first bad file


class ShardMaker:
    """Writes shards; one a process, since pixel maps are made once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._converter = Converter(context.rules, context.calibrations)
        self._earlier = ReuseReader(context.out)

    def write(self, job: ShardJob, progress: Progress) -> ShardIndex:
        """Convert the frames and write the shard with its index; under their final names both are whole.

        The index comes first: it claims the name, and its checksum says whether the tar beside it is the one meant.
        """
        claim = self.context.claim
        samples: list[Sample] = []
        left_out: list[LeftOut] = []
        absent: dict[str, Counter[str]] = {}
        with ShardWriter(self.context.out / job.name, claim.token) as writer:
            for frame_job in job.frames:
                converted = self._convert(frame_job, job.split)
                left_out += converted.left_out
                for label, reason in converted.absent.items():
                    absent.setdefault(label, Counter())[reason] += 1
                if converted.members:
                    samples.append(_add(writer, converted, frame_job.planned.sources))
                progress(1)
        self._earlier.close()  # earlier shards are deleted when nobody needs them
        index = ShardIndex(
            shard=job.name,
            split=job.split,
            bytes=writer.bytes,
            sha256=writer.sha256,
            recipe=job.recipe,
            fingerprints=self.context.fingerprints,
            samples=tuple(samples),
            left_out=tuple(left_out),
            absent={label: dict(sorted(reasons.items())) for label, reasons in sorted(absent.items())},
        )
        try:
            with claim.held():
                index.write(self.context.out, claim.token)
            with claim.held():
                writer.publish()
        except BaseException:
            writer.discard()
            raise
        return index

    def _convert(self, job: FrameJob, split: str) -> Converted:
        frame, reused, bus = job.planned.frame, self._earlier.read(job.reuse), job.bus
        if bus is None:
            # The earlier shard may be damaged: then everything is converted, and the bus file is needed after all.
            files, rules = self.context.bus, self.context.rules
            lost = reused is NOTHING_REUSED
            bus = BusWindows(files, needed_signals(rules), [frame]).of(frame) if lost else NO_BUS_WINDOW
        converted = self._converter.convert(frame, bus, split, reused)
        if self.context.strict and converted.left_out:
            first = converted.left_out[0]
            file = file_of(first.what, frame, self.context.bus)
            raise ValueError(
                f"bad {first.what} of {first.key}: {first.reason}: {locate([file])[file]} (--strict stops at the first)"
            )
        return converted


def _add(writer: ShardWriter, converted: Converted, sources: dict[str, str]) -> Sample:
    places = {name: Member(*writer.add(f"{converted.key}.{name}", data)) for name, data in converted.members.items()}
    return Sample(converted.key, places, sources, converted.measures)
