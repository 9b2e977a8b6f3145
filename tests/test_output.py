"""Output that nobody reads ends in silence; output that cannot be written is said, with exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shards.writer import write_whole

ROOT = Path(__file__).parents[1]
PROGRAM = """
from train.cli.console import Console, exit_codes
with exit_codes("amtl-eval", "nothing was written"):
    console = Console()
    for number in range(20000):
        console.say(f"line {number}")
    open("done", "w").close()
"""


def run(redirect: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The program with its output redirected by a shell, which reports the program's own exit code."""
    command = f"set -o pipefail; {sys.executable} -c '{PROGRAM}' {redirect}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_reader_that_has_gone_stops_nothing(tmp_path: Path) -> None:
    result = run("| head -1", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "line 0\n", "")
    assert (tmp_path / "done").exists(), "the work went on"


def test_a_stream_that_is_closed_stops_nothing(tmp_path: Path) -> None:
    result = run(">&- 2>&-", tmp_path)
    assert result.returncode == 0
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    result = run("> /dev/full", tmp_path)
    assert result.returncode == 1
    assert result.stderr == "amtl-eval: standard output cannot be written: No space left on device\n"


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is a device, which a file would replace"):
        write_whole(pipe, b"x")
    assert pipe.is_fifo()
