"""The cost of preparing data: `python -m benchmarks.prepare --help`, in the checkout.

CPU time of processes, medians of several rounds; what is compared is measured in the same round, one after the
other, so that a busy machine disturbs both. A cost per frame is the slope between 20 and 120 frames: start-up, which
is paid once, does not count.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.frames import deal, prepare_files, tar_of_small_members
from benchmarks.memory import peak_mib
from benchmarks.stages import stage_rows

FEW, MANY = 20, 120
MEMBERS = 60_000
CHECKOUT = Path(__file__).parents[1]
DECODERS = {  # (a): what decodes a PNG
    "kornia-rs": "import kornia_rs.io; d = lambda b: kornia_rs.io.decode_image_png_u8(b, (1208, 1920), 'rgb')",
    "imagecodecs": "import imagecodecs; d = imagecodecs.png_decode",
}
DECODE = """
import sys; from pathlib import Path; from benchmarks.frames import image_and_label
{decoder}
for pair in image_and_label(Path(sys.argv[1])):
    for path in pair:
        d(path.read_bytes())
"""
PLAIN = "import sys; from pathlib import Path; from benchmarks.plain import build; build(*map(Path, sys.argv[1:]))"
INDEX = "import sys; from pathlib import Path; from preprocess.tarindex import scan_tar; scan_tar(Path(sys.argv[1]))"
OURS = "a2d2-prep shard"
CHANGED = {"boxes": "[boxes]\nmin_px = 9.0\n", "segmentation": '[segmentation]\nencoding = "npy"\n'}
SMALL_SHARDS = "shard_samples = 32\n"  # so that two workers end at about the same time

Runs = list[dict[str, float]]  # a round each: contender -> CPU ms a frame


def start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A Python process of its own, one thread a library."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_s(code: str, *arguments: object) -> float:
    """CPU seconds of a process, start-up included."""
    process = start(code, *arguments)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"a measured process failed with exit code {process.returncode}: {code} {arguments}")
    return usage.ru_utime + usage.ru_stime


MAIN = "from preprocess.cli import main; main()"


def shard_options(root: Path, out: Path, rules: Path, workers: int = 1) -> tuple[object, ...]:
    """Arguments of `a2d2-prep`."""
    return "shard", "--root", root, "--out", out, "--rules", rules, "--workers", workers


def fresh(folder: Path) -> Path:
    """The folder, emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_rules(cache: Path, name: str, toml: str) -> Path:
    """A rules file; the same few frames are dealt many times, which is not odd here."""
    path = cache / f"{name}.toml"
    path.write_text(f"{toml}\n[checks]\nmax_repeated_windows = 1.0\n")
    return path


def slope_ms(run: Callable[[int], float]) -> float:
    """CPU ms a frame: the slope between few and many frames."""
    return (run(MANY) - run(FEW)) / (MANY - FEW) * 1000


def measure_builds(cache: Path, rounds: int) -> Runs:
    """Ours, both (a) and (b)."""
    rules = write_rules(cache, "default", "")
    out = cache / "out"
    contenders: dict[str, Callable[[int], float]] = {
        OURS: lambda n: cpu_s(MAIN, *shard_options(deal(cache, n), fresh(out), rules)),
        "(b) the plain way": lambda n: cpu_s(PLAIN, deal(cache, n), fresh(out)),
    }
    for name, decoder in DECODERS.items():
        decode = partial(cpu_s, DECODE.format(decoder=decoder))
        contenders[f"(a) decoding alone, {name}"] = lambda n, decode=decode: decode(deal(cache, n))  # type: ignore[misc]
    return [{name: slope_ms(run) for name, run in contenders.items()} for _ in range(rounds)]


