"""The build: plan, keep what is fresh, convert the rest in processes, write the manifest last.

An output folder may hold other files. This tool replaces and deletes only what it can tell to be its own: shards
whose index beside them says so, and its own unfinished files.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import Any

from preprocess.convert import Converter
from preprocess.plan import Plan, ShardPlan
from preprocess.rules import Rules
from shards.geometry import Calibration
from shards.manifest import LeftOut, Member, Sample, ShardIndex, build_manifest, read_manifest, write_manifest
from shards.schema import MANIFEST, PREVIOUS_MANIFEST, index_name
from shards.writer import PARTIAL, ShardWriter

_OWN_NAME = re.compile(r"^(?:train|val)-\d{6}\.(?:tar|index\.json)$")

Progress = Callable[[int], None]  # frames done


@dataclass(frozen=True)
class Work:
    """What a build has to do."""

    fresh: dict[str, ShardIndex]  # shards that are kept as they are
    stale: dict[str, str]  # shards to convert -> why
    surplus: tuple[str, ...]  # shards of an earlier plan, to be deleted
    finished: bool  # nothing: a manifest is there that says what a new one would


def survey(out: Path, plan: Plan) -> Work:
    """Compare a plan with what lies in the output folder. Raises ValueError where that holds foreign files."""
    fresh: dict[str, ShardIndex] = {}
    stale: dict[str, str] = {}
    for shard in plan.shards:
        state = _state(out, shard)
        if isinstance(state, ShardIndex):
            fresh[shard.name] = state
        else:
            stale[shard.name] = state
    planned = {shard.name for shard in plan.shards}
    surplus = tuple(name for name in _own_shards(out) if name not in planned)
    earlier = read_manifest(out) if (out / MANIFEST).exists() else None
    finished = not stale and not surplus and earlier == _manifest(plan, fresh)
    return Work(fresh, stale, surplus, finished)


def _state(out: Path, shard: ShardPlan) -> ShardIndex | str:
    """The shard's index where it is fresh, else why it is not."""
    tar, index_path = out / shard.name, out / index_name(shard.name)
    if not index_path.exists():
        if tar.exists():
            raise ValueError(f"{tar} is in the way, and was not written by this tool: choose another --out")
        return "new"
    index = ShardIndex.read(out, shard.name)
    if index.recipe != shard.recipe:
        return "rules or source files changed"
    if not tar.exists():
        return "missing"
    if tar.stat().st_size != index.bytes or _sha256(tar) != index.sha256:
        return "damaged"
    return index


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_shards(out: Path) -> Iterator[str]:
    for path in sorted(out.glob("*.index.json")):
        if _OWN_NAME.match(path.name):
            name = path.name.removesuffix(".index.json") + ".tar"
            try:
                ShardIndex.read(out, name)
            except ValueError:
                continue  # another program's file
            yield name


def build(out: Path, plan: Plan, work: Work, *, workers: int, progress: Progress) -> dict[str, Any]:
    """Do the work and write the manifest, which is returned.

    Raises ValueError with one line where it cannot be done; finished shards are kept then, and the next run goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    _remove_partials(out)
    if (out / MANIFEST).exists():
        (out / MANIFEST).replace(out / PREVIOUS_MANIFEST)
    indexes = dict(work.fresh)
    progress(sum(len(shard.frames) for shard in plan.shards if shard.name in indexes))
    todo = [shard for shard in plan.shards if shard.name in work.stale]
    for index in _run(out, plan, todo, workers, progress):
        indexes[index.shard] = index
    for name in work.surplus:
        (out / name).unlink(missing_ok=True)
        (out / index_name(name)).unlink()
    manifest = _manifest(plan, indexes)
    write_manifest(out, manifest)
    return manifest


def _manifest(plan: Plan, indexes: Mapping[str, ShardIndex]) -> dict[str, Any]:
    in_order = [indexes[shard.name] for shard in plan.shards]
    return build_manifest(in_order, plan.left_out, asdict(plan.rules), plan.fingerprints)


def _remove_partials(out: Path) -> None:
    for path in out.glob(f"*{PARTIAL}"):
        if _OWN_NAME.match(path.name.removesuffix(PARTIAL)) or path.name == MANIFEST + PARTIAL:
            path.unlink()


def _run(out: Path, plan: Plan, todo: list[ShardPlan], workers: int, progress: Progress) -> Iterator[ShardIndex]:
    """Write shards, in this process or in several; with several, in any order."""
    if workers == 1 or len(todo) <= 1:
        converter = Converter(plan.rules, plan.calibrations)
        for shard in todo:
            yield write_shard(out, shard, converter, plan.fingerprints, progress)
        return
    # forkserver: forking a process that has used OpenCV's threads can hang, and spawn imports everything anew.
    context = get_context("forkserver")
    shared = Shared(context.Event(), context.Value("q", 0))
    pool = ProcessPoolExecutor(
        min(workers, len(todo)), context, _start_worker, (shared, out, plan.rules, plan.calibrations, plan.fingerprints)
    )
    try:
        yield from _collect(pool, iter(todo), 2 * workers, shared, progress)
    except BrokenProcessPool as error:
        raise ValueError("a worker process died (out of memory?): run again with fewer --workers") from error
    finally:
        shared.stop.set()  # where all went well nobody is left to see it
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Shared:
    """What a build's processes share."""

    stop: Event  # set: leave the shard that is under way unfinished
    frames_done: Synchronized[int]


