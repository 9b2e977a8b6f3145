"""Axes that read well, and what of a plot is drawn where."""

from __future__ import annotations

import math

import numpy as np
import pytest

from train.report.curves import (
    BLUE,
    Curve,
    Line,
    Plot,
    Text,
    even_ticks,
    faded,
    lay_out,
    log_ticks,
    tick_text,
    to_picture,
    to_svg,
)


@pytest.mark.parametrize(
    ("low", "high", "least_step", "expected"),
    [
        (1, 2, 1, [1, 2]),
        (1, 8, 1, [0, 2, 4, 6, 8]),
        (0, 99_400, 1, [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
        (0.12, 0.31, 0, [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]),
        (-3, 41, 0, [-10, 0, 10, 20, 30, 40, 50]),
    ],
)
def test_even_ticks_are_round_and_span_the_values(low, high, least_step, expected):
    ticks = even_ticks(low, high, least_step, most=7)
    assert ticks == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(3.6381, 3.6395), (0.1, 0.3), (980.4, 981.2), (999, 1040)])
def test_no_two_ticks_read_alike(low: float, high: float):
    texts = [tick_text(tick) for tick in even_ticks(low, high)]
    assert len(set(texts)) == len(texts)
    assert max(map(len, texts)) <= 6


@pytest.mark.parametrize("value", [0.0, 3.0, -2e-9, 1e12])
def test_one_value_alone_has_an_axis_around_it(value: float):
    ticks = even_ticks(value, value)
    assert ticks[0] < value < ticks[-1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.3, 4, [0.2, 0.5, 1, 2, 5]), (0.0011, 900, [0.001, 0.01, 0.1, 1, 10, 100, 1000]), (1, 100, None)],
)
def test_log_ticks_span_the_values(low, high, expected):
    ticks = log_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1]
    assert expected is None or ticks == pytest.approx(expected)


def lines_of(marks: list, colour: str) -> list[Line]:
    return [mark for mark in marks if isinstance(mark, Line) and mark.colour == colour]


def test_curves_lie_within_the_axes_and_go_the_right_way():
    plot = Plot("depth", "epoch", "loss", [Curve([(1, 0.9), (2, 0.5), (3, math.nan), (4, 0.1)], BLUE, "val")])
    line, sample = lines_of(lay_out(plot, 400, 300), BLUE)
    (x1, y1), (x2, y2), (x3, y3) = line.points  # what is not finite is left out
    assert 64 <= x1 < x2 < x3 <= 386
    assert 30 <= y1 < y2 < y3 <= 258, "a smaller loss lies lower"
    assert len(sample.points) == 2, "the legend's"
    texts = [mark.text for mark in lay_out(plot, 400, 300) if isinstance(mark, Text)]
    assert {"depth", "epoch", "loss", "val", "0", "0.4", "4"} <= set(texts)


def test_an_axis_over_decades_is_logarithmic_and_says_so():
    marks = lay_out(Plot("t", "x", "loss", [Curve([(0, 0.01), (1, 0.1), (2, 1.0)], BLUE)]), 400, 300)
    (line,) = lines_of(marks, BLUE)
    heights = [y for _, y in line.points]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2])
    assert any(mark.text == "loss, log" for mark in marks if isinstance(mark, Text))


def test_nothing_measured_says_so():
    marks = lay_out(Plot("t", "x", "y", [Curve([(1, math.inf)], BLUE)]), 400, 300)
    assert any(mark.text == "nothing was measured" for mark in marks if isinstance(mark, Text))


def test_both_forms_show_the_same_marks():
    marks = [Line([(10, 10), (50, 10)], BLUE, 4), Line([(70, 30)], BLUE, 4), Text(20, 60, "a < b & c", turned=True)]
    svg = to_svg(marks, 100, 80)
    assert svg.count("<polyline") == svg.count("<circle") == svg.count("<text") == 1
    assert "a &lt; b &amp; c" in svg
    picture = to_picture(marks, 100, 80, scale=1)
    blue = (picture == (0x00, 0x72, 0xB2)).all(2)
    assert blue[10, 30]
    assert blue[30, 70]
    assert not blue[40:].any()
    ink = np.argwhere((picture < 128).all(2))
    assert np.ptp(ink[:, 0]) > np.ptp(ink[:, 1]), "the text reads upwards"


def test_a_faded_colour_is_halfway_to_white():
    assert faded("#0072b2") == "#7fb8d8"
