"""A deployed network as one file, ONNX or PyTorch's own pt2, that exists only if it gives the network's outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import Dim, ExportedProgram

from shards.writer import PARTIAL
from train.deploy.inference import INPUT, InferenceModel

METADATA_FILE = "metadata.json"  # inside a pt2 file
_NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}  # libraries of the extra `export`
TOLERANCE = 1e-4  # of an output's range
PIXEL_TOLERANCE = 1e-3  # of all pixels, where the output is a class id: two classes tie somewhere along every border
_BATCH = "batch"  # the name of the side of any length
_FREE_EXAMPLE = 2  # images while tracing: a batch of one would be taken for a constant
_FREE_CHECKS = (1, 3)  # images in the batches that are compared where the batch is free


def check_extra(file_format: str) -> None:
    """Raises ValueError where a library that the format needs is not installed."""
    try:
        for library in _NEEDED[file_format]:
            import_module(library)
    except ImportError as error:
        raise ValueError(
            f"--format {file_format} needs the extra `export`: pip install 'asymmetric-mtl[export]' ({error})"
        ) from error


def write_export(
    path: Path, module: InferenceModel, file_format: str, metadata: Mapping[str, str], batch: int | None
) -> dict[str, float]:
    """Write the file, read it back, and compare its outputs with the network's.

    The file has its name only if they agree. Returns the greatest difference of each output as a share of its range
    (class ids: the share of pixels that differ). Raises ValueError where one is above its tolerance.
    """
    if path.exists():
        raise ValueError(f"{path} exists: give another --out, or remove it")
    partial = path.with_name(path.name + PARTIAL)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        program = _traced(module, batch)
        write = _write_onnx if file_format == "onnx" else _write_pt2
        write(partial, program, metadata)
        shares = compare(partial, module, file_format, batch)
        for name, share in shares.items():
            allowed = PIXEL_TOLERANCE if name == "segmentation" else TOLERANCE
            if not share <= allowed:
                raise ValueError(
                    f"{path.name} must give the network's {name} to {allowed:g} of its "
                    f"{'pixels' if name == 'segmentation' else 'range'}, got {share:.1e}: nothing was written"
                )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return shares


def _traced(module: InferenceModel, batch: int | None) -> ExportedProgram:
    example = drawn_images(batch or _FREE_EXAMPLE, module.size_px)
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=None if batch else {INPUT: {0: Dim(_BATCH)}})


def _write_onnx(path: Path, program: ExportedProgram, metadata: Mapping[str, str]) -> None:
    free = json.loads(metadata["input"])["shape"][0] == _BATCH
    names = [output["name"] for output in json.loads(metadata["outputs"])]
    exported = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=names,
        dynamic_shapes={INPUT: {0: _BATCH}} if free else None,  # names the side alone: the program has its shapes
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    exported.model.metadata_props.update(metadata)
    exported.save(str(path))


def _write_pt2(path: Path, program: ExportedProgram, metadata: Mapping[str, str]) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata, indent=1)})


def compare(path: Path, module: InferenceModel, file_format: str, batch: int | None) -> dict[str, float]:
    """The file against the network, on drawn images: see `write_export`."""
    worst: dict[str, float] = {}
    for count in (batch,) if batch else _FREE_CHECKS:
        images = drawn_images(count, module.size_px)
        with torch.no_grad():
            expected = module(images)
        found = run_onnx(path, images) if file_format == "onnx" else run_pt2(path, images)
        for name, share in differences(expected, found).items():
            worst[name] = max(worst.get(name, 0.0), share)
    return worst


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, float]:
    """Per output the greatest difference over its range; of class ids, the share that differs."""
    shares = {}
    for name, values in expected.items():
        if found[name].shape != values.shape or found[name].dtype != values.dtype:
            raise ValueError(f"{name} must be {values.dtype} {tuple(values.shape)}, got {tuple(found[name].shape)}")
        if not values.dtype.is_floating_point:
            shares[name] = (found[name] != values).float().mean().item()
            continue
        spread = (values.max() - values.min()).clamp(min=torch.finfo(values.dtype).tiny)
        shares[name] = ((found[name] - values).abs().max() / spread).item()
    return shares


def run_onnx(path: Path, images: Tensor) -> dict[str, Tensor]:
    """An ONNX file's outputs for (B, S, S, 3) uint8 images, by onnxruntime on the CPU."""
    session = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {INPUT: images.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def run_pt2(path: Path, images: Tensor) -> dict[str, Tensor]:
    """A pt2 file's outputs for (B, S, S, 3) uint8 images."""
    with path.open("rb") as file, torch.no_grad():
        outputs: dict[str, Tensor] = torch.export.load(file).module()(images)
    return outputs


def drawn_images(count: int, size_px: int) -> Tensor:
    """(count, S, S, 3) uint8 of coarse and fine noise, the same every time: something for every scale to see."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.zeros(count, 3, size_px, size_px)
    for side in (4, 32, size_px):
        noise = torch.rand(count, 3, side, side, generator=generator)
        levels += F.interpolate(noise, size=(size_px, size_px), mode="bilinear", align_corners=False)
    return (levels / 3 * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
