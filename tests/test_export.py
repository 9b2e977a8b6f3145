"""`amtl-export`: files that give the network's outputs, say what they mean, and mistakes of one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from shards.classes import BOX_CLASSES, SEGMENTATION_CLASSES
from shards.codec import decode_image
from tests.tiny_shards import members_of
from train.cli import export
from train.config import to_document
from train.deploy import export as export_room
from train.deploy.export import METADATA_FILE, TOLERANCE, differences, run_onnx, run_pt2
from train.deploy.inference import InferenceModel, load_inference_model
from train.engine.checkpoint import build_network, load_checkpoint, network_facts, save_checkpoint
from train.engine.objective import Objective
from train.presets import build_config
from train.tasks.box_grid import boxes_of_grid

SIZE = 256
DOCUMENTS: dict[str, dict[str, Any]] = {
    "mtl": {"mode": "asymmetric", "network": {"backbone": "resnet18", "norm": "group", "width": 0.125}},
    "stl": {"mode": "single", "task": "steering", "network": {"width": 0.125}},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_checkpoint(folder: Path, name: str, **changes: Any) -> Path:
    torch.manual_seed(0)
    config = build_config(DOCUMENTS[name])
    facts = network_facts(SIZE, 123.0, normalise=name == "mtl", weights="scratch: a test")
    network = build_network(config, facts)
    for head in network.heads.values():  # so that predictions spread as a trained network's do
        last = [parameter for parameter in head.parameters() if parameter.ndim > 1][-1]
        last.data *= 10
    path = folder / f"{name}.pt"
    document = {"config": to_document(config), "facts": facts, "weights": network.state_dict(),
                "progress": {"epoch": 3}, "tasks": list(config.tasks), "manifest_sha256": "ab" * 32}  # fmt: skip
    save_checkpoint(path, {**document, **changes})
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("export"), "mtl")


@pytest.fixture(scope="module")
def onnx_file(checkpoint: Path) -> Path:
    """All four tasks, class scores, any batch."""
    result = amtl_export(checkpoint, "--logits")
    assert result.exit_code == 0, result.output
    return checkpoint.with_suffix(".onnx")


@pytest.fixture(scope="module")
def ten_images() -> Tensor:
    """(10, 256, 256, 3) uint8, of shards."""
    return torch.from_numpy(np.stack([decode_image(members_of(frame, ())["image.jpg"]) for frame in range(10)]))


def amtl_export(*arguments: object) -> Result:
    return CliRunner().invoke(export.main, [str(argument) for argument in arguments])


def one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.strip().splitlines()
    assert code == 2 or len(lines) == 1, result.stderr
    return lines[-1]


def restored(path: Path, logits: bool = False) -> tuple[InferenceModel, Objective]:
    """As a file holds it, and as the trainer runs it."""
    held = load_checkpoint(path)
    module, config = load_inference_model(held, held["tasks"], logits)
    network = build_network(config, held["facts"])
    network.load_state_dict(held["weights"])
    objective = Objective(network.eval(), device=torch.device("cpu"), normalise=held["facts"]["normalise"],
                          context=module.context)  # fmt: skip
    return module, objective


def test_it_says_what_the_trainer_measures(checkpoint: Path, ten_images: Tensor):
    """In natural units: degrees, class ids, metres, and the boxes that the metrics see, in pixels."""
    module, objective = restored(checkpoint)
    with torch.no_grad():
        found = module(ten_images[:2])
        outputs = objective.network(objective.images(ten_images[:2]))
    natural = {task: objective.natural(task, output) for task, output in outputs.items()}
    torch.testing.assert_close(found["steering_deg"], natural["steering"])
    assert torch.equal(found["segmentation"].long(), natural["segmentation"])
    torch.testing.assert_close(found["depth_m"], natural["depth"])
    for row, grid in enumerate(natural["boxes"]):
        torch.testing.assert_close(found["boxes_px"][row], boxes_of_grid(grid) * SIZE)
        scores = grid[..., :1].clamp(0, 1) * grid[..., 5:].clamp(0, 1)
        torch.testing.assert_close(found["box_scores"][row], scores.reshape(640, 14))
    assert 0 < found["box_scores"].max() <= 1


def test_onnx_gives_pytorchs_outputs_on_ten_images(checkpoint: Path, onnx_file: Path, ten_images: Tensor):
    module, _ = restored(checkpoint, logits=True)
    with torch.no_grad():
        expected = module(ten_images)
    found = run_onnx(onnx_file, ten_images)
    assert list(found) == ["steering_deg", "segmentation_logits", "boxes_px", "box_scores", "depth_m"]
    for name, values in expected.items():
        spread = (values.max() - values.min()).item()
        assert spread > 0
        assert (found[name] - values).abs().max().item() <= 1e-4 * spread, name


def test_the_file_says_what_its_numbers_mean(onnx_file: Path):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(uint8)", ["batch", SIZE, SIZE, 3])
    held = session.get_modelmeta().custom_metadata_map
    assert json.loads(held["segmentation_classes"]) == list(SEGMENTATION_CLASSES)
    assert json.loads(held["box_classes"]) == list(BOX_CLASSES)
    assert json.loads(held["tasks"]) == ["steering", "segmentation", "boxes", "depth"]
    assert "RGB 0..255" in json.loads(held["input"])["meaning"]
    outputs = {output["name"]: output for output in json.loads(held["outputs"])}
    assert [output.name for output in session.get_outputs()] == list(outputs)
    for output in session.get_outputs():
        assert output.shape == outputs[output.name]["shape"], output.name
        assert output.type == "tensor(float)"
        assert outputs[output.name]["dtype"] == "float32"
    assert "degrees" in outputs["steering_deg"]["meaning"]
    assert "metres" in outputs["depth_m"]["meaning"]


def test_pt2_of_some_tasks(checkpoint: Path, ten_images: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """It needs no library beside torch, and holds no head that was not asked for."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, library, None)
    path = tmp_path / "new" / "two.pt2"
    result = amtl_export(checkpoint, "--format", "pt2", "--tasks", "segmentation,steering", "--out", path)
    assert result.exit_code == 0, result.output
    assert "steering_deg  float32 (batch, 10); differs from PyTorch by 0.0e+00 of its range" in result.stdout
    module, _ = restored(checkpoint)
    with torch.no_grad():
        expected = module(ten_images)
    found = run_pt2(path, ten_images)
    assert list(found) == ["steering_deg", "segmentation"]
    assert found["segmentation"].dtype == torch.uint8
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name])
    extra = {METADATA_FILE: ""}
    program = torch.export.load(path, extra_files=extra)
    assert {name.split(".")[2] for name in program.state_dict if ".heads." in name} == {"steering", "segmentation"}
    assert json.loads(json.loads(extra[METADATA_FILE])["tasks"]) == ["steering", "segmentation"]


