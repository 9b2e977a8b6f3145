"""Runs set beside each other: what is one cell, one column, one warning; and the page that shows them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from shards.draw import Box
from shards.output import OutputError
from shards.schema import TASKS
from train.cli import console, report
from train.config import dump_toml
from train.engine.evaluate import metric_rows, part_rows
from train.presets import build_config
from train.report.figures import validation_curves
from train.report.report import summary_of, title_of
from train.report.runs import (
    ASYMMETRIC,
    ONE_TASK,
    OWN_NETWORKS,
    SYMMETRIC,
    build_columns,
    load_runs,
    spread,
    warnings,
)
from train.report.tables import duration, spread_text
from train.run_folder import EXTREMES, PIECES
from train.sample_pieces import Pieces, picture_context, save_pieces
from train.tasks import all_metrics
from train.tasks.boxes import outlined
from train.tasks.depth import nearest_returns

SAMPLE = "20180807145028_frontcenter_000000007"


def write_run(folder: Path, mode: str, seed: int = 0, value: float = 5.0, **changes: Any) -> Path:
    """A finished run's folder, as amtl-train leaves it, whose every metric is `value`."""
    overrides = changes.pop("config", {})
    if changes.get("task"):
        overrides = {**overrides, "task": changes["task"]}
    config = build_config({"mode": mode, "seed": seed, "out": str(folder), **overrides})
    tasks = config.tasks
    scores = {task: {metric.name: value for metric in all_metrics() if metric.task == task} for task in tasks}
    car = {"of": "Car", "count": 30, "values": {"IoU": value}}
    constants = {task: {"a constant": {"scores": dict.fromkeys(found, 4.0), "parts": []}}
                 for task, found in scores.items()}  # fmt: skip
    counts = {"epochs": 1, "updates": {"all": 7} if mode != "asymmetric" else {"shared": 9, **dict.fromkeys(tasks, 4)},
              "items": 1200, "images": 600, "seconds": 90.0}  # fmt: skip
    record = {
        "mode": mode, "task": config.task, "norm": "group", "weights": "scratch", "seed": seed, "val_samples": 8,
        "manifest_sha256": "a" * 64, "size_px": 256, "epoch": 1, "device": "cpu", "threads": 1, "torch": "2",
        "metrics": metric_rows(scores, constants), "counts": counts, "counts_at_end": {**counts, "epochs": 2},
        "parts": {"segmentation": part_rows("segmentation", [car], constants)} if "segmentation" in tasks else {},
        "peak_memory": {"process_bytes": 1_500_000_000, "gpu_bytes": None},
    } | changes.get("record", {})  # fmt: skip
    (folder / "pictures" / PIECES).mkdir(parents=True)
    (folder / "config.toml").write_text(dump_toml(config))
    (folder / "eval.json").write_bytes(orjson.dumps(record))
    lines = [{"kind": "epoch", "epoch": epoch, "val_losses": dict.fromkeys(tasks, value / epoch),
              "counts": {"epochs": epoch, "images": 600 * epoch}} for epoch in (1, 2)]  # fmt: skip
    (folder / "metrics.jsonl").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    image = np.full((32, 32, 3), 90, np.uint8)
    values = {"segmentation": np.full((32, 32), 3, np.uint8), "depth": np.full((32, 32), 9, np.float32),
              "boxes": [Box(2, 2, 9, 9, 0, "Car")], "steering": [1.0, 2]}  # fmt: skip
    save_pieces(folder / "pictures" / PIECES, Pieces(SAMPLE, image, picture_context(32, 123.0), values, values))
    return folder


@pytest.fixture
def four(tmp_path: Path) -> list[Path]:
    """The four columns of table 4.1, the asymmetric one of two seeds."""
    folders = [write_run(tmp_path / f"asym-{seed}", "asymmetric", seed, 5.0 + 2 * seed) for seed in (0, 1)]
    folders.append(write_run(tmp_path / "sym", "symmetric", value=3.0))
    for name in ("stl", "mtl"):
        config = {"network": {"name": name}}
        folders += [write_run(tmp_path / f"{name}-{task}", "single", task=task, config=config) for task in TASKS]
    return folders


