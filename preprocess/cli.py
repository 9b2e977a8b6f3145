"""`a2d2-prep`: the commands, their messages and their exit codes."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from PIL import Image
from tqdm import tqdm

from preprocess.build import Work, build, survey
from preprocess.plan import Plan, make_plan
from preprocess.rules import fingerprints, load_rules, rules_to_toml
from preprocess.source import find_source
from preprocess.synth.dataset import write_dataset
from shards.classes import BOX_ID
from shards.draw import Box, panel
from shards.geometry import CAMERAS, FRONT_CENTER
from shards.manifest import read_manifest
from shards.reader import SampleRef, ShardSet
from shards.schema import LABELS, SPLITS, TASKS
from shards.summary import Summary, steering_histogram, summarise
from shards.verify import verify

EXIT_STOPPED = 75
_PLAIN_EVERY_S = 10.0


class Progress:
    """A bar on a terminal, a line every 10 s in a log."""

    def __init__(self, total: int, what: str) -> None:
        self._bar = tqdm(total=total, unit=what, disable=not sys.stderr.isatty(), smoothing=0.05)
        self._what, self._total, self._done = what, total, 0
        self._start = self._said = time.monotonic()

    def __call__(self, done: int) -> None:
        """So many more are done."""
        self._bar.update(done)
        self._done += done
        now = time.monotonic()
        if self._bar.disable and now - self._said >= _PLAIN_EVERY_S:
            self._said = now
            rate = self._done / (now - self._start)
            click.echo(f"{self._done}/{self._total} {self._what} ({rate:.1f}/s)", err=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class _Group(click.Group):
    """One clear line and the contract's exit code, never a traceback, for what users and their files do wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            click.echo(f"a2d2-prep: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("a2d2-prep: stopped; finished shards are kept, the same command goes on", err=True)
            ctx.exit(EXIT_STOPPED)


def _interrupt(_: int, __: object) -> NoReturn:
    raise KeyboardInterrupt


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """A2D2's tars to WebDataset shards that a multi-task network can learn from."""


