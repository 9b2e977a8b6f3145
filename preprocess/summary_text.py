"""Lines for people about a build: the work it plans, the set it leaves, and the census of a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from preprocess.build import Work
from preprocess.build_plan import Plan
from preprocess.rules import ImageRule, Rules, change_lines, rule_changes, rules_to_tables
from preprocess.source import FileRef, file_of, locate
from shards.manifest import read_record
from shards.schema import LABELS, MANIFEST, PREVIOUS_MANIFEST, SPLITS, TASKS
from shards.summary import Summary, steering_histogram

_LISTED = 10  # bad files named in the closing lines; the manifest names all frames that they spoil


def rules_line(given: Rules | None, rules: Rules, out: Path) -> str:
    """A line that names the source of the rules: --rules, the set in `out`, or the defaults."""
    if given is not None:
        return "rules: as --rules says"
    changes = rule_changes(rules_to_tables(Rules()), rules_to_tables(rules))
    if not changes:
        return "rules: the defaults"
    return f"rules: those of {out}, with {', '.join(change_lines(changes))}; --rules default asks for the defaults"


def next_line(rules: Rules, out: Path) -> str:
    """The command that trains on a set; samples below 1024 px suit a small network, which a CPU can train."""
    command = f"next: amtl-train --mode asymmetric --shards {out}"
    if rules.image.size == ImageRule.size:
        return f"{command} (the default network needs a GPU)"
    return f"{command} --backbone resnet18 --width 0.25 (a small network; leave the last two options out on a GPU)"


def work_lines(plan: Plan, work: Work, out: Path) -> Iterator[str]:
    """The work of a build, per shard and per label, with the reasons."""
    changes = _changes_since(plan, out)
    if changes:
        yield f"rules changed: {', '.join(changes)}"
    if any(change.startswith(("shard_samples", "split.")) for change in changes):
        yield f"split or shard size changed: all {len(plan.shards)} shards are stale"
    frames = {shard.name: len(shard.frames) for shard in plan.shards}
    for why, shards in Counter(work.stale.values()).items():
        count = sum(frames[name] for name, reason in work.stale.items() if reason == why)
        yield f"to write: {shards} shards, {count} frames: {why}"
    for label, reasons in work.conversions.items():
        if reasons:
            parts = ", ".join(f"{why} ({count} frames)" for why, count in reasons.items())
            yield f"  {label}: {work.shards_of[label]} shards: {parts}"
    reused = [label for label, reasons in work.conversions.items() if work.stale and not reasons]
    if reused:
        yield f"  carried over, byte for byte: {', '.join(reused)}"
    if work.fresh:
        yield f"to keep: {len(work.fresh)} shards, {sum(frames[name] for name in work.fresh)} frames"
    if work.surplus:
        yield f"to delete from {out}: {len(work.surplus)} shards of an earlier build"


def _changes_since(plan: Plan, out: Path) -> list[str]:
    """The values in which the rules differ from those of the set that is there, or was there before a stop."""
    for name in (MANIFEST, PREVIOUS_MANIFEST):
        try:
            return change_lines(rule_changes(read_record(out / name)["rules"], rules_to_tables(plan.rules)))
        except (ValueError, KeyError):
            continue
    return []


def manifest_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The samples, labels and bytes of a finished set, per split."""
    for split, total in manifest["totals"].items():
        labels = ", ".join(
            f"{task} {total['labels'].get(task, 0)}" for task in TASKS if task in manifest["fingerprints"]
        )
        size = f"{total['bytes'] / 1e6:.1f} MB"
        yield f"{split}: {total['samples']} samples in {total['shards']} shards, {size} ({labels})"