@pytest.fixture(autouse=True)
def only_the_thesis_s_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked out once for all tests."""
    compare = report.compare_networks
    monkeypatch.setattr(report, "compare_networks", lambda shapes: compare(()))


def report_on(*arguments: object) -> Any:
    return CliRunner().invoke(report.main, [str(argument) for argument in arguments])


def test_the_columns_are_those_of_the_thesis(four: list[Path]):
    columns = build_columns(load_runs(four[::-1])[0])
    assert [column.name for column in columns] == [ASYMMETRIC, SYMMETRIC, OWN_NETWORKS, ONE_TASK]
    for column in columns:
        assert set(column.cells) == set(TASKS)
    assert [run.seed for run in columns[0].cells["depth"]] == [0, 1]
    assert columns[0].cells["depth"] is columns[0].cells["boxes"]
    assert [len(column.runs) for column in columns] == [2, 1, 4, 4]
    assert len({column.colour for column in columns}) == 4


def test_another_setting_is_another_column_named_by_it(tmp_path: Path):
    norms = {"group": "a", "batch": "b"}
    runs = [write_run(tmp_path / name, "asymmetric", config={"network": {"norm": norm}, "workers": i})
            for i, (norm, name) in enumerate(norms.items())]  # fmt: skip
    columns = build_columns(load_runs(runs)[0])
    assert [column.name for column in columns] == [
        "asymmetric (network.norm = group)",
        "asymmetric (network.norm = batch)",
    ]
    assert columns[0].colour != columns[1].colour


def test_what_changes_no_weight_does_not_split_a_cell(tmp_path: Path):
    runs = [write_run(tmp_path / str(i), "symmetric", i, config={"workers": i, "shards": f"at{i}"}) for i in (0, 1)]
    (column,) = build_columns(load_runs(runs)[0])
    assert len(column.cells["steering"]) == 2


def test_single_runs_of_other_settings_share_a_column_as_long_as_tasks_differ(tmp_path: Path):
    depth = write_run(tmp_path / "d", "single", task="depth", config={"epochs": 9})
    boxes = write_run(tmp_path / "b", "single", task="boxes", config={"epochs": 3})
    assert [set(column.cells) for column in build_columns(load_runs([depth, boxes])[0])] == [{"depth", "boxes"}]
    again = write_run(tmp_path / "c", "single", task="depth", config={"epochs": 3})
    assert len(build_columns(load_runs([depth, boxes, again])[0])) == 2


def test_a_spread_is_of_the_sample():
    found = spread([1.0, 3.0, None])
    assert (found.mean, found.deviation, found.count) == (2, pytest.approx(2**0.5), 2)
    assert spread_text(found) == "2.00 ± 1.41"
    assert spread_text(spread([0.5, 0.25])) == "0.3750 ± 0.1768"
    assert spread_text(spread([0.5])) == "0.5000"
    assert spread([None]) is None


@pytest.mark.parametrize(("seconds", "text"), [(41.2, "41 s"), (738, "12.3 min"), (19000, "5.3 h"), (None, "–")])
def test_a_duration_reads_well(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("record", "config", "told"),
    [
        ({"manifest_sha256": "b" * 64}, {}, "The data sets differ, so no two of these results can be compared: "
         "aaaaaaaaaaaa in one; bbbbbbbbbbbb in two."),
        ({"size_px": 512}, {}, "The sample sizes differ"),
        ({}, {"network": {"norm": "batch"}}, "The norms of the multi-task network differ"),
        ({}, {"network": {"width": 0.5}}, "The widths differ"),
        ({"device": "H100"}, {}, "The devices differ, so times and memory cannot be compared"),
        ({"notes": ["metres mean nothing"]}, {}, "Metres mean nothing."),
    ],
    ids=["data", "size", "norm", "width", "device", "note"],
)  # fmt: skip
def test_what_stands_against_a_comparison_is_said(record: dict, config: dict, told: str, tmp_path: Path):
    one = write_run(tmp_path / "one", "asymmetric")
    two = write_run(tmp_path / "two", "symmetric", record=record, config=config)
    runs = load_runs([one, two])[0]
    lines = warnings(runs, build_columns(runs))
    assert any(line.startswith(told) for line in lines), lines
    alike = load_runs([one])[0]
    assert [line for line in warnings(alike, build_columns(alike)) if "one seed" not in line] == []


def test_a_seed_that_counts_twice_is_said_and_a_folder_given_twice_counts_once(tmp_path: Path):
    one, two = (write_run(tmp_path / name, "asymmetric") for name in ("one", "two"))
    assert len(load_runs([one, one])[0]) == 1
    runs = load_runs([one, two])[0]
    assert any("A seed counts twice" in line for line in warnings(runs, build_columns(runs)))


class Reader(HTMLParser):
    """Rows of text, what is loaded from elsewhere, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.open == []
    return reader


