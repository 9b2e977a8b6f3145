"""A module of the user's that hides one of our packages ends a command with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import asymmetric_mtl

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["models.py", "train.py", "shards.py", "preprocess/__init__.py"])
def test_a_hidden_package_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise RuntimeError('loaded')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    call = [sys.executable, "-c", "import asymmetric_mtl; asymmetric_mtl.a2d2_prep()", "--help"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path.parent)
    assert (done.returncode, done.stdout) == (1, "")
    package = name.removesuffix("/__init__.py").removesuffix(".py")
    assert done.stderr.startswith(f"a2d2-prep: {tmp_path / name} hides the package `{package}`")
    assert done.stderr.count("\n") == 1


def test_a_folder_of_data_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shards").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert asymmetric_mtl.hidden_package() is None


def test_every_package_is_checked() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"} == set(asymmetric_mtl.PACKAGES)


def test_every_command_goes_through_the_check() -> None:
    commands = (ROOT / "setup.cfg").read_text().partition("console_scripts =\n")[2].partition("\n\n")[0]
    functions = [line.partition("asymmetric_mtl:")[2] for line in commands.splitlines()]
    assert len(functions) == 6
    assert all(callable(getattr(asymmetric_mtl, name)) for name in functions)
