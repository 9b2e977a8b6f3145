"""The command `amtl-predict`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shards.schema import SPLITS
from train.cli.console import HELP, Console, device_option, exit_codes, stop_signals, version_option

if TYPE_CHECKING:
    from shards.geometry import Calibration
    from train.deploy.inputs import Frame


@click.command(context_settings=HELP)
@version_option
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="INPUT...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in --out.")
@click.option("--no-pictures", is_flag=True, help="Do not write pictures/.")
@click.option("--no-arrays", is_flag=True, help="Do not write arrays/, which takes most of the space.")
@click.option("--film", is_flag=True, help="Write films/: for each film, the pictures of its frames as a film.")
@click.option("--min-score", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="Least score of a box: objectness times class score.")  # fmt: skip
@click.option("--max-value", type=click.FloatRange(min=0, min_open=True), metavar="NUMBER",
              help="White in images of more than 8 bits: 4095 for 12 bits [default: found in each image].")  # fmt: skip
@click.option("--max-megapixels", type=click.FloatRange(min=0, min_open=True), default=100.0, show_default=True,
              metavar="NUMBER", help="Larger images are left out.")  # fmt: skip
@click.option("--undistort", is_flag=True, help="The images are raw A2D2 images: undistort them first.")
@click.option("--calibration", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
              help="cams_lidars.json, for --undistort with other cameras than front centre.")  # fmt: skip
@click.option("--split", type=click.Choice(SPLITS), default="val", show_default=True, help="Split of shards to read.")
@click.option("--batch-size", type=click.IntRange(min=1), default=4, show_default=True,
              help="Images per forward pass; affects speed and memory only.")  # fmt: skip
@device_option
@click.option("--workers", type=click.IntRange(min=-1), default=-1,
              help="Threads that read and write [default: 1 on a CPU, up to 8 beside a GPU].")  # fmt: skip
def main(
    checkpoint: Path, inputs: tuple[Path, ...], out: Path, overwrite: bool, no_pictures: bool, no_arrays: bool,
    film: bool, min_score: float, max_value: float | None, max_megapixels: float, undistort: bool,
    calibration: Path | None, split: str, batch_size: int, device: str, workers: int,
) -> None:  # fmt: skip
    """Predict with the network of CHECKPOINT on images, folders of images, films or shards.

    Images may have any size; results are in their own pixels. --out gets pictures/, values/ (JSON), arrays/ (NPZ) and
    predictions.json, which says what the numbers mean. Inputs that cannot be read, and lost frames of damaged films,
    are named, and the exit code is 1 then.
    """
    from train.data.stream import worker_count
    from train.deploy.image_file import ImageRules
    from train.deploy.inputs import ShardSplit, find_sources
    from train.deploy.output_folder import ARRAYS, FILMS, PICTURES, RECORD, VALUES, OutputFolder
    from train.deploy.predictor import Predictor, predict_frames
    from train.deploy.tally import Tally
    from train.deploy.undistort import FrameUndistorter

    kept = "what was written stays, without predictions.json"
    with exit_codes("amtl-predict", kept), stop_signals() as stopping, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of files; what matters of them is said here
        calibrations = {} if calibration is None else read_calibrations(calibration)
        if calibration and not undistort:
            raise click.UsageError("--calibration is for --undistort")
        sources, passed = find_sources(inputs, split, out, ImageRules(max_value, max_megapixels))
        if undistort and any(isinstance(source, ShardSplit) for source in sources):
            raise click.UsageError("--undistort is for raw images: the images of shards are undistorted already")
        asked = {PICTURES: not no_pictures, ARRAYS: not no_arrays, FILMS: film}
        predictor = Predictor.load(checkpoint, device, min_score)
        folder = OutputFolder(out, [VALUES, *(kind for kind in asked if asked[kind])], predictor.context, overwrite)
        folder.claim(sources)
        console = Console()
        tally = Tally(console, sources)
        for line in tally.seen_lines(checkpoint, predictor.checkpoint):
            console.say(line)
        if passed:
            console.say(f"skipped {passed} files of the folders: by their names they are neither images nor films")

        def done(frame: Frame) -> None:
            folder.add_to_film(frame)
            tally.done(frame)

        whole = False
        try:
            predict_frames(
                predictor,
                sources,
                batch_size=batch_size,
                workers=worker_count(workers, predictor.device),
                prepare=FrameUndistorter(calibrations).undistorted if undistort else lambda frame: frame,
                write=folder.write,
                done=done,
                stopping=stopping,
            )
            whole = True
        finally:
            folder.finish_films(keep=whole)
            console.close()
        if tally.names:
            folder.write_record(predictor.record(checkpoint) | {"undistorted": undistort} | tally.record())
        tally.finish(str(out), RECORD)


def read_calibrations(path: Path) -> dict[str, Calibration]:
    """`cams_lidars.json` -> calibrations by camera."""
    from shards.codec import decode_json
    from shards.geometry import parse_calibrations

    try:
        return parse_calibrations(decode_json(path.read_bytes()))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--calibration") from error