def test_the_report_of_all_columns(four: list[Path], tmp_path: Path):
    out = tmp_path / "report.html"
    result = report_on(*four, "--out", out)
    assert result.exit_code == 0, result.output
    page = read(out)
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.loaded)
    assert len(page.loaded) == 3 * 5, "three tasks, the labels and four columns each"
    assert "<script" not in out.read_text()
    assert "A2D2" not in out.read_text(), "nothing says that these data are"
    mae = next(row for row in page.rows if row[0] == "MAE, deg ↓")
    assert mae == ["MAE, deg ↓", "4.00 (a constant)", "6.00 ± 1.41 ▽", "3.00", "5.00 ▽", "5.00 ▽"]
    accuracy = next(row for row in page.rows if row[0] == "pixel accuracy, % ↑")
    assert accuracy[2:] == ["6.00 ± 1.41", "3.00 ▽", "5.00", "5.00"]
    bold = re.findall(r'<td class="n best">([^<]*)</td>', out.read_text())
    assert "3.00" in bold
    assert "6.00 ± 1.41" in bold
    costs = [row for row in page.rows if len(row) == 8 and row[4:] == ["1,200", "600", "90 s", "1.50 GB"]]
    updates = "9 shared, 4 steering, 4 segmentation, 4 boxes, 4 depth"
    assert costs[:2] == [
        ["asymmetric", "all", "1, 1 of 2 (seeds 0, 1)", updates, *costs[0][4:]],
        ["symmetric", "all", "1 of 2 (seed 0)", "7", *costs[0][4:]],
    ]
    assert [row[1] for row in costs[2:]] == 2 * list(TASKS), "a row for each run of its own, and no row twice"
    assert ["sum / multi-task", "", "7.18", "4.06", "2.55"] in page.rows, "the thesis's own table 4.2"
    assert ["Car", "IoU, %", "100.00 %", "–", "6.00 ± 1.41", "3.00", "5.00", "5.00"] in page.rows
    assert ["depth", "asymmetric", "6.00", "3.00", "3.00", "2.00"] in page.rows


@pytest.mark.parametrize(("names", "title"), [
    (("synthetic", "synthetic"), "runs compared on synthetic data"), ((None, None), "runs compared"),
    (("synthetic", None), "runs compared"),
])  # fmt: skip
def test_the_title_names_the_data_set_that_all_runs_share(names: tuple, title: str, tmp_path: Path):
    runs = [write_run(tmp_path / str(i), "symmetric", record={"data_set": name, "manifest_sha256": f"{i}" * 64})
            for i, name in enumerate(names)]  # fmt: skip
    found = load_runs(runs)[0]
    assert title_of(found) == f"Asymmetric multi-task learning: {title}"
    assert ("000000000000 (synthetic)" in summary_of(found)) == (names[0] is not None)