def _collect(
    pool: ProcessPoolExecutor, todo: Iterator[ShardPlan], ahead: int, shared: Shared, progress: Progress
) -> Iterator[ShardIndex]:
    """Keep a bounded number of shards under way, so that memory does not grow with the data set."""
    running: set[Future[ShardIndex]] = set()
    reported = 0
    while True:
        running |= {pool.submit(_write_in_worker, shard) for shard in islice(todo, ahead - len(running))}
        if not running:
            return
        done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
        frames = shared.frames_done.value
        progress(frames - reported)
        reported = frames
        for future in done:
            yield future.result()


class _Stopped(Exception):
    """Raised in a worker to leave its shard unfinished."""


_write_in_this_worker: Callable[[ShardPlan], ShardIndex] | None = None  # pixel maps are made once a process


def _start_worker(
    shared: Shared, out: Path, rules: Rules, calibrations: dict[str, Calibration], prints: dict[str, str]
) -> None:
    global _write_in_this_worker  # noqa: PLW0603 - a process pool's initialiser has nowhere else to put it
    signal(SIGINT, SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    converter = Converter(rules, calibrations)

    def count(frames: int) -> None:
        if shared.stop.is_set():
            raise _Stopped
        with shared.frames_done.get_lock():
            shared.frames_done.value += frames

    _write_in_this_worker = lambda shard: write_shard(out, shard, converter, prints, count)  # noqa: E731


def _write_in_worker(shard: ShardPlan) -> ShardIndex:
    assert _write_in_this_worker is not None, "the pool's initialiser sets it"
    return _write_in_this_worker(shard)


def write_shard(
    out: Path, shard: ShardPlan, converter: Converter, prints: dict[str, str], progress: Progress
) -> ShardIndex:
    """Convert a shard's frames and write it with its index; under their final names both are whole.

    The index comes first: it claims the name, and its checksum says whether the tar beside it is the one meant.
    """
    samples: list[Sample] = []
    left_out: list[LeftOut] = []
    absent: dict[str, Counter[str]] = {}
    with ShardWriter(out / shard.name) as writer:
        for frame, bus in shard.frames:
            converted = converter.convert(frame, bus, shard.split)
            left_out += converted.left_out
            for label, reason in converted.absent.items():
                absent.setdefault(label, Counter())[reason] += 1
            if converted.members:
                places = {name: writer.add(f"{frame.key}.{name}", data) for name, data in converted.members.items()}
                samples.append(Sample(frame.key, {name: Member(*place) for name, place in places.items()}))
            progress(1)
    counts = {label: dict(sorted(reasons.items())) for label, reasons in sorted(absent.items())}
    index = ShardIndex(
        shard=shard.name,
        split=shard.split,
        bytes=writer.bytes,
        sha256=writer.sha256,
        recipe=shard.recipe,
        fingerprints=prints,
        samples=tuple(samples),
        left_out=tuple(left_out),
        absent=counts,
    )
    index.write(out)
    writer.publish()
    return index
