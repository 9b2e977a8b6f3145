"""Axes that read well, and figures as text that does not change."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from train.report.plots import BLUE, ORANGE, Curve, Plot, bar_figure, line_figure, scale_figure, to_png, to_svg


def plot_of(*values: float, **changes: object) -> Plot:
    return Plot("depth", "epoch", "loss", [Curve([(x, y) for x, y in enumerate(values, 1)], BLUE, **changes)])


def labels_of(figure: Figure, axis: str = "y", number: int = 0) -> list[str]:
    """The labels of the ticks inside the axis's range."""
    figure.draw_without_rendering()
    found = getattr(figure.axes[number], f"{axis}axis")
    low, high = sorted(found.get_view_interval())
    return [tick.label1.get_text() for tick in found.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize(("low", "high"), [(3.6381, 3.6395), (0.1, 0.3), (980.4, 981.2), (999, 1040), (12e4, 13e4)])
def test_no_two_ticks_read_alike(low: float, high: float) -> None:
    texts = labels_of(line_figure([plot_of(low, high)], 1))
    assert len(texts) >= 3
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) <= 7, texts


@pytest.mark.parametrize("value", [0.0, 3.0, -2e-9, 1e12])
def test_one_value_alone_has_an_axis_around_it(value: float) -> None:
    figure = line_figure([plot_of(value)], 1)
    low, high = figure.axes[0].get_ylim()
    assert low < value < high
    assert len(set(labels_of(figure))) >= 2


def test_epochs_are_whole_numbers_and_thousands_have_commas() -> None:
    assert labels_of(line_figure([plot_of(1, 2, 3)], 1), "x") == ["1", "2", "3"]
    assert "20,000" in labels_of(line_figure([plot_of(0, 99_400)], 1))


def test_an_axis_is_logarithmic_for_all_siblings_or_for_none() -> None:
    decades, narrow, negative = plot_of(0.01, 0.1, 1), plot_of(1, 2), plot_of(-1, 50)
    assert [axes.get_yscale() for axes in line_figure([decades, narrow], 2).axes] == ["log", "log"]
    assert [axes.get_yscale() for axes in line_figure([decades, negative], 2).axes] == ["linear", "linear"]
    assert [axes.get_yscale() for axes in line_figure([narrow, narrow], 2).axes] == ["linear", "linear"]
    assert line_figure([decades], 1, linear=True).axes[0].get_yscale() == "linear"
    assert {"0.01", "0.1", "1"} <= set(labels_of(line_figure([decades], 1)))


def test_siblings_that_share_an_axis_have_one_range() -> None:
    figure = line_figure([plot_of(0, 5), plot_of(50, 90)], 2, share_y="all")
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    assert figure.axes[0].get_ylim()[1] >= 90
    assert [line_figure([plot_of(0, 5)], 1, y_range=(-1, 90)).axes[0].get_ylim()] == [(-1, 90)]
    apart = line_figure([plot_of(0, 5), plot_of(1, 6), plot_of(50, 90)], 2, share_y="row")
    assert apart.axes[0].get_ylim() == apart.axes[1].get_ylim() != apart.axes[2].get_ylim()


def test_what_is_not_finite_is_left_out_and_nothing_measured_is_said() -> None:
    figure = line_figure([plot_of(4.0, math.nan, 0.4, math.inf), plot_of(math.inf)], 2)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [4.0, 0.4])
    assert [text.get_text() for text in figure.axes[1].texts] == ["nothing was measured"]


def test_a_single_seed_lies_thin_behind_the_mean_and_its_best_epoch_is_a_dot() -> None:
    mean = Curve([(1, 2.0), (2, 1.0)], BLUE)
    seed = Curve([(1, 3.0), (2, 2.0)], BLUE, thin=True, marked=[(2, 2.0)])
    thin, dot, strong = line_figure([Plot("t", "x", "y", [seed, mean])], 1).axes[0].lines
    assert thin.get_linewidth() < strong.get_linewidth()
    assert thin.get_zorder() < strong.get_zorder() < dot.get_zorder()
    assert (dot.get_marker(), list(dot.get_xdata())) == ("o", [2])


def test_every_text_lies_inside_the_figure() -> None:
    plots = [Plot("a title", "images seen in training", "a label of the axis, in some unit / another", plot.curves)
             for plot in (plot_of(1.25, 1.2501), plot_of(123_456, 654_321))]  # fmt: skip
    figure = line_figure(plots, 2, size_in=(3.4, 2.6))
    names = ["EmergencyVehicle (0.1 %)", "Car (99.9 %)"]
    bars = bar_figure(names, [("asymmetric", BLUE, [1, None]), ("symmetric", ORANGE, [3, 4])], "IoU, %", [2, None])
    scale = scale_figure(np.zeros((9, 3), np.uint8), [(0, "2 m"), (1, "100 m")], "distance")
    for drawn in (figure, bars, scale):
        drawn.draw_without_rendering()
        box, (width, height) = drawn.get_tightbbox(), drawn.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01, box
        assert box.x1 <= width + 0.01, box
        assert box.y1 <= height + 0.01, box


def test_svg_has_texts_as_text_ids_of_its_own_and_the_same_bytes_again() -> None:
    plot = Plot("a < b & $c$", "epoch", "loss", plot_of(1, 2).curves)
    one, again, other = (to_svg(line_figure([plot], 1), name) for name in ("one", "one", "other"))
    assert one == again
    root = ET.fromstring(one)
    assert "a < b & $c$" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, other)]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', one)) <= ids[0]
    assert "<metadata" not in one


def test_bars_show_each_series_and_the_constant_to_compare_with() -> None:
    figure = bar_figure(["Car", "Bus"], [("a", BLUE, [10, 20]), ("b", ORANGE, [30, None])], "IoU, %", [5, None])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [10, 20, 30, 0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["best constant", "a", "b"]
    assert labels_of(figure) == ["Car", "Bus"]


def test_png_is_white_with_a_plot_in_colour() -> None:
    with Image.open(io.BytesIO(to_png(line_figure([plot_of(1, 2)], 1)))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (416, 736, 3)
    assert (pixels[0, 0] == 255).all()
    assert (pixels == (0x00, 0x72, 0xB2)).all(2).sum() > 100


def test_a_home_folder_that_cannot_be_written_and_own_settings_change_nothing(tmp_path: Path) -> None:
    """On a cluster's node there may be no home; a matplotlibrc of the user's would change the figures."""
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\n")
    program = """
from train.report.plots import *
plot = Plot("depth", "epoch", "loss", [Curve([(1, 1.0), (2, 2.0)], BLUE)])
print(to_svg(line_figure([plot], 1), "x"))
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[1]), "HOME": "/proc/none"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() == to_svg(line_figure([plot_of(1.0, 2.0)], 1), "x").strip()
