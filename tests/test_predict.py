"""`amtl-predict`: what the network says, in the input's own pixels; what cannot be read is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import train.deploy
from preprocess.source import find_source
from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from shards.codec import decode_image
from shards.draw import Box
from shards.geometry import FRONT_CENTER
from shards.reader import ShardSet
from shards.schema import TASKS
from tests.numbered_films import Film, write_film
from tests.test_export import write_checkpoint
from tests.tiny_shards import write_tiny_shards
from train.cli import predict
from train.deploy.film import read_film
from train.deploy.film_decode import FilmFrame
from train.deploy.image_file import read_image
from train.deploy.inference import load_inference_model
from train.deploy.inputs import Frame, find_sources
from train.deploy.output_folder import OutputFolder, draw_prediction
from train.deploy.predictor import Prediction, Predictor, predict_frames
from train.deploy.undistort import FrameUndistorter, Undistorter, camera_of
from train.engine.checkpoint import load_checkpoint
from train.sample_pieces import picture_context
from train.stop import Stopped
from train.tasks.box_grid import detections
from train.tasks.path_overlay import (
    CAR_WIDTH_M,
    PATH_M,
    STEERING_RATIO,
    WHEELBASE_M,
    draw_path,
    ground_path,
    wheel_tracks,
)

SIZE = 256


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("predict"), "mtl")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with three val samples."""
    return write_tiny_shards(tmp_path_factory.mktemp("predict") / "shards")


def amtl_predict(*arguments: object) -> Result:
    return CliRunner().invoke(predict.main, [str(argument) for argument in arguments])


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def save(path: Path, width: int = 90, height: int = 60, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(width, height, seed)).save(path)
    return path


