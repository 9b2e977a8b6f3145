"""Docstrings say what a thing is or does: none begins with a word that leaves the subject out."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("preprocess", "shards", "models", "train", "synth")
RIDDLES = ("What ", "Of ", "Those ", "That ", "Without which ", "Whatever ", "How ", "Who ")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_docstring_leaves_its_subject_out(package: str) -> None:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if text.startswith(RIDDLES):
                    found.append(f"{path.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert found == []
