"""The build: finished shards are kept, labels that still hold are reused, the rest is converted; the manifest is last.

An output folder may hold other files. This tool replaces and deletes only what it can tell to be its own: shards
whose index beside them says so, and its own unfinished files.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocess.build_plan import Plan, ShardPlan
from preprocess.cluster import run_dask
from preprocess.convert import files_of, needed_signals
from preprocess.engines import Report, run_here, run_pool
from preprocess.lock import Claim, living_tokens
from preprocess.reuse import (
    OLD,
    EarlierSample,
    Reuse,
    earlier_samples,
    own_index,
    own_indexes,
    remove_old,
    set_aside,
    stale_labels,
)
from preprocess.rules import rules_to_tables
from preprocess.shard import Context, FrameJob, Progress, ShardJob
from preprocess.windows import BusWindows
from shards.manifest import ShardIndex, build_manifest, find_record, write_manifest
from shards.schema import MANIFEST, PREVIOUS_MANIFEST, index_name
from shards.writer import PARTIAL

_PARTIAL_NAME = re.compile(
    rf"^(?:(?:train|val|test)-\d{{6}}\.(?:tar|index\.json)|manifest\.json)"
    rf"(?:\.\d+(?:\.\w+(?:-(?P<owner>\w*))?)?)?{re.escape(PARTIAL)}$"
)


_NEW = "new"
_MISSING = "missing"
_RECIPE_CHANGED = "rules, frames or source files changed"
_INDEX_LOST = "its index is missing or damaged"  # the manifest says that the shard is ours


@dataclass(frozen=True)
class Work:
    """The work of a build."""

    fresh: dict[str, ShardIndex]  # shards that are kept as they are
    stale: dict[str, str]  # shards to write -> why
    reused: dict[str, Reuse]  # key -> what is reused, for frames of stale shards
    conversions: dict[str, Counter[str]]  # label -> why it is converted -> frames; empty where all is reused
    shards_of: Counter[str]  # label -> stale shards in which some frame's is converted
    surplus: tuple[str, ...]  # shards of an earlier plan, to be deleted
    finished: bool  # nothing to do: a manifest is there that says what a new one would


def survey(out: Path, plan: Plan, names: Set[str] | None = None) -> Work:
    """Compare a plan, or only its shards of these names, with what lies in the output folder.

    Raises ValueError where it holds foreign files.
    """
    earlier = find_record(out / MANIFEST)
    records = [record for record in (earlier, find_record(out / PREVIOUS_MANIFEST)) if record is not None]
    indexes = own_indexes(out)
    recorded = {shard["name"]: shard["sha256"] for record in reversed(records) for shard in record.get("shards", ())}
    fresh: dict[str, ShardIndex] = {}
    stale: dict[str, str] = {}
    own = [shard for shard in plan.shards if names is None or shard.name in names]
    for shard in own:
        state = _state(out, shard, indexes.get(index_name(shard.name)), recorded.get(shard.name))
        if isinstance(state, ShardIndex):
            fresh[shard.name] = state
        else:
            stale[shard.name] = state
    planned = {index_name(shard.name) for shard in plan.shards}
    surplus = tuple(index.shard for name, index in indexes.items() if not name.endswith(OLD) and name not in planned)
    whole = len(fresh) == len(plan.shards)
    finished = whole and not surplus and earlier == _manifest(plan, fresh)
    # What an unfinished run had set aside comes first, so that what it wrote since wins.
    kept = earlier_samples(indexes[name] for name in sorted(indexes, key=lambda name: not name.endswith(OLD)))
    work = Work(fresh, stale, {}, {label: Counter() for label in plan.fingerprints}, Counter(), surplus, finished)
    for shard in plan.shards:
        if shard.name in stale:
            _survey_labels(shard, kept, plan, work)
    return work


def _state(out: Path, shard: ShardPlan, index: ShardIndex | None, recorded: str | None) -> ShardIndex | str:
    """The shard's index where it is fresh, else why it must be written; `recorded` is what the manifest says of it."""
    tar = out / shard.name
    if index is None and (in_the_way := _in_the_way(out, shard)) is not None:
        index = own_index(out / index_name(shard.name))  # another part may have written the shard since
        if index is None and recorded is not None and tar.is_file() and _sha256(tar) == recorded:
            return _INDEX_LOST
        if index is None and in_the_way.exists():
            raise ValueError(f"{in_the_way} is in the way, and was not written by this tool: choose another --out")
    if index is None:
        return _NEW
    if index.recipe != shard.recipe:
        return _RECIPE_CHANGED
    try:
        whole = tar.stat().st_size == index.bytes and _sha256(tar) == index.sha256
    except FileNotFoundError:
        return _MISSING
    return index if whole else "damaged"


def _in_the_way(out: Path, shard: ShardPlan) -> Path | None:
    return next((path for path in (out / shard.name, out / index_name(shard.name)) if path.exists()), None)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _survey_labels(shard: ShardPlan, kept: Mapping[str, EarlierSample], plan: Plan, work: Work) -> None:
    """Note for each frame of a stale shard which labels are converted, and why, and which are reused."""
    touched: set[str] = set()
    for planned in shard.frames:
        key = planned.frame.key
        why = stale_labels(planned, kept.get(key), plan.fingerprints)
        for label in plan.fingerprints:
            if label in why:
                work.conversions[label][why[label]] += 1
                touched.add(label)
        if key in kept:
            work.reused[key] = Reuse(kept[key], tuple(label for label in planned.sources if label not in why))
    work.shards_of.update(touched)