def results(out: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(out / "arrays" / f"{name}.npz") as arrays:
        return json.loads((out / "values" / f"{name}.json").read_bytes()), dict(arrays)


def test_a_sample_s_results_are_the_network_s(checkpoint: Path, tiny: Path, tmp_path: Path):
    """On an image of the network's own size nothing is resized: the arrays are what it says, boxes after NMS."""
    done(amtl_predict(checkpoint, tiny, "--out", tmp_path / "out", "--min-score", 0))
    shards = ShardSet(tiny)
    samples = shards.samples("val")
    held = load_checkpoint(checkpoint)
    module, _ = load_inference_model(held, held["tasks"], logits=False)
    images = torch.from_numpy(np.stack([shards.load(ref, ["image"])["image"] for ref in samples]))
    with torch.no_grad():
        expected = module(images)
        grids = module.network((images.permute(0, 3, 1, 2).float() / 255 - module.mean) / module.std, ["boxes"])[
            "boxes"
        ]
    for row, ref in enumerate(samples):
        values, arrays = results(tmp_path / "out", ref.key)
        assert (values["width_px"], values["height_px"]) == (SIZE, SIZE)
        np.testing.assert_array_equal(arrays["segmentation"], expected["segmentation"][row])
        np.testing.assert_array_equal(arrays["depth_m"], expected["depth_m"][row].numpy().astype(np.float16))
        np.testing.assert_allclose(values["steering_deg"], expected["steering_deg"][row], atol=5e-4)
        corners, scores, classes = detections(grids[row])
        assert len(corners) > 1
        np.testing.assert_allclose(arrays["box_corners"], corners * SIZE, atol=1e-2)
        np.testing.assert_allclose(arrays["box_scores"], scores, atol=1e-5)
        np.testing.assert_array_equal(arrays["box_classes"], classes)
        assert [box["class"] for box in values["boxes"]] == [BOX_CLASSES[number] for number in classes]
    record = json.loads((tmp_path / "out" / "predictions.json").read_bytes())
    assert record["names"] == [ref.key for ref in samples]
    assert record["segmentation_classes"] == list(SEGMENTATION_CLASSES)
    assert record["tasks"] == ["steering", "segmentation", "boxes", "depth"]
    assert "left negative" in record["meaning"]["steering_deg"]


@pytest.mark.parametrize(("width", "height"), [(300, 40), (31, 400), (700, 500), (3, 2000)])
def test_results_are_in_the_input_s_own_pixels(checkpoint: Path, tmp_path: Path, width: int, height: int):
    done(amtl_predict(checkpoint, save(tmp_path / "x.png", width, height), "--out", tmp_path / "out", "--min-score", 0))
    values, arrays = results(tmp_path / "out", "x")
    assert (values["width_px"], values["height_px"]) == (width, height)
    assert arrays["segmentation"].shape == arrays["depth_m"].shape == (height, width)
    right, lower = arrays["box_corners"][:, 2:].max(axis=0)
    assert 0.8 * width < right <= width
    assert 0.8 * height < lower <= height
    assert sum(values["segmentation_share"].values()) == pytest.approx(1, abs=1e-4)
    with Image.open(tmp_path / "out" / "pictures" / "x.jpg") as drawn:
        assert min(drawn.size) > 300


def test_resized_maps_back():
    """Edges of boxes stay on edges, and a map's pixels cover what they were squeezed from."""
    classes = np.zeros((4, 4), np.uint8)
    classes[:, 2:] = 7
    depth = np.full((4, 4), 5, np.float32)
    boxes = [Box(0, 0, 4, 4, 0, "Car", 0.5), Box(2, 1, 3, 2, 1, "x", 0.4)]
    found = Prediction(4, 4, {"steering": [1.0], "segmentation": classes, "depth": depth, "boxes": boxes})
    wide = found.resized(40, 8)
    assert [(box.x1, box.y1, box.x2, box.y2) for box in wide.values["boxes"]] == [(0, 0, 40, 8), (20, 2, 30, 4)]
    assert (wide.values["segmentation"][:, :20] == 0).all()
    assert (wide.values["segmentation"][:, 20:] == 7).all()
    np.testing.assert_array_equal(wide.values["depth"], np.full((8, 40), 5, np.float32))


def test_a_raw_frame_becomes_what_the_shards_hold(checkpoint: Path, synthetic: Path, shards: Path):
    """Undistorted and squeezed, a stored frame is the sample's image but for JPEG and the kind of averaging."""
    predictor = Predictor.load(checkpoint, "cpu")
    source = find_source(synthetic, cameras={"frontcenter"}, skip=shards, allow_cut_tars=False)
    opened = ShardSet(shards)
    ref = opened.samples("val")[0]
    frame = next(frame for frame in source.frames if frame.key == ref.key)
    raw = decode_image(frame.files["image"].read())
    sample = opened.load(ref, ["image"])["image"].astype(float)
    straight = FrameUndistorter().undistorted(Frame("x_frontcenter_1", "", raw))
    assert straight.image is not None
    noise = {}
    for how, image in (("undistorted", straight.image), ("raw", raw)):
        noise[how] = np.sqrt(np.mean((predictor.squeeze(image) - sample) ** 2))
    assert noise["undistorted"] < 0.3 * noise["raw"], noise


def test_batches_change_nothing(checkpoint: Path, tmp_path: Path):
    for number in range(5):
        save(tmp_path / "in" / f"{number}.png", 90 - number, 60, seed=number)
    for size in (1, 3):
        done(amtl_predict(checkpoint, tmp_path / "in", "--out", tmp_path / str(size), "--batch-size", size))
    for number in range(5):
        _, one = results(tmp_path / "1", str(number))
        _, three = results(tmp_path / "3", str(number))
        assert one["segmentation"].shape == (60, 90 - number)
        np.testing.assert_allclose(one["depth_m"], three["depth_m"], rtol=2e-3)
        np.testing.assert_allclose(one["steering_deg"], three["steering_deg"], atol=2e-3)


def test_a_video_s_frames(checkpoint: Path, tmp_path: Path):
    film = cv2.VideoWriter(str(tmp_path / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for number in range(5):
        film.write(np.full((64, 96, 3), 40 * number, np.uint8))
    film.release()
    out = tmp_path / "out"
    done(amtl_predict(checkpoint, tmp_path / "drive.avi", "--out", out, "--no-pictures", "--batch-size", 2))
    names = [f"drive_{number:06d}" for number in range(5)]
    assert json.loads((out / "predictions.json").read_bytes())["names"] == names
    assert sorted(path.name for path in out.iterdir()) == ["arrays", "predictions.json", "values"]
    values, arrays = results(out, "drive_000004")
    assert values["input"].endswith("drive.avi, frame 4")
    assert arrays["depth_m"].shape == (64, 96)
    again = amtl_predict(checkpoint, tmp_path / "drive.avi", "--out", out)
    assert "exists: give another --out, or --overwrite" in again.stderr
    (out / "predictions.json").unlink()
    again = amtl_predict(checkpoint, tmp_path / "drive.avi", "--out", out)
    assert "drive_00000" in again.stderr


def test_a_damaged_film(checkpoint: Path, tmp_path: Path):
    """Its line names it and counts the frames, the exit code is 1, and each frame has its number and its own time."""
    film = write_film(tmp_path / "drive.mkv", Film(".mkv", "libx264", rate=20), 12)
    data = film.read_bytes()
    film.write_bytes(data[: len(data) * 3 // 4])
    out = tmp_path / "out"
    result = amtl_predict(checkpoint, film, save(tmp_path / "x.png"), "--out", out, "--no-arrays", "--no-pictures")
    assert result.exit_code == 1
    record = json.loads((out / "predictions.json").read_bytes())
    there = len(record["names"]) - 1
    assert 0 < there < 12
    assert record["names"] == [*(f"drive_{number:06d}" for number in range(there)), "x"]
    words = f"{12 - there} of 12 frames are lost: {there} to 11"
    assert f"left out {film}: {words}" in result.stdout
    assert result.stderr.startswith(f"amtl-predict: {12 - there} of 13 inputs could not be used ({film}: {words}")
    assert [(left["input"], left["frames"]) for left in record["left_out"]] == [(str(film), 12 - there)]
    assert record["frames"]["drive_000001"] == {"number": 1, "time_s": 0.05}
    values = json.loads((out / "values" / "drive_000001.json").read_bytes())
    assert (values["frame"], values["time_s"]) == (1, 0.05)


def test_no_result_replaces_another(checkpoint: Path, tiny: Path, tmp_path: Path):
    """A film, a picture that is named as one of its frames, pages, and a picture that is named as a sample's key."""
    film = write_film(tmp_path / "drive.mp4", Film(".mp4", "libx264"), 3)
    key = ShardSet(tiny).samples("val")[0].key
    Image.fromarray(picture(9, 6)).save(
        tmp_path / "drive.tif", save_all=True, append_images=[Image.fromarray(picture(9, 6, 1))]
    )
    inputs = [film, save(tmp_path / "drive_000000.png"), tmp_path / "drive.tif", save(tmp_path / f"{key}.png"), tiny]
    for number, order in enumerate((inputs, inputs[::-1])):
        out = tmp_path / str(number)
        result = done(amtl_predict(checkpoint, *order, "--out", out, "--no-pictures", "--no-arrays"))
        assert f"wrote {out}: 10 images" in result.stdout
        files = {path.stem: json.loads(path.read_bytes())["input"] for path in (out / "values").iterdir()}
        assert len(files) == len(set(files.values())) == 10
        assert sorted(files) == sorted(json.loads((out / "predictions.json").read_bytes())["names"])


def test_another_run_s_results_are_kept(checkpoint: Path, tmp_path: Path):
    """Frames, pages and the record of an earlier run, also where that appears only while predicting."""
    film = write_film(tmp_path / "drive.mp4", Film(".mp4", "libx264"), 2)
    pages = tmp_path / "drive.tif"
    Image.fromarray(picture(9, 6)).save(pages, save_all=True, append_images=[Image.fromarray(picture(9, 6, 1))])
    out = tmp_path / "out"
    done(amtl_predict(checkpoint, film, "--out", out, "--no-pictures", "--no-arrays", "--film"))
    (out / "predictions.json").unlink()
    for source, kept in ((pages, "values/drive_000000.json"), (film, "films/drive.mp4")):
        result = amtl_predict(checkpoint, source, "--out", out, "--no-pictures", "--no-arrays", "--film")
        assert result.stderr == f"amtl-predict: {out / kept} exists: give another --out, or --overwrite\n"
    done(amtl_predict(checkpoint, pages, "--out", out, "--no-pictures", "--no-arrays", "--overwrite"))
    predictor = Predictor.load(checkpoint, "cpu")
    folder = OutputFolder(tmp_path / "late", ["values"], predictor.context, overwrite=False)
    folder.claim([])
    frame = Frame("x", "x.png", picture(90, 60))
    found = predictor.predict(picture(90, 60))
    (tmp_path / "late" / "values" / "x.json").write_text("mine")
    with pytest.raises(ValueError, match=r"x.json exists: give another --out"):
        folder.write(frame, found)
    folder.write(Frame("y", "y.png", picture(90, 60)), found)
    with pytest.raises(ValueError, match="must be the result of one input, got a second one"):
        folder.write(Frame("y", "other/y.png", picture(90, 60)), found)


def test_a_film_of_the_pictures(checkpoint: Path, tmp_path: Path):
    """With the times of the film's own frames; a film for each film, and none for images."""
    films = [write_film(tmp_path / f"{name}.mkv", Film(".mkv", "libx264", rate=20), 5) for name in "ab"]
    out = tmp_path / "out"
    done(amtl_predict(checkpoint, *films, save(tmp_path / "x.png"), "--out", out, "--film", "--no-arrays",
                      "--no-pictures", "--workers", 3, "--batch-size", 2))  # fmt: skip
    assert sorted(path.name for path in (out / "films").iterdir()) == ["a.mp4", "b.mp4"]
    assert not (out / "pictures").exists()
    for path in (out / "films").iterdir():
        frames = list(read_film(path))
        assert [frame.time_s for frame in frames if isinstance(frame, FilmFrame)] == [0, 0.05, 0.1, 0.15, 0.2]
        assert min(frames[0].image.shape[:2]) > 300


def test_remarks_on_pictures(checkpoint: Path, tmp_path: Path):
    """What was assumed of a picture is printed, and kept with its values and in the record."""
    Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(40, 100)).save(tmp_path / "deep.png")
    Image.new("RGB", (50, 40)).save(tmp_path / "night.png")
    inputs = (tmp_path / "deep.png", tmp_path / "night.png")
    result = done(amtl_predict(checkpoint, *inputs, "--out", tmp_path / "out", "--no-arrays"))
    assert f"{tmp_path / 'deep.png'}: values up to 3999 are taken as 12 bits" in result.stdout
    assert f"{tmp_path / 'night.png'}: nearly black" in result.stdout
    record = json.loads((tmp_path / "out" / "predictions.json").read_bytes())
    assert [remark["remark"] for remark in record["remarks"]][1] == "nearly black"
    assert json.loads((tmp_path / "out" / "values" / "night.json").read_bytes())["remarks"] == ["nearly black"]
    options = ("--max-value", 65535, "--max-megapixels", 0.003)
    result = amtl_predict(checkpoint, *inputs, "--out", tmp_path / "2", "--no-arrays", *options)
    assert result.exit_code == 1
    assert "above the limit of 0.003 megapixels, which --max-megapixels raises" in result.stderr
    result = done(amtl_predict(checkpoint, inputs[0], "--out", tmp_path / "3", "--no-arrays", "--max-value", 99999))
    assert "nearly black" in result.stdout


def test_the_python_interface(checkpoint: Path):
    """One image or several, of any size, in their own pixels; the same as the network gives for the squeezed image."""
    predictor = train.deploy.Predictor.load(str(checkpoint), device="cpu")
    images = [picture(300, 200), picture(64, 90, 1)]
    results = [predictor.predict(image) for image in images]
    assert [(found.width_px, found.height_px) for found in results] == [(300, 200), (64, 90)]
    assert results[0].values["segmentation"].shape == (200, 300)
    for one, many in zip(results, predictor.predict_many(images), strict=True):
        np.testing.assert_allclose(one.values["depth"], many.values["depth"], rtol=1e-3)
    assert predictor.predict_many([]) == []
    for wrong in (picture(8, 8).astype(np.float32), picture(8, 8)[..., 0], picture(8, 8)[:0]):
        with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8 RGB, got"):
            predictor.predict(wrong)


def test_one_task_s_own_network(tmp_path: Path):
    checkpoint = write_checkpoint(tmp_path, "stl")
    done(amtl_predict(checkpoint, save(tmp_path / "x.png"), "--out", tmp_path / "out"))
    values, arrays = results(tmp_path / "out", "x")
    assert list(values) == ["input", "width_px", "height_px", "steering_deg"]
    assert list(arrays) == ["steering_deg"]


def test_a_bad_image_among_many(checkpoint: Path, tmp_path: Path):
    """Each is named with its reason, the rest goes on, and the exit code says that something was left out."""
    folder = tmp_path / "in"
    whole = save(folder / "sub" / "good.png")
    (folder / "cut.png").write_bytes(whole.read_bytes()[:-300])
    (folder / "text.jpg").write_text("no image")
    (folder / "notes.txt").write_text("passed over")
    (folder / "empty.bmp").touch()
    result = amtl_predict(checkpoint, folder, "--out", folder / "out")
    assert result.exit_code == 1
    assert result.stderr == (
        "amtl-predict: 3 of 4 inputs could not be used (not an image: 2, a damaged image: 1); the other 1 are in "
        f"{folder / 'out'}\n"
    )
    assert f"left out {folder / 'cut.png'}: a damaged image" in result.stdout
    assert "skipped 1 files of the folders" in result.stdout
    record = json.loads((folder / "out" / "predictions.json").read_bytes())
    assert record["names"] == ["sub_good"]
    assert len(record["left_out"]) == 3
    again = amtl_predict(checkpoint, folder, "--out", folder / "out", "--overwrite")  # its own pictures are no input
    assert "3 of 4 inputs" in again.stderr


def test_foreign_files_are_kept(checkpoint: Path, tmp_path: Path):
    """A file in the way is refused before anything is predicted; --overwrite takes its place, and touches no other."""
    out = tmp_path / "out"
    mine, other = out / "values" / "x.json", out / "arrays" / "mine.npz"
    for path in (mine, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    image = save(tmp_path / "x.png")
    result = amtl_predict(checkpoint, image, "--out", out)
    assert result.exit_code == 1
    assert result.stderr == f"amtl-predict: {mine} exists: give another --out, or --overwrite\n"
    assert mine.read_text() == "mine"
    assert not (out / "pictures" / "x.jpg").exists()
    done(amtl_predict(checkpoint, image, "--out", out, "--overwrite"))
    assert json.loads(mine.read_bytes())["width_px"] == 90
    assert other.read_text() == "mine"


def test_inputs_of_one_name(checkpoint: Path, tmp_path: Path):
    images = [save(tmp_path / folder / "x.png", seed=seed) for seed, folder in enumerate("ab")]
    done(amtl_predict(checkpoint, *images, "--out", tmp_path / "out", "--no-arrays"))
    assert sorted(path.name for path in (tmp_path / "out" / "values").iterdir()) == ["x.json", "x_2.json"]


def test_mistakes(checkpoint: Path, tiny: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    image = save(tmp_path / "x.png")
    (tmp_path / "cut.mp4").write_bytes(b"no film")
    (tmp_path / "text.pt").write_text("no")
    (tmp_path / "file").touch()
    (tmp_path / "calibration.json").write_text("{}")
    for arguments, code, message in (
        ((checkpoint, tmp_path / "nowhere.png"), 2, "nowhere.png' does not exist."),
        ((checkpoint, tmp_path / "empty"), 1, f"{tmp_path / 'empty'} holds no image: .png, .jpg, "),
        ((tmp_path / "text.pt", image), 1, "text.pt cannot be read (UnpicklingError): damaged, or not ours"),
        ((tmp_path / "none.pt", image), 2, "none.pt' does not exist"),
        ((checkpoint, tmp_path / "cut.mp4"), 1, "cut.mp4: no film, or one that was cut or damaged"),
        ((checkpoint, image, "--out", tmp_path / "file" / "x"), 1, "file/x cannot be written: Not a directory"),
        ((checkpoint, image, "--device", "cuda"), 1, "--device cuda needs a GPU that torch can use"),
        ((checkpoint, tiny, "--undistort"), 2, "the images of shards are undistorted already"),
        ((checkpoint, image, "--undistort"), 1, "(not of its camera's size, so that --undistort does not fit: 1)"),
        ((checkpoint, image, "--calibration", tmp_path / "calibration.json"), 2, "must be an object with `cameras`"),
    ):
        if "cuda" in arguments and torch.cuda.is_available():
            continue
        result = amtl_predict("--out", tmp_path / "out", *arguments)
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit)
        assert message in result.stderr
        assert code == 2 or len(result.stderr.splitlines()) == 1


def test_other_classes_are_refused(tmp_path: Path):
    """An id would get another class's name and colour."""
    checkpoint = write_checkpoint(tmp_path, "mtl")
    held = torch.load(checkpoint, weights_only=True)
    for names, message in (
        (["Mouse", *SEGMENTATION_CLASSES[1:]], "only it has ['Mouse'], it lacks ['Car']"),
        (list(SEGMENTATION_CLASSES[::-1]), "it has the same ones in another order"),
    ):
        held["facts"]["segmentation_classes"] = names
        torch.save(held, checkpoint)
        result = amtl_predict(checkpoint, save(tmp_path / "x.png"), "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert message in result.stderr
        assert not (tmp_path / "out").exists()


def test_read_image(tmp_path: Path):
    """As people see it: turned by its EXIF, 16 bits scaled, transparency and palettes resolved."""
    rgb = picture(8, 4)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=turned)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png"), np.rot90(rgb, -1))
    grey = np.array([[0, 256, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), [[[0] * 3, [1] * 3, [255] * 3]])
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(ValueError, match="floating point numbers, whose range is not known"):
        read_image(tmp_path / "floats.tif")
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgb)


def test_the_lens_follows_the_calibration():
    """A pixel of the straight image shows what the calibration puts there; near the corners that is 40 px away."""
    columns = np.repeat(np.arange(1920, dtype=np.float32)[None] / 8, 1208, axis=0)
    stored = np.repeat(columns.astype(np.uint8)[..., None], 3, axis=2)
    lens = Undistorter.of(FRONT_CENTER)
    x, y = (2000 - 80) / 2 - 700, 100.0
    expected = lens.maps[0][int(y), int(x)]
    camera, raw = FRONT_CENTER.undistorted, FRONT_CENTER.raw
    right, down = (x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy
    bend = 1 + FRONT_CENTER.distortion[0] * (right**2 + down**2)
    assert expected == pytest.approx(raw.cx + raw.fx * right * bend, abs=0.01)
    assert abs(int(lens.undistort(stored)[int(y), int(x), 0]) - expected / 8) <= 1


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("20180807145028_camera_frontcenter_000006882", "frontcenter"),
        ("cam_front_left_20181008095521_camera_frontleft_000000123", "frontleft"),
        ("holiday", "frontcenter"),
    ],
)
def test_camera_of(name: str, camera: str):
    assert camera_of(name) == camera


def test_another_camera_needs_its_calibration():
    frame = Frame("1_camera_sideleft_2", "", np.zeros((1208, 1920, 3), np.uint8))
    refused = FrameUndistorter().undistorted(frame)
    assert (refused.image, refused.reason) == (None, "of camera sideleft, which needs --calibration")
    assert FrameUndistorter({"sideleft": FRONT_CENTER}).undistorted(frame).image is not None


@pytest.mark.parametrize("angle_deg", [-90.0, -10.0, 0.0, 45.0])
def test_the_way_is_a_bicycle_s_circle(angle_deg: float):
    x, y, heading = ground_path([angle_deg] * 10).T
    turn = np.deg2rad(-angle_deg / STEERING_RATIO)
    assert heading[-1] == pytest.approx(PATH_M * np.tan(turn) / WHEELBASE_M)
    if angle_deg:
        radius = WHEELBASE_M / np.tan(turn)
        np.testing.assert_allclose(np.hypot(x, y - radius), abs(radius), rtol=1e-3)


def test_later_angles_bend_the_later_way():
    _, y, _ = ground_path([0.0] * 5 + [-60.0] * 5).T
    assert np.abs(y[: len(y) // 2]).max() == 0
    assert y[-1] > 1  # to the left


def test_the_way_in_a_frame():
    """Straight ahead: as wide as the car, about the camera's axis, in any size of frame; and left is left."""
    left, right = wheel_tracks([0.0] * 10, 1920, 1208)
    camera = FRONT_CENTER.undistorted
    np.testing.assert_allclose((left[:, 0] + right[:, 0]) / 2, camera.cx, atol=1e-6)
    near_m = camera.fy * 1.7 / (left[0, 1] - camera.cy)
    assert right[0, 0] - left[0, 0] == pytest.approx(camera.fx * CAR_WIDTH_M / near_m)
    small, _ = wheel_tracks([0.0] * 10, 256, 256)
    np.testing.assert_allclose((small + 0.5) / 256, (left + 0.5) / [1920, 1208])
    bent, _ = wheel_tracks([-40.0] * 10, 1920, 1208)
    assert bent[-1, 0] < left[-1, 0] - 100
    drawn = draw_path(np.zeros((120, 200, 3), np.uint8), [-30.0] * 10)
    assert drawn[60:].any()
    assert not drawn[:60].any()


def test_a_stop_keeps_what_is_written(checkpoint: Path, tmp_path: Path):
    predictor = Predictor.load(checkpoint, "cpu")
    sources, _ = find_sources([save(tmp_path / f"{number}.png") for number in range(6)], "val", tmp_path)
    written: list[str] = []
    with pytest.raises(Stopped):
        predict_frames(
            predictor, sources, batch_size=2, workers=1, prepare=lambda frame: frame,
            write=lambda frame, found: written.append(frame.name), done=lambda frame: None,
            stopping=lambda: bool(written),
        )  # fmt: skip
    assert 2 <= len(written) < 6


@pytest.mark.parametrize(("tasks", "across"), [(("depth",), 2), (("depth", "steering"), 3), (TASKS, 2)])
def test_no_place_in_a_picture_stays_empty(tasks: tuple[str, ...], across: int):
    """Four pictures are two rows of two, three are one row."""
    values = {"depth": np.full((64, 64), 9, np.float32), "steering": [1.0] * 10, "boxes": [],
              "segmentation": np.zeros((64, 64), np.uint8)}  # fmt: skip
    found = Prediction(64, 64, {task: values[task] for task in tasks})
    drawn = draw_prediction(np.full((64, 64, 3), 90, np.uint8), found, "x", picture_context(64, 123.0))
    alone = draw_prediction(np.full((64, 64, 3), 90, np.uint8), Prediction(64, 64, {}), "x", picture_context(64, 123.0))
    assert drawn.shape[1] // alone.shape[1] == across
    for half in np.array_split(drawn[-960:, -900:], 2):
        assert (half != 24).any()