def test_the_worst_and_the_best_samples_of_each_column(tmp_path: Path):
    """The worst come first, each with its loss and its pictures; inputs choose among them without a script."""
    run, out = write_run(tmp_path / "run", "symmetric"), tmp_path / "report.html"
    pairs = {"best": [("b_c_1", 0.125)], "worst": [("b_c_2", 7.5), ("b_c_3", 7.25)]}
    record = orjson.loads((run / "eval.json").read_bytes()) | {"extremes": {"boxes": pairs, "steering": pairs}}
    (run / "eval.json").write_bytes(orjson.dumps(record))
    (run / "pictures" / EXTREMES).mkdir()
    image, context = np.full((32, 32, 3), 90, np.uint8), picture_context(32, 123.0)
    for task, value in (("boxes", [Box(2, 2, 9, 9, 0, "Car")]), ("steering", [1.0, 2.0])):
        for kind, of_kind in pairs.items():
            for number, (key, _) in enumerate(of_kind, 1):
                pieces = Pieces(key, image, context, {task: value}, {task: value})
                save_pieces(run / "pictures" / EXTREMES, pieces, f"{task}.{kind}.{number}")
    assert report_on(run, "--out", out).exit_code == 0
    kinds = [row[0] for row in read(out).rows if row and row[0] in ("worst", "best")]
    assert kinds == 2 * ["worst", "worst", "best"], "of steering, then of boxes"
    text = out.read_text()
    losses = re.findall('<span class="soft">(loss [^<]*)</span>', text)
    assert losses == 2 * ["loss 7.50", "loss 7.25", "loss 0.1250"]
    assert text.count('alt="boxes of b_c_2: label"') == text.count('alt="boxes of b_c_2: loss 7.50"') == 1
    assert [text.count(f'name="{name}"') for name in ("task", "kind")] == [3, 3]


def test_a_curve_per_seed_with_a_dot_at_its_best_epoch_and_their_mean(four: list[Path]):
    columns = build_columns(load_runs(four)[0])
    first, second, mean, symmetric, *_ = validation_curves(columns, "depth")
    assert [list(curve.points) for curve in (first, second, mean)] == [
        [(1, 5.0), (2, 2.5)], [(1, 7.0), (2, 3.5)], [(1, 6.0), (2, 3.0)]
    ]  # fmt: skip
    assert [list(curve.marked) for curve in (first, second, mean)] == [[(1, 5.0)], [(1, 7.0)], []]
    assert [curve.thin for curve in (first, second, mean, symmetric)] == [True, True, False, False]
    over_images = validation_curves(columns[:1], "depth", over_images=True)[0]
    assert (over_images.points, over_images.marked) == ([(600, 5.0), (1200, 2.5)], [(600, 5.0)])
    assert validation_curves(columns, "depth", "MAE") == [], "these runs have no metrics in their lines"


def test_settings_that_differ_are_told_per_column(four: list[Path], tmp_path: Path):
    """A single-task network has no backbone or norm of the multi-task network's."""
    assert report_on(*four, "--out", tmp_path / "report.html").exit_code == 0
    rows = {row[0]: row[1:] for row in read(tmp_path / "report.html").rows}
    assert rows["network.norm"] == ["auto", "auto", "–", "auto"]
    assert rows["threshold.depth"] == ["16", "–", "–", "–"]
    assert "seed" not in rows


def test_the_report_of_one_run_without_pictures_or_curves(tmp_path: Path):
    run = write_run(tmp_path / "run", "single", task="depth", config={"network": {"name": "mtl"}})
    (run / "metrics.jsonl").unlink()
    (run / "pictures" / PIECES / f"{SAMPLE}.npz").unlink()
    result = report_on(run, "--out", tmp_path / "report.html")
    assert result.exit_code == 0, result.output
    page = read(tmp_path / "report.html")
    assert page.loaded == []
    assert any(row[0] == "delta1, % ↑" for row in page.rows)
    assert not any(row[0] == "mAP50, % ↑" for row in page.rows)


def test_names_of_folders_are_text_not_markup(tmp_path: Path):
    run = write_run(tmp_path / "a<b>&c", "symmetric")
    assert report_on(run, "--out", tmp_path / "report.html").exit_code == 0
    assert any(row[0] == "a<b>&c" for row in read(tmp_path / "report.html").rows)


