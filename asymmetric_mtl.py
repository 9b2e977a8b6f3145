"""The console scripts: each checks that no other module hides the packages of this project, then runs its command.

This module lies outside the packages, under a name that nobody else uses, so that it can always be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

PACKAGES = ("preprocess", "shards", "models", "synth", "train")
_HOME = Path(__file__).resolve().parent


def hidden_package() -> str | None:
    """One line about the first package of ours that Python would not find, or find elsewhere; None where all is well.

    A user's own `models.py` or `train/__init__.py` in a folder of PYTHONPATH comes before installed packages.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found is None:
            return f"the package `{name}` is missing from {_HOME}: install asymmetric-mtl again"
        if found != _HOME / name / "__init__.py":
            return f"{found} hides the package `{name}` of asymmetric-mtl: rename it, or take its folder off PYTHONPATH"
    return None


def _run(program: str, module: str) -> None:
    if (line := hidden_package()) is not None:
        sys.stderr.write(f"{program}: {line}\n")
        sys.exit(1)
    importlib.import_module(module).main()


def a2d2_prep() -> None:
    """`a2d2-prep`"""
    _run("a2d2-prep", "preprocess.cli")


def amtl_train() -> None:
    """`amtl-train`"""
    _run("amtl-train", "train.cli.train")


def amtl_eval() -> None:
    """`amtl-eval`"""
    _run("amtl-eval", "train.cli.evaluate")


def amtl_report() -> None:
    """`amtl-report`"""
    _run("amtl-report", "train.cli.report")


def amtl_export() -> None:
    """`amtl-export`"""
    _run("amtl-export", "train.cli.export")


def amtl_predict() -> None:
    """`amtl-predict`"""
    _run("amtl-predict", "train.cli.predict")
