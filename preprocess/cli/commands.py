"""The commands of `a2d2-prep`: options and printed lines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import orjson
from PIL import Image

from preprocess.build import How, Work, build, survey, write_stale
from preprocess.build_plan import Plan, make_plan
from preprocess.cli.console import Commands, ProgressBar
from preprocess.cli.options import CAMERA, JSON, RULES, SET_RULES, SHARDS, WORKERS, parse_part, parse_share, parse_word
from preprocess.fingerprints import fingerprints
from preprocess.lock import Claim, Lock
from preprocess.rules import Rules, change_lines, rule_changes, rules_of_set, rules_to_tables, rules_to_toml
from preprocess.slurm import array_script
from preprocess.source import find_source
from preprocess.summary_text import (
    bad_lines,
    count_bad_frames,
    left_out_lines,
    manifest_lines,
    next_line,
    rules_line,
    summary_lines,
    work_lines,
)
from shards.geometry import CAMERAS, FRONT_CENTER
from shards.manifest import read_manifest
from shards.oddities import check_lines, set_oddities
from shards.output import write_text
from shards.reader import ShardSet
from shards.schema import SPLITS, TASKS
from shards.show import draw_contact_sheet, draw_sample
from shards.summary import summarise
from shards.verify import verify


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="asymmetric-mtl")
def main() -> None:
    """Convert A2D2 to WebDataset shards for multi-task training, and check, count and draw them."""


def _echo(lines: Iterable[str], err: bool = False) -> None:
    for line in lines:
        write_text(f"{line}\n", err=err)


def _echo_json(document: Any) -> None:
    _echo([orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode()])


@main.command(short_help="Convert A2D2's tars to shards, or continue a stopped build.")
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder with A2D2's tars, extracted folders, or both.")  # fmt: skip
@click.option(
    "--out", default="shards", type=click.Path(file_okay=False, path_type=Path), help="Folder for the shards."
)
@SET_RULES
@CAMERA
@WORKERS
@click.option("--max-bad", type=click.FloatRange(0, 1), default=0.01, callback=parse_share,
              help="Share of frames with a bad file above which the exit code is 1.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Stop at the first bad file.")
@click.option("--allow-cut-tars", is_flag=True, help="Of a tar that is cut short, use the members before the cut.")
@click.option("--checksum", is_flag=True, help="Compare source files by content, not by size and time; reads them all.")
@click.option("--dask", metavar="ADDRESS", help="Convert on a Dask cluster (extra `cluster`), e.g. tcp://node1:8786.")
@click.option("--part", callback=parse_part, metavar="i/N", help="This job's share of the shards, i from 0 to N-1.")
@click.option("--dry-run", is_flag=True, help="Print what would be done and why, without doing it.")
def shard(
    root: Path, out: Path, rules: Any, cameras: tuple[str, ...], workers: int, max_bad: float, strict: bool,
    allow_cut_tars: bool, checksum: bool, dask: str | None, part: tuple[int, int] | None, dry_run: bool,
) -> None:  # fmt: skip
    """Convert A2D2's tars under --root to shards.

    After a stop, run the same command again: it keeps finished shards. After a change of rules or source files it
    converts only what the change affects, and reuses all other bytes.
    """
    given, rules = rules, rules or rules_of_set(out) or Rules()
    tokens = {token for token, name in CAMERAS.items() if name in cameras or "all" in cameras}
    source = find_source(root, cameras=tokens, skip=out, allow_cut_tars=allow_cut_tars)
    _echo([f"{root}: {len(source.frames)} frames in {source.tars} tars and {source.loose_files} loose files"])
    _echo([rules_line(given, rules, out)])
    _echo((f"note: {note}" for note in source.notes), err=True)
    plan = make_plan(source, rules, checksum=checksum)
    share = None if part is None else {shard.name for shard in plan.shards[part[0] :: part[1]]}
    if dry_run:
        work = survey(out, plan, share)
        _echo(work_lines(plan, work, out))
        if part is not None:
            _echo([f"part {part[0]} of {part[1]} would write {len(work.stale)} of its shards"])
        return
    how = How(workers, dask, strict)
    with Lock(out, part) as claim:
        work = survey(out, plan, share)
        _echo(work_lines(plan, work, out))
        if part is not None:
            _write_part(out, claim, plan, work, part, how)
            return
        if work.finished:
            manifest = read_manifest(out)
            _echo([f"{out} is up to date"])
        else:
            manifest = _build(out, claim, plan, work, how)
    _echo(bad_lines(manifest, plan), err=True)
    _judge(manifest, plan, max_bad, strict)
    _echo([next_line(plan.rules, out)])


def _judge(manifest: dict[str, Any], plan: Plan, max_bad: float, strict: bool) -> None:
    """Raises ValueError where more files are bad, or the whole set is odder, than is allowed."""
    reasons = []
    bad = count_bad_frames(manifest)
    if bad > (0 if strict else max_bad * plan.frames):
        limit = "and --strict allows none" if strict else f"more than --max-bad {max_bad:g}"
        reasons.append(f"{bad} of {plan.frames} frames have a bad file, {limit}: mend the files, or allow more")
    if odd := set_oddities(manifest):
        reasons.append(f"the set is odd: {'; '.join(odd)}: mend the files, or allow more with --rules")
    if reasons:
        raise ValueError(f"{'; '.join(reasons)} (the shards hold the rest)")


def _build(out: Path, claim: Claim, plan: Plan, work: Work, how: How) -> dict[str, Any]:
    start = time.monotonic()
    with ProgressBar(sum(len(shard.frames) for shard in plan.shards), "frames") as progress:
        manifest = build(out, claim, plan, work, how, progress, progress.say)
    _echo(manifest_lines(manifest))
    _echo(left_out_lines(manifest))
    _echo(check_lines(manifest["checks"]))
    _echo([f"wrote {out} in {time.monotonic() - start:.0f} s"])
    return manifest


def _write_part(out: Path, claim: Claim, plan: Plan, work: Work, part: tuple[int, int], how: How) -> None:
    i, n = part
    with ProgressBar(sum(len(shard.frames) for shard in plan.shards[i::n]), "frames") as progress:
        written = list(write_stale(out, claim, plan, work, how, progress, progress.say))
    _echo([f"part {i} of {n}: {len(written)} shards written; after all parts run the same command without --part"])


@main.command(short_help="Print a SLURM script that converts with an array of jobs.")
@click.option("--root", required=True, type=click.Path(file_okay=False), help="As in a2d2-prep shard.")
@click.option("--out", default="shards", type=click.Path(file_okay=False), help="As in a2d2-prep shard.")
@click.option("--rules", help="As in a2d2-prep shard.")
@CAMERA
@click.option("--parts", type=click.IntRange(min=1), default=8, help="Number of jobs in the array.")
@click.option("--cpus", type=click.IntRange(min=1), default=8, help="Cores per job.")
@click.option("--mem", "memory", default="16G", help="Memory a job, as SLURM writes it.")
@click.option("--time", "limit", default="04:00:00", metavar="HH:MM:SS", help="Time limit of a job.")
@click.option("--partition", callback=parse_word, help="SLURM partition; without it the cluster's default.")
@click.option("--account", callback=parse_word, help="SLURM account; without it the cluster's default.")
def slurm(
    root: str,
    out: str,
    rules: str | None,
    cameras: tuple[str, ...],
    parts: int,
    cpus: int,
    memory: str,
    limit: str,
    partition: str | None,
    account: str | None,
) -> None:
    """Print a SLURM batch script that converts with an array of jobs: a2d2-prep slurm ... > shard.sh."""
    command = ["a2d2-prep", "shard", "--root", root, "--out", out]
    command += ["--rules", rules] if rules else []
    for camera in cameras if cameras != ("front_center",) else ():
        command += ["--camera", camera]
    script = array_script(
        command, parts=parts, cpus=cpus, memory=memory, time=limit, partition=partition, account=account
    )
    click.echo(script, nl=False)


@main.command("verify", short_help="Compare checksums, and decode every member.")
@SHARDS
@JSON
def verify_command(shards: Path, as_json: bool) -> None:
    """Compare checksums and counts, and decode every member. Problems are listed, and the exit code is 1 then."""
    shard_set = ShardSet(shards)
    total = sum(shard["samples"] for shard in shard_set.manifest["shards"])
    with ProgressBar(total, "samples") as progress:
        problems = verify(shard_set, progress)
    if as_json:
        _echo_json({"samples": total, "shards": len(shard_set.manifest["shards"]), "problems": problems})
    else:
        _echo(problems)
    if problems:
        raise ValueError(f"{shards}: {len(problems)} problems; a2d2-prep shard writes damaged shards again")
    if not as_json:
        _echo([f"{shards}: {total} samples in {len(shard_set.manifest['shards'])} shards are as the manifest says"])


@main.command(short_help="Count what a set holds and what was left out.")
@SHARDS
@JSON
def inspect(shards: Path, as_json: bool) -> None:
    """Count what a set holds: labels, classes, boxes, depth, steering, and what was left out."""
    shard_set = ShardSet(shards)
    total = sum(shard["samples"] for shard in shard_set.manifest["shards"])
    with ProgressBar(total, "samples") as progress:
        summary = summarise(shard_set, progress)
    if as_json:
        manifest = shard_set.manifest
        checks = {"checks": manifest.get("checks", {}), "odd": set_oddities(manifest)}
        _echo_json({**summary.as_document(), "absent": manifest["absent"], "left_out": manifest["left_out"], **checks})
        return
    _echo(summary_lines(summary, shard_set.size_px))
    _echo([""])
    manifest = shard_set.manifest
    _echo(left_out_lines(manifest))
    _echo(check_lines(manifest.get("checks", {})))
    _echo(f"odd: {line}" for line in set_oddities(manifest))
    _echo(bad_lines(manifest))


@main.command(short_help="Draw one sample, or a contact sheet of many.")
@SHARDS
@click.option("--key", help="Key of the sample; by default the first sample with the most labels.", show_default=False)
@click.option(
    "--contact-sheet", "count", type=click.IntRange(min=1), help="Draw this many samples of the set, each small."
)
@click.option(
    "--out", default="panel.png", type=click.Path(dir_okay=False, path_type=Path), help="Picture file to write."
)
@JSON
def show(shards: Path, key: str | None, count: int | None, out: Path, as_json: bool) -> None:
    """Draw one sample with boxes, classes, depth and steering, or a contact sheet of many samples."""
    shard_set = ShardSet(shards)
    refs = [ref for split in SPLITS for ref in shard_set.samples(split)]
    if not refs:
        raise ValueError(f"{shards} holds no samples")
    if count is not None:
        chosen = [refs[i * len(refs) // min(count, len(refs))] for i in range(min(count, len(refs)))]
        picture, what = draw_contact_sheet(shard_set, chosen), f"{len(chosen)} of {len(refs)} samples"
    else:
        ref = shard_set.find(key) if key else max(refs, key=lambda ref: len(ref.labels))
        chosen = [ref]
        labels = ", ".join(task for task in TASKS if task in ref.labels) or "no labels"
        picture, what = draw_sample(shard_set, ref), f"{ref.key}, {labels}"
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(out)
    if as_json:
        _echo_json({"picture": out, "samples": [{"key": ref.key, "labels": list(ref.labels)} for ref in chosen]})
    else:
        _echo([f"wrote {out}: {what}"])


@main.command(short_help="Print the conversion rules, or their difference from a set's.")
@RULES
@click.option("--diff", "shards", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Print only the differences from the rules of this set.")  # fmt: skip
@JSON
def rules(rules: Any, shards: Path | None, as_json: bool) -> None:
    """Print the effective rules as TOML that --rules accepts, with fingerprints as comments."""
    tables = rules_to_tables(rules)
    if shards is not None:
        changes = rule_changes(read_manifest(shards)["rules"], tables)
        if as_json:
            _echo_json({name: {"set": before, "rules": after} for name, (before, after) in changes.items()})
        else:
            _echo([f"from {shards} to these rules:"] if changes else [f"the rules of {shards} are the same"])
            _echo(change_lines(changes))
        return
    prints = fingerprints(rules, {"frontcenter": FRONT_CENTER} if rules.geometry.undistort else {})
    if as_json:
        _echo_json({"rules": tables, "fingerprints": prints})
        return
    click.echo(rules_to_toml(rules, {label: f"fingerprint {value}" for label, value in prints.items()}), nl=False)


@main.command(short_help="Write a small synthetic A2D2.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--scenes", type=click.IntRange(min=1), default=3, help="Number of scenes.")
@click.option("--frames", type=click.IntRange(min=1), default=40, help="Frames per scene.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="The same seed gives the same bytes.")
@WORKERS
def synth(out: Path, scenes: int, frames: int, seed: int, workers: int) -> None:
    """Write a small synthetic A2D2 into OUT: the same tars, names, keys and dtypes, with drawn images."""
    from synth.dataset import write_dataset

    with ProgressBar(scenes * frames, "frames") as progress:
        done = 0

        def report(so_far: int, _: int) -> None:
            nonlocal done
            progress(so_far - done)
            done = so_far

        write_dataset(out, scenes=scenes, frames=frames, seed=seed, workers=workers, progress=report)
    _echo([f"wrote {out}: {scenes} scenes of {frames} frames; next: a2d2-prep shard --root {out}"])