def left_out_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Labels that are absent and frames that were left out, with their reasons and numbers."""
    for label, reasons in manifest["absent"].items():
        yield f"{label} absent: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
    frames = Counter(entry["reason"] for entry in manifest["left_out"] if entry["what"] == "frame" and not entry["bad"])
    for reason, count in frames.items():
        yield f"frames left out: {count}: {reason}"


def bad_lines(manifest: Mapping[str, Any], plan: Plan | None = None) -> Iterator[str]:
    """Files that could not be read as what they are; with the plan, whose source is at hand, where they lie."""
    bad = [entry for entry in manifest["left_out"] if entry["bad"]]
    files = {} if plan is None else _files_of(bad, plan)
    frames: dict[tuple[str, str, FileRef | None], list[str]] = {}
    for entry in bad:
        frames.setdefault((entry["what"], entry["reason"], files.get((entry["key"], entry["what"]))), []).append(
            entry["key"]
        )
    listed = list(frames.items())[:_LISTED]
    places = locate(file for (_, _, file), _ in listed if file is not None)
    for (what, reason, file), keys in listed:
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        yield f"bad {what} of {keys[0]}{others}: {reason}" + (f": {places[file]}" if file is not None else "")
    rest = len(bad) - sum(len(keys) for _, keys in listed)
    if rest:
        yield f"... and {rest} more, all in manifest.json"


def _files_of(bad: Sequence[Mapping[str, Any]], plan: Plan) -> dict[tuple[str, str], FileRef]:
    """(key, what) of entries -> the file."""
    keys = {entry["key"] for entry in bad}
    frames = {
        planned.frame.key: planned.frame
        for shard in plan.shards
        for planned in shard.frames
        if planned.frame.key in keys
    }
    return {(entry["key"], entry["what"]): file_of(entry["what"], frames[entry["key"]], plan.bus) for entry in bad}


def count_bad_frames(manifest: Mapping[str, Any]) -> int:
    """Frames with at least one bad file."""
    return len({entry["key"] for entry in manifest["left_out"] if entry["bad"]})


def summary_lines(summary: Summary, size_px: int) -> Iterator[str]:
    """The census of a set as tables."""
    yield f"{'split':<8}{'samples':>9}" + "".join(f"{label:>14}" for label in LABELS)
    for split in (split for split in SPLITS if split != "test" or summary.samples[split]):
        counts = "".join(f"{summary.labels[split, label]:>14}" for label in LABELS)
        yield f"{split:<8}{summary.samples[split]:>9}{counts}"
    if summary.val_timed:
        hint = "; split.gap_s or split.by = 'scene' keeps them apart" if summary.val_near_train else ""
        yield f"val frames with a train frame within 1 s: {summary.val_near_train} of {summary.val_timed}{hint}"
    yield from _class_lines(summary)
    yield from _box_lines(summary)
    if summary.depth_samples:
        coverage = summary.depth_pixels / (summary.depth_samples * size_px**2)
        yield f"\ndepth: {coverage:.2%} of pixels have a return"
    yield from _steering_lines(summary.angles_deg)
    if summary.windows_timed:
        share = summary.windows_later / summary.windows_timed
        yield f"last 10 values all later than the image: {share:.1%} of {summary.windows_timed} windows"


def _class_lines(summary: Summary) -> Iterator[str]:
    pixels = sum(summary.class_pixels.values()) + summary.ignored_pixels
    if not pixels:
        return
    yield f"\n{'class':<24}{'pixels':>9}{'frames':>9}"
    for name, count in summary.class_pixels.most_common():
        yield f"{name:<24}{count / pixels:>9.2%}{summary.class_frames[name]:>9}"
    yield f"{'(ignored)':<24}{summary.ignored_pixels / pixels:>9.2%}"


def _box_lines(summary: Summary) -> Iterator[str]:
    if not summary.boxes and not summary.boxes_dropped:
        return
    yield f"\n{'boxes of class':<24}{'boxes':>9}"
    for name, count in summary.boxes.most_common():
        yield f"{name:<24}{count:>9}"
    dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.boxes_dropped.items())) or "none"
    yield f"most in one cell: {summary.most_boxes_in_a_cell}; dropped: {dropped}"


def _steering_lines(angles_deg: Sequence[float]) -> Iterator[str]:
    if angles_deg:
        yield f"\n{'steering, deg':<24}{'frames':>9}   (negative = left)"
        for bounds, count in steering_histogram(list(angles_deg)):
            yield f"{bounds:<24}{count:>9}"
