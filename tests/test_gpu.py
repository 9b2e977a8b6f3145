"""A GPU's side of training, looked at without one: whole steps, evaluation and the command on fake CUDA tensors.

See fake_cuda.py. Every test here reads one case of the report that a process with the hooks preloaded wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models.norms import group_norm
from tests.fake_gpu_cases import cases
from train.config import Precision
from train.engine import precision

ROOT = Path(__file__).parents[1]
TORCH = Path(torch.__file__).parent
NAMES = tuple(cases())
STEPS = tuple(name for name in NAMES if name not in ("measuring", "command"))


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each case's report."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the hooks of a fake GPU need g++ to be built")
    folder = tmp_path_factory.mktemp("gpu")
    library, out = folder / "fake_cuda_hooks.so", folder / "reports.json"
    built = subprocess.run(
        [compiler, "-std=c++20", "-shared", "-fPIC", "-O0", f"-I{TORCH}/include",
         str(ROOT / "tests/fake_cuda_hooks.cpp"), "-o", str(library), f"-L{TORCH}/lib", "-lc10",
         f"-Wl,-rpath,{TORCH}/lib"],
        capture_output=True, text=True, check=False)  # fmt: skip
    if built.returncode:
        pytest.skip(f"the hooks of a fake GPU do not build here: {built.stderr.splitlines()[0]}")
    ran = subprocess.run([sys.executable, "-m", "tests.fake_gpu_cases", str(out)], cwd=ROOT, text=True, check=False,
                         capture_output=True, env={**os.environ, "LD_PRELOAD": str(library)})  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_all_tensors_meet_on_one_device(name: str, reports: dict[str, Any]) -> None:
    assert reports[name]["error"] == ""


@pytest.mark.parametrize("name", STEPS)
def test_nothing_waits_for_the_gpu_between_two_lines_of_the_log(name: str, reports: dict[str, Any]) -> None:
    assert reports[name]["waits"] == []


@pytest.mark.parametrize("name", STEPS)
def test_maps_stay_channels_last(name: str, reports: dict[str, Any]) -> None:
    assert reports[name]["outside_channels_last"] == []


@pytest.mark.parametrize("name", [name for name in STEPS if name.endswith("bf16")])
def test_maps_stay_in_bf16(name: str, reports: dict[str, Any]) -> None:
    assert reports[name]["float32"] == []


@pytest.mark.parametrize("groups", [4, 32])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_gpus_group_norm_is_pytorchs(groups: int, dtype: torch.dtype) -> None:
    """Outputs and all gradients, where every input is one that bf16 holds exactly."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 32, 5, 6)
    made = [(2 * torch.randn(size, generator=generator) + 1).bfloat16() for size in (shape, (32,), (32,), shape)]
    results = []
    for ours in (True, False):
        maps, weight, bias, gradient = (value.to(dtype if ours else torch.float64) for value in made)
        if ours and dtype == torch.bfloat16:
            weight, bias = weight.float(), bias.float()
        maps = maps.contiguous(memory_format=torch.channels_last)
        for value in (maps, weight, bias):
            value.requires_grad_()
        if ours:
            out = group_norm(maps, groups, weight, bias, 1e-5)[0]
            assert out.dtype == dtype
            assert out.is_contiguous(memory_format=torch.channels_last)
        else:
            out = torch.nn.functional.group_norm(maps, groups, weight, bias, 1e-5)
        out.backward(gradient)
        results.append([value.double() for value in (out, maps.grad, weight.grad, bias.grad)])
    tolerance = {"rtol": 0, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 8e-2}
    for ours_of, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours_of, theirs, **tolerance)


@pytest.mark.parametrize(
    ("device", "capability", "flags", "expected"),
    [("cuda", 8, "", "bf16"), ("cuda", 7, "amx_bf16", "fp32"), ("cpu", 8, "fpu avx512_bf16", "bf16"),
     ("cpu", 8, "fpu amx_bf16", "bf16"), ("cpu", 8, "fpu avx512f avx512_bf16x", "fp32")],
    ids=["Ampere", "Turing", "AVX512-BF16", "AMX", "AVX-512 alone"],
)  # fmt: skip
def test_auto_is_bf16_where_the_device_computes_in_it(
    device: str, capability: int, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (capability, 0))
    found, line = precision.settle_precision("auto", torch.device(device))
    assert found == expected
    assert line is not None
    assert f"is {expected}" in line
    assert precision.settle_precision("tf32", torch.device(device)) == ("tf32", None)


@pytest.mark.parametrize(("name", "rounded"), [("fp32", False), ("bf16", False), ("tf32", True)])
def test_float32_is_rounded_where_tf32_was_asked_for(name: Precision, rounded: bool) -> None:
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    try:
        products.allow_tf32 = convolutions.allow_tf32 = not rounded
        precision.set_float32_mode(name)
        assert (products.allow_tf32, convolutions.allow_tf32) == (rounded, rounded)
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
