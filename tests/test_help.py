"""Each command's --help fits a screen and says what each option is, and its default."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

from tests.help_pages import COMMANDS, help_of
from train.cli import train


@pytest.mark.parametrize("name", COMMANDS)
def test_it_fits_a_screen(name: str):
    lines = help_of(name).splitlines()
    assert len(lines) <= (64 if name == "amtl-train" else 50), "amtl-train has some forty options"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str):
    """A bare `--shards PATH` tells a newcomer nothing."""
    command, arguments = COMMANDS[name]
    for part in arguments:
        assert isinstance(command, click.Group)
        command = command.commands[part]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]}"


def test_the_trainer_s_groups_hold_each_option_once():
    """An option that is new comes last, under `Other`, until somebody places it."""
    listed = [name for names in train.GROUPS.values() for name in names]
    assert len(listed) == len(set(listed))
    shown = re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_of("amtl-train"), re.MULTILINE)
    assert shown == listed
    assert set(listed) == {option.opts[-1] for option in train.main.params} | {"--help"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("amtl-")])
def test_every_command_says_its_version(name: str):
    result = CliRunner().invoke(COMMANDS[name][0], ["--version"])
    assert result.exit_code == 0
    assert re.search(r"version \d+\.\d+", result.output)
