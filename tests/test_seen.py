"""Checkpoints know the samples that they were trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shards.reader import ShardSet
from tests.test_checkpoint import Quiet
from tests.test_train_cli import SMALL, amtl_eval, amtl_train, one_line
from tests.tiny_shards import ALL, write_tiny_shards
from tests.toy import ToyNet
from train.deploy.inputs import ShardSplit
from train.deploy.tally import Tally
from train.engine import outcome
from train.engine import run as run_room
from train.engine.checkpoint import load_checkpoint
from train.engine.seen import count_seen, digests, joined
from train.run_folder import CARD_FILE


@pytest.fixture(autouse=True)
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (run_room, outcome):
        monkeypatch.setattr(room, "build_network", lambda config, facts: ToyNet(config.tasks))


def test_digests_are_small_sorted_and_of_their_own_key():
    found = digests(["b", "a", "b"])
    assert found.dtype == torch.int64
    assert found.tolist() == sorted({*digests(["a"]).tolist(), *digests(["b"]).tolist()})
    assert len(joined(found, digests(["c"]), digests(["a"]))) == 3
    assert count_seen({"seen": found}, ["a", "c"]) == 1
    assert count_seen({"seen": found}, []) == 0
    assert count_seen({}, ["a"]) is None


def test_measuring_on_trained_samples_takes_a_word(tmp_path: Path):
    """The same frames under another split: what was train there is val here."""
    trained = write_tiny_shards(tmp_path / "a", train=((ALL, ALL, ALL),), val=((ALL,),))
    other = write_tiny_shards(tmp_path / "b", train=((ALL,),), val=((ALL, ALL, ALL),))
    run = tmp_path / "run"
    assert amtl_train("--mode", "asymmetric", "--shards", trained, "--out", run, "--epochs", 1, *SMALL).exit_code == 0
    card = (run / CARD_FILE).read_text()
    measure = (run / "best.pt", "--device", "cpu", "--shards")
    assert "was trained on 0 of the 1 samples of val" in amtl_eval(*measure, trained).stdout
    refused = one_line(amtl_eval(*measure, other), 1)
    assert "got 2 of 3 of val of" in refused
    assert "--allow-seen" in refused
    allowed = amtl_eval(*measure, other, "--allow-seen")
    assert "was trained on 2 of the 3 samples of val" in allowed.stdout
    assert amtl_eval(*measure, other, "--split", "train").exit_code == 0
    assert (run / CARD_FILE).read_text() == card, "the card of another set goes to a file of its own"
    assert len(list(run.glob("model-card-????????.md"))) == 1


def test_a_checkpoint_that_was_trained_further_remembers_both_sets(tmp_path: Path):
    first = write_tiny_shards(tmp_path / "a", train=((ALL, ALL),), val=((ALL,),))
    second = write_tiny_shards(tmp_path / "b", train=((ALL,),), val=((ALL, ALL),))
    options = ("--mode", "asymmetric", "--epochs", 1, *SMALL)
    assert amtl_train(*options, "--shards", first, "--out", tmp_path / "one").exit_code == 0
    again = [option for option in options if option not in ("--weights", "none")]
    start = ("--init-from", tmp_path / "one" / "best.pt", "--shards", second, "--out", tmp_path / "two")
    result = amtl_train(*again, *start)
    assert result.exit_code == 0, result.output
    assert "was trained on 1 of the 2 samples of val of" in result.output
    assert len(load_checkpoint(tmp_path / "two" / "last.pt")["seen"]) == 2


def test_predictions_on_shards_say_how_many_samples_were_trained_on(tmp_path: Path):
    shards = ShardSet(write_tiny_shards(tmp_path / "a", val=((ALL, ALL),)))
    samples = shards.samples("val")
    tally = Tally(Quiet(), [ShardSplit(shards, samples, [ref.key for ref in samples])])
    (line,) = tally.seen_lines(Path("best.pt"), {"seen": digests([samples[0].key])})
    assert line == f"best.pt was trained on 1 of the 2 samples of {shards.folder}"
    (line,) = tally.seen_lines(Path("best.pt"), {})
    assert "does not say on which samples it was trained" in line