def no_run(folder: Path) -> None:
    folder.mkdir()


def unfinished(folder: Path) -> None:
    (write_run(folder, "symmetric") / "eval.json").unlink()


def cut_short(folder: Path) -> None:
    path = write_run(folder, "symmetric") / "eval.json"
    path.write_bytes(path.read_bytes()[:99])


def another_s(folder: Path) -> None:
    (write_run(folder, "symmetric") / "eval.json").write_text('{"metrics": []}')


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (no_run, "holds no run: it has no config.toml"),
        (unfinished, "holds a run that is not finished: it has no eval.json; go on with --resume"),
        (cut_short, "eval.json is not JSON"),
        (another_s, "eval.json has no counts: it was not written by amtl-train, or by another version"),
    ],
    ids=["no run", "unfinished", "cut short", "another's"],
)
def test_what_holds_no_finished_run_is_left_out_with_a_line(prepare: Any, message: str, tmp_path: Path):
    good, bad, out = write_run(tmp_path / "good", "asymmetric"), tmp_path / "bad", tmp_path / "report.html"
    prepare(bad)
    result = report_on(good, bad, "--out", out)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if "Left out" in line)
    assert re.search(f"note: Left out: .*{re.escape(message)}", line), line
    assert f"{out}: 1 run compared" in result.stdout
    assert message in out.read_text(), "the page says it too"


@pytest.mark.parametrize("prepare", [no_run, unfinished])
def test_no_finished_run_at_all_is_a_line_and_1(prepare: Any, tmp_path: Path):
    prepare(tmp_path / "bad")
    result = report_on(tmp_path / "bad", "--out", tmp_path / "report.html")
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"amtl-report: {tmp_path / 'bad'} holds ")
    assert not (tmp_path / "report.html").exists()


def test_output_that_cannot_be_written_is_said_and_the_page_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, out, write = write_run(tmp_path / "run", "symmetric"), tmp_path / "report.html", console.write_text

    def refuse(text: str, err: bool = False) -> None:
        if not err:
            raise OutputError("standard output cannot be written: No space left on device")
        write(text, err=True)

    monkeypatch.setattr(console, "write_text", refuse)
    result = report_on(run, "--out", out)
    message = "amtl-report: standard output cannot be written: No space left on device\n"
    assert (result.exit_code, result.stderr) == (1, message)
    assert out.exists()


def test_a_page_that_cannot_be_written_is_a_line(tmp_path: Path):
    result = report_on(write_run(tmp_path / "run", "symmetric"), "--out", tmp_path / "none" / "report.html")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"amtl-report: {tmp_path / 'none' / 'report.html'} cannot be written: No such file")


def test_a_stray_file_is_left_out_and_a_path_that_is_not_there_is_wrong_usage(tmp_path: Path):
    good, stray = write_run(tmp_path / "good", "asymmetric"), tmp_path / "notes.txt"
    stray.write_text("mine")
    assert "notes.txt holds no run" in report_on(good, stray, "--out", tmp_path / "report.html").stdout
    assert report_on(good, tmp_path / "nowhere", "--out", tmp_path / "other.html").exit_code == 2
    assert not (tmp_path / "other.html").exists()


def test_no_return_is_lost_when_a_picture_gets_smaller():
    depth = np.zeros((8, 8), np.float32)
    depth[0, 1], depth[1, 0], depth[7, 6] = 30, 20, 50
    np.testing.assert_array_equal(nearest_returns(depth, 2), [[20, 0], [0, 50]])


def test_boxes_are_outlined_in_their_class_s_colour():
    picture = np.full((40, 40, 3), 90, np.uint8)
    drawn = outlined(picture, [Box(5, 10, 25, 30, 1, "Pedestrian")])
    assert tuple(drawn[10, 15]) == (86, 180, 233)
    assert tuple(drawn[9, 15]) == (0, 0, 0)
    assert (drawn[15:25, 10:20] == 90).all()