@dataclass(frozen=True)
class How:
    """Options for writing shards."""

    workers: int = 1  # processes on this machine
    dask: str | None = None  # or the address of a cluster
    strict: bool = False  # stop at the first bad file


def build(
    out: Path, claim: Claim, plan: Plan, work: Work, how: How, progress: Progress, report: Report
) -> dict[str, Any]:
    """Do the work and write the manifest, which is returned.

    Raises ValueError with one line where it cannot be done; finished shards are kept then, and the next run goes on.
    Before every change of a file it makes sure that the folder is still its own, and raises LostLock where it is not.
    """
    indexes = dict(work.fresh)
    readers = _readers(plan, work)
    for index in write_stale(out, claim, plan, work, how, progress, report):
        indexes[index.shard] = index
        for name in [name for name, shards in readers.items() if index.shard in shards]:
            readers[name].discard(index.shard)
            if not readers[name]:
                claim.check()
                remove_old(out, index_name(name))
    claim.check()
    if work.surplus:
        _withdraw_manifest(out)
    for name in work.surplus:
        claim.check()
        set_aside(out, name)
    for name in own_indexes(out):
        if name.endswith(OLD):
            claim.check()
            remove_old(out, name.removesuffix(OLD))
    manifest = _manifest(plan, indexes)
    with claim.held():
        write_manifest(out, manifest, claim.token)
    return manifest


def _readers(plan: Plan, work: Work) -> dict[str, set[str]]:
    """Earlier shard -> the shards to be written that reuse something of it."""
    readers: dict[str, set[str]] = {}
    for shard in plan.shards:
        for planned in shard.frames:
            if planned.frame.key in work.reused:
                readers.setdefault(work.reused[planned.frame.key].earlier.shard, set()).add(shard.name)
    return readers


def write_stale(
    out: Path,
    claim: Claim,
    plan: Plan,
    work: Work,
    how: How,
    progress: Progress,
    report: Report,
) -> Iterator[ShardIndex]:
    """Write the stale shards, and yield their indexes."""
    todo = [shard for shard in plan.shards if shard.name in work.stale]
    claim.check()
    _remove_partials(out)
    if todo:
        _withdraw_manifest(out)
    for shard in todo:
        if _holds_what_is_reused(out, shard, work.stale[shard.name]):
            claim.check()
            set_aside(out, shard.name)
    progress(sum(len(shard.frames) for shard in plan.shards if shard.name in work.fresh))
    context = Context(out.resolve(), claim, plan.rules, plan.calibrations, plan.fingerprints, plan.bus, how.strict)
    jobs = _jobs(plan, todo, work)
    if how.dask is not None:
        yield from run_dask(context, jobs, how.dask, progress, report)
    elif how.workers == 1 or len(todo) <= 1:
        yield from run_here(context, jobs, progress)
    else:
        yield from run_pool(context, jobs, min(how.workers, len(todo)), progress, report)


def _holds_what_is_reused(out: Path, shard: ShardPlan, why: str) -> bool:
    """True where a stale shard must be set aside before it is replaced, since samples of it may be reused.

    Of a shard that was not there, or has no index, nothing can be reused. Another part may have written it since.
    """
    if why == _MISSING:
        return (out / (shard.name + OLD)).exists()  # a kill came between its renaming and its index's
    if why == _RECIPE_CHANGED:
        index = own_index(out / index_name(shard.name))
        return index is not None and index.recipe != shard.recipe
    return why not in (_NEW, _INDEX_LOST)


def _withdraw_manifest(out: Path) -> None:
    """Say that the set is not finished, before the first of its shards changes."""
    with contextlib.suppress(FileNotFoundError):  # there was none, or another part has done it
        (out / MANIFEST).replace(out / PREVIOUS_MANIFEST)


def _jobs(plan: Plan, todo: list[ShardPlan], work: Work) -> Iterator[ShardJob]:
    """Shards with their bus windows: each scene's bus file is parsed once, when the first shard needs it."""
    frames_of = [planned.frame for shard in todo for planned in shard.frames]
    windows = BusWindows(plan.bus, needed_signals(plan.rules), frames_of)
    for shard in todo:
        frames = []
        for planned in shard.frames:
            reuse = work.reused.get(planned.frame.key)
            from_bus = {label for label in planned.sources if "bus" in files_of(label)}
            unread = reuse is not None and from_bus <= set(reuse.labels)
            frames.append(FrameJob(planned, None if unread else windows.of(planned.frame), reuse))
        yield ShardJob(shard.name, shard.split, shard.recipe, tuple(frames))


def _manifest(plan: Plan, indexes: Mapping[str, ShardIndex]) -> dict[str, Any]:
    in_order = [indexes[shard.name] for shard in plan.shards]
    return build_manifest(in_order, plan.left_out, rules_to_tables(plan.rules), plan.fingerprints, plan.data_set)


def _remove_partials(out: Path) -> None:
    """Remove the unfinished files of builds that hold no lock any more, or whose process is gone."""
    paths = list(out.glob(f"*{PARTIAL}"))  # first: who starts later has its lock before its files
    living = living_tokens(out)
    for path in paths:
        match = _PARTIAL_NAME.match(path.name)
        if match and match["owner"] not in living:
            path.unlink(missing_ok=True)
