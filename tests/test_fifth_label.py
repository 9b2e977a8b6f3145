"""A fifth label is its converter, its rule, and a line in each table: schema, rules, converters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shards.manifest import read_manifest
from tests.conftest import SMALL_RULES

ROOT = Path(__file__).parents[1]


def test_a_fifth_label_is_prepared_verified_counted_and_drawn(synthetic: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(SMALL_RULES)
    out = tmp_path / "shards"
    commands = [
        ["shard", "--root", synthetic, "--out", out, "--rules", tmp_path / "rules.toml", "--workers", "1"],
        ["verify", out],
        ["inspect", out],
        ["show", out, "--out", tmp_path / "panel.png"],
        ["rules", "--diff", out],
        ["rules"],
    ]
    words = [[str(word) for word in command] for command in commands]
    program = "import tests.fifth_label\nfrom preprocess.cli.commands import main\n"
    program += f"for command in {words!r}:\n    main(command, standalone_mode=False)\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", program]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    totals = read_manifest(out)["totals"]["train"]["labels"]
    assert totals["speed"] >= totals["steering"] > 0
    assert "speed" in done.stdout.partition("split")[2].splitlines()[0]
    assert "[speed]  # fingerprint" in done.stdout
