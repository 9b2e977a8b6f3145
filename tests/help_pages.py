"""docs/commands.md: the --help of every command between its marks; `python -m tests.help_pages` writes it anew."""

from __future__ import annotations

import re
from pathlib import Path

import click
from click.testing import CliRunner

from preprocess.cli.commands import main as a2d2_prep
from train.cli import evaluate, export, predict, report, train

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
COMMANDS: dict[str, tuple[click.Command, list[str]]] = {
    "a2d2-prep": (a2d2_prep, []),
    **{f"a2d2-prep {name}": (a2d2_prep, [name]) for name in a2d2_prep.commands},
    "amtl-train": (train.main, []),
    "amtl-eval": (evaluate.main, []),
    "amtl-report": (report.main, []),
    "amtl-predict": (predict.main, []),
    "amtl-export": (export.main, []),
}


def help_of(name: str) -> str:
    """The help text as a terminal of 80 columns shows it."""
    command, arguments = COMMANDS[name]
    program = name.split(maxsplit=1)[0]
    result = CliRunner().invoke(command, [*arguments, "--help"], prog_name=program, terminal_width=80)
    assert result.exit_code == 0, result.output
    return result.output


def commands_page(text: str) -> str:
    """The page with the help that the commands give now, in the block after each `<!-- help: NAME -->`."""

    def fresh(found: re.Match[str]) -> str:
        return f"<!-- help: {found[1]} -->\n```\n{help_of(found[1])}```"

    return re.sub(r"<!-- help: (.+?) -->\n```\n.*?```", fresh, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(commands_page(PAGE.read_text()))
