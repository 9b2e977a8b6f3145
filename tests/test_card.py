"""The model card: all of a checkpoint's origin and results, in plain words, and never over somebody's own text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.manifest import read_manifest
from shards.reader import ShardSet
from tests.test_train_cli import amtl_eval, amtl_train
from tests.tiny_shards import write_tiny_shards
from train.engine.checkpoint import load_checkpoint
from train.engine.provenance import commit_of, provenance
from train.report.model_card import MARK, model_card, write_card
from train.report.text import number
from train.run_folder import CARD_FILE as CARD

OPTIONS = ("--weights", "none", "--backbone", "resnet18", "--width", "0.125", "--epochs", 1, "--seed", 3, "--precision",
           "fp32")  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_shards(tmp_path_factory.mktemp("card") / "shards")


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("card") / "run"
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = amtl_train("--mode", "asymmetric", "--shards", tiny, "--out", out, *OPTIONS)
    torch.set_num_threads(before)
    assert result.exit_code == 0, result.output
    assert f"model card: {out / CARD}" in result.output
    return out


def record_of(run: Path, **changes: Any) -> dict[str, Any]:
    return {**json.loads((run / "eval.json").read_bytes()), **changes}


def config_of(run: Path) -> str:
    return (run / "config.toml").read_text()


def test_a_run_leaves_a_card_with_all_of_its_origin(run: Path, tiny: Path):
    card, held = (run / CARD).read_text(), load_checkpoint(run / "best.pt")
    assert card.startswith(MARK)
    for text in (
        "The multi-task network on resnet18, width 0.125,",
        held["manifest_sha256"],
        "trained asymmetrically",
        "Mode asymmetric, seed 3, order of the items: items; 1 epoch;",
        "```toml\nmode = ",
        f"torch {torch.__version__}",
        "Not for driving",
    ):
        assert text in card, text
    totals = read_manifest(tiny)["totals"]
    assert f"| boxes | {totals['train']['labels']['boxes']} | {totals['val']['labels']['boxes']} |" in card
    for row in record_of(run)["metrics"]:
        assert f"| {row['task']} | {row['metric']} | {row['unit']} | {number(row['value'])} | " in card, row
    assert "another set" not in card


def test_fingerprints_and_what_is_no_better_than_a_constant(run: Path):
    rows = record_of(run)["metrics"]
    rows[0]["better"], rows[1]["better"] = False, True
    record = record_of(run, metrics=rows[:2], fingerprints={"depth": "4ec5feeee9479750"}, notes=["mind the scale"])
    card = model_card("best.pt", record, config_of(run))
    assert "| `4ec5feeee9479750` |" in card
    assert f"A constant prediction does as well or better in {rows[0]['task']} {rows[0]['metric']}.\n" in card
    assert "| **no** |" in card
    assert "Note: mind the scale." in card


def test_a_card_speaks_of_the_data_that_were_trained_on(run: Path):
    """Synthetic data are called that; of data that do not name themselves nothing is claimed."""
    unknown = model_card("best.pt", record_of(run), config_of(run))
    trained = record_of(run)["trained"] | {"data_set": "synthetic"}
    synthetic = model_card("best.pt", record_of(run, trained=trained), config_of(run))
    assert "**synthetic**" in synthetic
    assert "Synthetic shards whose" in synthetic
    for text in ("ynthetic", "A2D2", "14 kinds", "knows the roads"):
        assert text not in unknown, text


def test_nothing_measured_is_said(run: Path):
    card = model_card("best.pt", record_of(run, metrics=[]), config_of(run))
    assert "Nothing was measured: split val has no sample." in card


def test_evaluation_writes_it_beside_the_checkpoint(run: Path, tmp_path: Path):
    """On another set, which it says; of last.pt under that name; never of the train split, nor over a changed card."""
    other = write_tiny_shards(tmp_path / "other", val=((("depth", "boxes"),),))
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in ("best.pt", "last.pt"):
        (folder / name).write_bytes((run / name).read_bytes())
    assert amtl_eval(folder / "best.pt", "--shards", other, "--split", "train").exit_code == 0
    assert not (folder / CARD).exists()
    of_set = CARD.replace(".md", f"-{ShardSet(other).sha256[:8]}.md")
    result = amtl_eval(folder / "last.pt", "--shards", other)
    assert f"model card: {folder / f'last.{of_set}'}" in result.output
    result = amtl_eval(folder / "best.pt", "--shards", other)
    assert result.exit_code == 0, result.output
    card = (folder / of_set).read_text()
    assert "It was measured on **another set**" in card
    assert "On 1 sample of split val" in card
    (folder / of_set).write_text("my own words")
    result = amtl_eval(folder / "best.pt", "--shards", other)
    assert f"{folder / of_set} is left as it is" in result.output
    assert (folder / of_set).read_text() == "my own words"
    assert not (folder / CARD).exists(), "that name is for the set that the checkpoint was trained on"


def test_a_folder_that_cannot_be_written_is_no_error(run: Path, tmp_path: Path):
    said = write_card(tmp_path / "gone" / "best.pt", record_of(run), config_of(run))
    assert said.startswith(f"no model card: {tmp_path / 'gone' / CARD} cannot be written (No such file")


def test_the_commit_is_that_of_the_checkout_that_tracks_the_file(tmp_path: Path):
    """A package in an environment that lies inside somebody's checkout is not of that checkout."""
    file, other = tmp_path / "a.py", tmp_path / "b.py"
    file.write_text("a")
    other.write_text("b")
    assert commit_of(file) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@y"]
    for arguments in (["init", "-q"], ["add", "a.py"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert commit_of(file) == commit
    assert commit_of(other) is None
    file.write_text("changed")
    assert commit_of(file) == f"{commit} + changes"
    assert provenance()["versions"]["torch"] == torch.__version__
