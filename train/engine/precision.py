"""The precision of the network's arithmetic: what `auto` comes to on a device, and what float32 means on a GPU."""

from __future__ import annotations

from pathlib import Path

import torch

from train.config import Precision

BF16_FLAGS = {"amx_bf16", "avx512_bf16"}  # of a CPU that multiplies in bf16
AMPERE = 8  # the first compute capability that does
_CPUINFO = Path("/proc/cpuinfo")


def settle_precision(asked: Precision, device: torch.device) -> tuple[Precision, str | None]:
    """Return the precision to train in and, where `auto` decided it, a line that says so."""
    if asked != "auto":
        return asked, None
    found: Precision = "bf16" if computes_bf16(device) else "fp32"
    does = "computes" if found == "bf16" else "does not compute"
    return found, f"--precision auto is {found}: this {'GPU' if device.type == 'cuda' else 'CPU'} {does} in bf16"


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; others would emulate it, slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= AMPERE
    return bool(BF16_FLAGS & cpu_flags())


def cpu_flags() -> set[str]:
    """Return the instruction sets of this CPU as Linux names them; none on other systems."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def set_float32_mode(precision: Precision) -> None:
    """Let a GPU round float32 products to TF32 for `tf32` alone; PyTorch's default does so in convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