def rules_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--rules`, checked where it is given: a wrong rule is wrong usage."""

    def parse(_: click.Context, __: click.Parameter, value: str) -> Any:
        try:
            return load_rules(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error

    option = click.option(
        "--rules", default="default", callback=parse, metavar="FILE.toml|thesis", help="Conversion rules."
    )
    return functools.wraps(command)(option(command))


_SHARDS = click.argument("shards", type=click.Path(exists=True, file_okay=False, path_type=Path))
_WORKERS = click.option(
    "--workers", type=click.IntRange(min=1), default=lambda: len(os.sched_getaffinity(0)), show_default="all cores",
    help="Processes.",
)  # fmt: skip


@main.command()
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Tars and extracted folders, mixed.")  # fmt: skip
@click.option("--out", default="shards", type=click.Path(file_okay=False, path_type=Path), help="Where the shards go.")
@rules_option
@click.option("--camera", "cameras", multiple=True, type=click.Choice([*CAMERAS.values(), "all"]),
              default=["front_center"], help="May repeat.")  # fmt: skip
@_WORKERS
@click.option("--max-bad", type=click.FloatRange(0, 1), default=0.01,
              help="Share of frames with a bad file above which the exit code is 1.")  # fmt: skip
@click.option("--allow-cut-tars", is_flag=True, help="Use what lies before the cut.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and why, and do nothing.")
def shard(
    root: Path, out: Path, rules: Any, cameras: tuple[str, ...], workers: int, max_bad: float, allow_cut_tars: bool,
    dry_run: bool,
) -> None:  # fmt: skip
    """Turn A2D2's tars under --root into shards.

    Run it again after a stop: finished shards are kept. Other rules or changed source files convert again.
    """
    tokens = {token for token, name in CAMERAS.items() if name in cameras or "all" in cameras}
    source = find_source(root, cameras=tokens, skip=out, allow_cut_tars=allow_cut_tars)
    click.echo(f"{root}: {len(source.frames)} frames in {source.tars} tars and {source.loose_files} loose files")
    plan = make_plan(source, rules)
    work = survey(out, plan)
    _say_work(plan, work, out)
    if dry_run:
        return
    if work.finished:
        manifest = read_manifest(out)
        click.echo(f"{out} is up to date")
    else:
        start = time.monotonic()
        with Progress(sum(len(shard.frames) for shard in plan.shards), "frames") as progress:
            manifest = build(out, plan, work, workers=workers, progress=progress)
        _say_manifest(manifest, out, time.monotonic() - start)
    _check_bad(manifest, plan, max_bad)


def _say_work(plan: Plan, work: Work, out: Path) -> None:
    frames = {shard.name: len(shard.frames) for shard in plan.shards}
    for reason, shards in Counter(work.stale.values()).items():
        count = sum(frames[name] for name, why in work.stale.items() if why == reason)
        click.echo(f"to convert: {shards} shards, {count} frames: {reason}")
    if work.fresh:
        click.echo(f"to keep: {len(work.fresh)} shards, {sum(frames[name] for name in work.fresh)} frames")
    if work.surplus:
        click.echo(f"to delete from {out}: {len(work.surplus)} shards of an earlier build")


def _say_manifest(manifest: dict[str, Any], out: Path, seconds: float) -> None:
    for split in SPLITS:
        total = manifest["totals"][split]
        labels = ", ".join(f"{task} {total['labels'].get(task, 0)}" for task in TASKS)
        click.echo(f"{split}: {total['samples']} samples in {total['shards']} shards, "
                   f"{total['bytes'] / 1e6:.1f} MB ({labels})")  # fmt: skip
    _say_left_out(manifest)
    click.echo(f"wrote {out} in {seconds:.0f} s; next: amtl-train --mode asymmetric --shards {out}")


def _say_left_out(manifest: dict[str, Any]) -> None:
    for label, reasons in manifest["absent"].items():
        click.echo(f"{label} absent: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.items()))
    frames = Counter(entry["reason"] for entry in manifest["left_out"] if entry["what"] == "frame" and not entry["bad"])
    for reason, count in frames.items():
        click.echo(f"frames left out: {count}: {reason}")
    bad = [entry for entry in manifest["left_out"] if entry["bad"]]
    for entry in bad[:10]:
        click.echo(f"bad {entry['what']} of {entry['key']}: {entry['reason']}", err=True)
    if len(bad) > 10:
        click.echo(f"... and {len(bad) - 10} more, all in manifest.json", err=True)


def _check_bad(manifest: dict[str, Any], plan: Plan, max_bad: float) -> None:
    bad = len({entry["key"] for entry in manifest["left_out"] if entry["bad"]})
    if bad > max_bad * plan.frames:
        raise ValueError(
            f"{bad} of {plan.frames} frames have a bad file, more than --max-bad {max_bad:g}: "
            "the shards hold the rest; mend the files and run again, or allow more"
        )


@main.command("verify")
@_SHARDS
def verify_command(shards: Path) -> None:
    """Check checksums and counts, and decode every member; exit 1 with a list where something is wrong."""
    shard_set = ShardSet(shards)
    total = sum(shard["samples"] for shard in shard_set.manifest["shards"])
    with Progress(total, "samples") as progress:
        problems = verify(shard_set, progress)
    for problem in problems:
        click.echo(problem)
    if problems:
        raise ValueError(f"{shards}: {len(problems)} problems; run a2d2-prep shard again to mend the shards named")
    click.echo(f"{shards}: {total} samples in {len(shard_set.manifest['shards'])} shards are as the manifest says")


@main.command()
@_SHARDS
def inspect(shards: Path) -> None:
    """Count what a set holds: labels, classes, boxes, depth, steering, and what was left out."""
    shard_set = ShardSet(shards)
    total = sum(shard["samples"] for shard in shard_set.manifest["shards"])
    with Progress(total, "samples") as progress:
        summary = summarise(shard_set, progress)
    click.echo(f"{'split':<8}{'samples':>9}" + "".join(f"{label:>14}" for label in LABELS))
    for split in SPLITS:
        counts = "".join(f"{summary.labels[split, label]:>14}" for label in LABELS)
        click.echo(f"{split:<8}{summary.samples[split]:>9}{counts}")
    _say_classes(summary)
    _say_other_labels(summary, shard_set.size_px)
    click.echo()
    _say_left_out(shard_set.manifest)


def _say_classes(summary: Summary) -> None:
    pixels = sum(summary.class_pixels.values()) + summary.ignored_pixels
    if pixels:
        click.echo(f"\n{'class':<24}{'pixels':>9}{'frames':>9}")
        for name, count in summary.class_pixels.most_common():
            click.echo(f"{name:<24}{count / pixels:>9.2%}{summary.class_frames[name]:>9}")
        click.echo(f"{'(ignored)':<24}{summary.ignored_pixels / pixels:>9.2%}")


def _say_other_labels(summary: Summary, size_px: int) -> None:
    if summary.boxes or summary.boxes_dropped:
        click.echo(f"\n{'boxes of class':<24}{'boxes':>9}")
        for name, count in summary.boxes.most_common():
            click.echo(f"{name:<24}{count:>9}")
        dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(summary.boxes_dropped.items())) or "none"
        click.echo(f"most in one cell: {summary.most_boxes_in_a_cell}; dropped: {dropped}")
    if summary.depth_samples:
        coverage = summary.depth_pixels / (summary.depth_samples * size_px**2)
        click.echo(f"\ndepth: {coverage:.2%} of pixels have a return")
    if summary.angles_deg:
        click.echo(f"\n{'steering, deg':<24}{'frames':>9}   (negative = left)")
        for bounds, count in steering_histogram(summary.angles_deg):
            click.echo(f"{bounds:<24}{count:>9}")
    if summary.windows_timed:
        share = summary.windows_later / summary.windows_timed
        click.echo(f"last 10 values all later than the image: {share:.1%} of {summary.windows_timed} windows")


@main.command()
@_SHARDS
@click.option("--key", help="A sample's key; without it the first of those with the most labels.", show_default=False)
@click.option("--out", default="panel.png", type=click.Path(dir_okay=False, path_type=Path), help="The picture.")
def show(shards: Path, key: str | None, out: Path) -> None:
    """Draw one sample: boxes, classes, depth and steering in one picture."""
    shard_set = ShardSet(shards)
    ref = shard_set.find(key) if key else _richest_sample(shard_set)
    sample, meta = shard_set.load(ref, LABELS), shard_set.meta(ref)
    boxes = [Box(x1, y1, x2, y2, BOX_ID[name], name) for x1, y1, x2, y2, name in meta["boxes"].get("boxes", [])]
    picture = panel(
        sample["image"],
        title=ref.key,
        segmentation=sample.get("segmentation"),
        depth_m=sample.get("depth"),
        boxes=boxes if "boxes" in sample else None,
        angles_deg=sample["steering"]["angles_deg"] if "steering" in sample else None,
        max_m=shard_set.max_m,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(out)
    click.echo(f"wrote {out}: {ref.key}, {', '.join(task for task in TASKS if task in sample) or 'no labels'}")


def _richest_sample(shard_set: ShardSet) -> SampleRef:
    refs = [ref for split in SPLITS for ref in shard_set.samples(split)]
    if not refs:
        raise ValueError(f"{shard_set.folder} holds no samples")
    return max(refs, key=lambda ref: len(ref.labels))


@main.command()
@rules_option
def rules(rules: Any) -> None:
    """Print the effective rules as TOML that --rules accepts, with fingerprints as comments."""
    prints = fingerprints(rules, {"frontcenter": FRONT_CENTER} if rules.geometry.undistort else {})
    click.echo(rules_to_toml(rules, {label: f"fingerprint {value}" for label, value in prints.items()}), nl=False)


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--scenes", type=click.IntRange(min=1), default=3, help="Recordings.")
@click.option("--frames", type=click.IntRange(min=1), default=40, help="Frames a scene.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Same seed, same bytes.")
@_WORKERS
def synth(out: Path, scenes: int, frames: int, seed: int, workers: int) -> None:
    """Write a small synthetic A2D2 into OUT: the same tars, names, keys and dtypes, a drawn world."""
    with Progress(scenes * frames, "frames") as progress:
        done = 0

        def report(so_far: int, _: int) -> None:
            nonlocal done
            progress(so_far - done)
            done = so_far

        write_dataset(out, scenes=scenes, frames=frames, seed=seed, workers=workers, progress=report)
    click.echo(f"wrote {out}: {scenes} scenes of {frames} frames; next: a2d2-prep shard --root {out}")