def digest(folder: Path) -> str:
    """A hash of all files' names and bytes, except the manifest that a rebuild leaves of the earlier set."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name != "manifest.previous.json":
            whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def measure_rebuilds(cache: Path, rounds: int) -> Runs:
    """A full build, and what a changed rule costs after it."""
    rounds_of_seconds = [{n: _rebuild_s(cache, deal(cache, n)) for n in (FEW, MANY)} for _ in range(rounds)]
    return [
        {name: (seconds[MANY][name] - seconds[FEW][name]) / (MANY - FEW) * 1000 for name in seconds[MANY]}
        for seconds in rounds_of_seconds
    ]


def _rebuild_s(cache: Path, root: Path) -> dict[str, float]:
    """CPU seconds of a full build, and of each rebuild, which must be equal to a fresh build."""
    built, out, new = (cache / name for name in ("built", "rebuilt", "new"))
    found = {"full": cpu_s(MAIN, *shard_options(root, fresh(built), write_rules(cache, "default", "")))}
    for name, toml in CHANGED.items():
        rules = write_rules(cache, name, toml)
        shutil.copytree(built, fresh(out), dirs_exist_ok=True)
        found[name] = cpu_s(MAIN, *shard_options(root, out, rules))
        cpu_s(MAIN, *shard_options(root, fresh(new), rules))
        if digest(out) != digest(new):
            raise SystemExit(f"a rebuild with another rule of {name} is not byte for byte a fresh build")
    return found


def measure_workers(cache: Path, rounds: int) -> list[float]:
    """Frames a second of two workers / of two independent runs side by side: wall time, by the slope as well."""
    rules = write_rules(cache, "small-shards", SMALL_SHARDS)

    def wall_s(frames: int, independent: bool) -> float:
        outs = [fresh(cache / f"out-{number}") for number in range(2 if independent else 1)]
        roots = deal(cache, frames // 2 if independent else frames)
        begin = time.perf_counter()
        processes = [start(MAIN, *shard_options(roots, out, rules, 3 - len(outs))) for out in outs]
        assert not any(process.wait() for process in processes)
        return time.perf_counter() - begin

    def slope(independent: bool) -> float:
        return wall_s(640, independent) - wall_s(128, independent)

    return [slope(True) / slope(False) for _ in range(rounds)]


def measure_memory(cache: Path) -> dict[int, float]:
    """Frames -> peak MiB of the process tree, two workers."""
    rules = write_rules(cache, "default", "")
    peaks = {}
    for frames in (500, 2000):
        process = start(MAIN, *shard_options(deal(cache, frames), fresh(cache / "out"), rules, 2))
        peaks[frames] = peak_mib(process)
    return peaks


def measure_index(cache: Path, rounds: int) -> float:
    """CPU seconds that finding 60,000 members takes, start-up included."""
    path = cache / "members.tar"
    tar_of_small_members(path, MEMBERS)
    return median(cpu_s(INDEX, path) for _ in range(rounds))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def build_table(runs: Runs) -> str:
    """CPU ms a frame of each contender, and how ours compares."""
    return table(
        ("", "CPU ms a frame", "`a2d2-prep shard` costs"),
        [
            (name, f"{median(run[name] for run in runs):.1f}", f"{median(run[OURS] / run[name] for run in runs):.2f} x")
            for name in runs[0]
        ],
    )


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for frames and shards: a few GB, kept")
    parser.add_argument("--root", type=Path, help="real frames, in place of drawn ones; what they lack is drawn")
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many (default: 5)")
    parts = ("stages", "builds", "rebuilds", "workers", "memory", "index")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="measure these alone")
    options = parser.parse_args()
    cache = options.cache.absolute()
    cache.mkdir(parents=True, exist_ok=True)
    prepare_files(cache, options.root, workers=len(os.sched_getaffinity(0)))
    if "stages" in options.only:
        print(table(("stage, CPU ms", "ours", "plain"), stage_rows(cache, options.rounds)), "\n")
    if "builds" in options.only:
        print(build_table(measure_builds(cache, options.rounds)), "\n")
    if "rebuilds" in options.only:
        runs = measure_rebuilds(cache, options.rounds)
        rows = [
            (name, f"{median(run[name] for run in runs):.1f}", f"{median(run[name] / run['full'] for run in runs):.1%}")
            for name in runs[0]
        ]
        print(table(("rebuilt after a changed rule", "CPU ms a frame", "of a full build"), rows), "\n")
    if "workers" in options.only:
        shares = measure_workers(cache, options.rounds)
        print(f"two workers reach {median(shares):.2f} of two independent runs side by side", "\n")
    if "memory" in options.only:
        peaks = measure_memory(cache)
        print(*(f"peak memory of all processes, {frames} frames: {mib:.0f} MiB" for frames, mib in peaks.items()), "\n")
    if "index" in options.only:
        print(f"index of {MEMBERS} members of a tar: {measure_index(cache, options.rounds):.2f} s CPU")


if __name__ == "__main__":
    main()
