"""Provenance of a result: library versions, and the commit of the code where it is a git checkout."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("asymmetric-mtl", "torchvision", "numpy", "opencv-python-headless")
_PATIENCE_S = 10.0


@cache
def provenance() -> dict[str, Any]:
    """`versions` by name, and `commit`: None outside a checkout, with `+ changes` where files differ from it."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__), **_versions()}  # with its CUDA
    return {"versions": versions, "commit": commit_of(Path(__file__))}


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a folder that was never installed
            continue
    return found


def commit_of(file: Path) -> str | None:
    """The commit of the checkout that tracks the file; None where there is none, or no git."""
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:  # an environment inside another's checkout
        return None
    commit = _git(file.parent, "rev-parse", "HEAD")
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return f"{commit} + changes" if commit and changed else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output, None where it fails."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
