"""`amtl-predict`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from shards.codec import decode_json
from shards.geometry import Calibration, parse_calibrations
from shards.schema import SPLITS
from train.cli.console import HELP, Console, device_option, exit_codes, stop_signals
from train.data.stream import worker_count
from train.deploy.inputs import Frame, ShardSplit, Source, find_sources
from train.deploy.output_folder import ARRAYS, PICTURES, RECORD, VALUES, Room
from train.deploy.predictor import Predictor, predict_frames
from train.deploy.undistort import Lenses
from train.engine.run import find_device
from train.sample_pieces import SHOWN_SCORE

_NAMED = 10  # bad inputs that have a line of their own


def read_calibrations(context: click.Context, parameter: click.Parameter, value: Path | None) -> Any:
    """`cams_lidars.json` -> calibrations by camera."""
    if value is None:
        return {}
    try:
        return parse_calibrations(decode_json(value.read_bytes()))
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command(context_settings=HELP)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="INPUT...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option("--overwrite", is_flag=True, help="Write over files of the same names in --out.")
@click.option("--no-pictures", is_flag=True, help="Leave the pictures out.")
@click.option("--no-arrays", is_flag=True, help="Leave the arrays out: they are the most of it.")
@click.option("--min-score", type=click.FloatRange(0, 1), default=SHOWN_SCORE, show_default=True,
              help="Least score of a box, objectness times class.")  # fmt: skip
@click.option("--undistort", is_flag=True, help="The images are A2D2's raw ones: take the lens's distortion out.")
@click.option("--calibration", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              callback=read_calibrations, metavar="FILE",
              help="cams_lidars.json, with which --undistort knows cameras beside front centre.")  # fmt: skip
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True, help="Of shards.")
@click.option("--batch-size", type=click.IntRange(min=1), default=4, show_default=True,
              help="Images that go through the network together.")  # fmt: skip
@device_option
@click.option("--workers", type=click.IntRange(min=-1), default=-1,
              help="Threads that read and write [default: 1 on a CPU, up to 8 beside a GPU].")  # fmt: skip
def main(
    checkpoint: Path, inputs: tuple[Path, ...], out: Path, overwrite: bool, no_pictures: bool, no_arrays: bool,
    min_score: float, undistort: bool, calibration: dict[str, Calibration], split: str, batch_size: int, device: str,
    workers: int,
) -> None:  # fmt: skip
    """Show what the network of CHECKPOINT sees in images, folders of images, videos or shards.

    Images may have any size; results are in their own pixels. --out gets pictures/, values/ (JSON), arrays/ (NPZ) and
    predictions.json, which says what the numbers mean. What cannot be read is named, and the exit code is 1 then.
    """
    with exit_codes("amtl-predict", "what was written stays, without predictions.json"), stop_signals() as stopping:
        if calibration and not undistort:
            raise click.UsageError("--calibration is for --undistort")
        sources, passed = find_sources(inputs, split, out)
        if undistort and any(isinstance(source, ShardSplit) for source in sources):
            raise click.UsageError("--undistort is for raw images: the images of shards are undistorted already")
        kinds = [VALUES, *([] if no_pictures else [PICTURES]), *([] if no_arrays else [ARRAYS])]
        predictor = Predictor(checkpoint, find_device(device), min_score)
        room = Room(out, kinds, predictor.context, overwrite)
        room.claim(sources)
        tally = Tally(Console(), sources)
        if passed:
            tally.console.say(f"{passed} files of the folders are passed over: no images by their names")
        try:
            predict_frames(
                predictor,
                sources,
                batch_size=batch_size,
                workers=worker_count(workers, predictor.device),
                prepare=Lenses(calibration).undistorted if undistort else lambda frame: frame,
                write=room.write,
                done=tally.done,
                stopping=stopping,
            )
        finally:
            tally.console.close()
        if tally.names:
            room.write_record(tally.record(predictor, checkpoint, undistort))
        tally.finish(out)


class Tally:
    """What was predicted and what could not be."""

    def __init__(self, console: Console, sources: list[Source]) -> None:
        self.console = console
        self.expected = sum(source.count() for source in sources)
        self.names: list[str] = []
        self.bad: list[Frame] = []

    def done(self, frame: Frame) -> None:
        """Count a frame, and say it where it is bad."""
        if frame.image is not None:
            self.names.append(frame.name)
        else:
            self.bad.append(frame)
            if len(self.bad) <= _NAMED:
                self.console.say(f"left out {frame.source}: {frame.reason}")
        so_far = len(self.names) + len(self.bad)
        self.console.progress("predicting", so_far, max(so_far, self.expected), str)

    def record(self, predictor: Predictor, path: Path, undistort: bool) -> dict[str, Any]:
        """For `predictions.json`."""
        return {
            "checkpoint": str(path),
            "epoch": predictor.checkpoint["progress"]["epoch"],
            "manifest_sha256": predictor.checkpoint["manifest_sha256"],  # of the training data
            "tasks": predictor.tasks,
            "size_px": predictor.size_px,
            "max_m": predictor.facts["max_m"],
            "min_score": predictor.min_score,
            "undistorted": undistort,
            "names": self.names,
            "left_out": [{"input": frame.source, "reason": frame.reason} for frame in self.bad],
        }

    def finish(self, out: Path) -> None:
        """The closing line. Raises ValueError where something was bad."""
        if self.bad:
            reasons = Counter(frame.reason for frame in self.bad)
            counted = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
            total = len(self.names) + len(self.bad)
            raise ValueError(
                f"{len(self.bad)} of {total} inputs could not be used ({counted}); the other {len(self.names)} are in "
                f"{out}" if self.names else f"none of {total} inputs could be used ({counted})"
            )  # fmt: skip
        self.console.say(f"wrote {out}: {len(self.names)} images; {RECORD} says what the numbers mean")
