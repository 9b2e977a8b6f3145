"""Tests of the documentation: marked commands run and print what the page says, links have targets, help is fresh.

A block that opens with ```console test is run: `$ ` starts a command, other lines must be in its output, in order, with
`...` for anything. ```python test is run in the same folder. `<!-- in tests, A is B -->` makes a page's commands small.
"""

from __future__ import annotations

import gc
import re
import shlex
import warnings
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from preprocess.cli.commands import main as a2d2_prep
from tests.help_pages import COMMANDS, commands_page
from train.cli import evaluate, export, predict, report, train

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
PROGRAMS = {
    "a2d2-prep": a2d2_prep,
    "amtl-train": train.main,
    "amtl-eval": evaluate.main,
    "amtl-report": report.main,
    "amtl-predict": predict.main,
    "amtl-export": export.main,
}
QUICK = """epochs = 1
[network]
backbone = "resnet18"
width = 0.125
weights = "none"
[threshold]
shared = 8
steering = 2
segmentation = 2
boxes = 2
depth = 2
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout's data files, in which the tutorial was followed."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("examples", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "quick.toml").write_text(QUICK)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    follow(DOCS / "tutorial.md", folder)
    yield folder
    torch.set_num_threads(before)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """(language, content) of the marked blocks, made small."""
    text = page.read_text()
    for long, short in re.findall(r"<!-- in tests, (.+?) is (.+?) -->", text):
        assert text.count(long) > 1, f"{page.name}: {long} is nowhere"
        text = text.replace(long, short)
    return re.findall(r"^```(console|python) test\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def follow(page: Path, folder: Path) -> None:
    """Run a page's marked blocks in the folder."""
    with chdir(folder):
        for language, content in blocks_of(page):
            if language == "python":
                with warnings.catch_warnings():  # webdataset leaves a shard's file to be closed by the collector
                    warnings.simplefilter("ignore", ResourceWarning)
                    exec(compile(content, page.name, "exec"), {})
                    gc.collect()
                continue
            for command, *said in split_commands(content):
                check(command, said, page.name)


def split_commands(content: str) -> Iterator[list[str]]:
    """Each command with the lines that are shown of its output."""
    for part in re.split(r"^\$ ", content, flags=re.MULTILINE)[1:]:
        yield part.replace("\\\n", " ").splitlines()


def check(command: str, said: list[str], where: str) -> None:
    """Run a command in this process; `> FILE` writes what it prints."""
    words = shlex.split(command, comments=True)
    target = words[-1] if len(words) > 2 and words[-2] == ">" else None
    words = words[:-2] if target else words
    result = CliRunner().invoke(PROGRAMS[words[0]], words[1:])
    assert result.exit_code == 0, f"{where}: {command}\n{result.output}"
    if target:
        Path(target).write_text(result.stdout)
    place = 0
    for line in filter(None, map(str.rstrip, said)):
        found = re.compile(re.escape(line).replace(r"\.\.\.", ".*")).search(result.output, place)
        assert found, f"{where}: {command}\ndoes not print: {line}\nbut:\n{result.output}"
        place = found.end()


def test_the_tutorial_s_commands_run(desk: Path):
    assert (desk / "tutorial" / "report.html").stat().st_size > 10_000
    assert (desk / "tutorial" / "predicted" / "pictures" / "street.jpg").exists()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "tutorial.md" and blocks_of(page)],
                         ids=lambda page: page.name)  # fmt: skip
def test_marked_commands_run(page: Path, desk: Path):
    follow(page, desk)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("http"):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_the_reading_list_names_files_and_about_their_lines():
    listed = re.findall(r"^\| `([\w/]+\.py)` \| (\d+) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    counted = {name: len((ROOT / name).read_text().splitlines()) for name, _ in listed}
    wrong = {name: (lines, counted[name]) for name, lines in listed if abs(int(lines) - counted[name]) > 100}
    assert listed
    assert not wrong, f"file: (lines in CONTRIBUTING.md, lines now): {wrong}"
    assert sum(counted.values()) < 6_000, "the core must stay readable in an afternoon"


def test_every_target_of_make_has_a_recipe():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r'@echo "make (\w+)', makefile)
    assert {"demo", "test", "site"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:.*\n\t", makefile, re.MULTILINE), f"make {target} does nothing"


def test_pictures_are_small():
    for picture in [*DOCS.rglob("*.jpg"), *DOCS.rglob("*.png"), *DOCS.rglob("*.svg")]:
        assert picture.stat().st_size < 150_000, picture


def test_every_command_s_help_is_fresh():
    """Word by word: click breaks lines in one version as in no other."""
    page = (DOCS / "commands.md").read_text()
    assert page.split() == commands_page(page).split(), "run `make docs`: a command's --help has changed"


def test_every_command_and_option_has_a_place():
    text = (DOCS / "commands.md").read_text()
    for name in COMMANDS:
        assert f"<!-- help: {name} -->" in text
    options = {option.opts[-1] for option in train.main.params}
    assert all(f"`{option}" in text for option in options), sorted(o for o in options if f"`{o}" not in text)