def test_a_task_s_own_network_and_a_fixed_batch(tmp_path: Path, ten_images: Tensor):
    path = write_checkpoint(tmp_path, "stl")
    result = amtl_export(path, "--batch", 2)
    assert result.exit_code == 0, result.output
    assert "uint8 (2, 256, 256, 3) RGB" in result.stdout
    module, _ = restored(path)
    with torch.no_grad():
        shares = differences(module(ten_images[:2]), run_onnx(tmp_path / "stl.onnx", ten_images[:2]))
    assert shares["steering_deg"] <= TOLERANCE
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run_onnx(tmp_path / "stl.onnx", ten_images[:3])
    assert (
        one_line(amtl_export(path), 1)
        == f"amtl-export: {tmp_path / 'stl.onnx'} exists: give another --out, or remove it"
    )


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def off(path: Path, images: Tensor) -> dict[str, Tensor]:
        found = run_pt2(path, images)
        spread = found["steering_deg"].max() - found["steering_deg"].min()
        return {"steering_deg": found["steering_deg"] + 2e-4 * spread}

    monkeypatch.setattr(export_room, "run_pt2", off)
    line = one_line(amtl_export(write_checkpoint(tmp_path, "stl"), "--format", "pt2"), 1)
    assert line == ("amtl-export: stl.pt2 must give the network's steering_deg to 0.0001 of its range, got 2.0e-04: "
                    "nothing was written")  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["stl.pt"]


@pytest.mark.parametrize(
    ("expected", "found", "share"),
    [
        (torch.tensor([0.0, 2.0]), torch.tensor([0.0, 2.1]), 0.05),
        (torch.tensor([3, 4, 5, 5], dtype=torch.uint8), torch.tensor([3, 4, 4, 5], dtype=torch.uint8), 0.25),
    ],
    ids=["of the range", "of the pixels"],
)
def test_differences(expected: Tensor, found: Tensor, share: float):
    assert differences({"x": expected}, {"x": found}) == {"x": pytest.approx(share)}


def test_another_shape_or_type_is_no_difference_but_an_error():
    for other in (torch.ones(3), torch.ones(2, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"^x must be torch\.float32"):
            differences({"x": torch.ones(2)}, {"x": other})


def test_a_missing_extra(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    line = one_line(amtl_export(checkpoint, "--out", tmp_path / "x.onnx"), 1)
    assert line.startswith(
        "amtl-export: --format onnx needs the extra `export`: pip install 'asymmetric-mtl[export]' ("
    )
    assert "onnxruntime" in line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--tasks", "depth,box"), 2, "must be a list from steering,segmentation,boxes,depth, got depth,box"),
        (("--batch", "0"), 2, "must be free or a number of at least 1, got 0"),
        (("--batch", "many"), 2, "must be free or a number of at least 1, got many"),
        (("--format", "tflite"), 2, "'tflite' is not one of 'onnx', 'pt2'"),
        (("--tasks", "depth"), 1, "tasks must be among boxes, got depth: no other was trained"),
    ],
    ids=["task", "no image", "text", "format", "not trained"],
)
def test_mistakes(arguments: tuple[str, ...], code: int, message: str, tmp_path: Path):
    path = write_checkpoint(tmp_path, "mtl", tasks=["boxes"])
    assert message in one_line(amtl_export(path, *arguments), code)


def test_what_is_no_checkpoint(tmp_path: Path):
    (tmp_path / "x.pt").write_bytes(b"no")
    assert "x.pt cannot be read" in one_line(amtl_export(tmp_path / "x.pt"), 1)
