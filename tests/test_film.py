"""Films: every frame is the one that it says, by number and time, in whole and in damaged films; losses are said."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from tests.damaged_films import damage, judge, packets_by_number
from tests.numbered_films import FILMS, Film, numbered_picture, shown_number, write_film
from train.deploy.film import FilmReport, expected_frames, read_film
from train.deploy.film_decode import FilmFrame
from train.deploy.film_writer import FilmWriter

FRAMES = 40


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("films")
    return {name: write_film(folder / f"{name.replace(' ', '_')}{film.suffix}", film, FRAMES)
            for name, film in FILMS.items()}  # fmt: skip


def read(path: Path) -> tuple[list[FilmFrame], list[FilmReport]]:
    found = list(read_film(path))
    return [part for part in found if isinstance(part, FilmFrame)], [
        part for part in found if isinstance(part, FilmReport)
    ]


@pytest.mark.parametrize("name", FILMS)
def test_a_whole_film(films: dict[str, Path], name: str):
    """Each frame once, with the number that it shows and its own time, in all codecs and containers."""
    frames, reports = read(films[name])
    assert reports == []
    assert [shown_number(frame.image) for frame in frames] == list(range(FRAMES))
    assert [frame.number for frame in frames] == list(range(FRAMES))
    film = FILMS[name]
    times = [(number + 0.25 * (film.uneven and number % 3 == 1)) / film.rate for number in range(FRAMES)]
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=6e-4)  # Matroska rounds to 1 ms
    assert abs(expected_frames(films[name]) - FRAMES) <= 1


@pytest.mark.parametrize("name", FILMS)
def test_damaged_films(films: dict[str, Path], tmp_path: Path, name: str):
    """Cut, flipped, zeroed and torn copies: no frame is another one than it says, and no loss is passed over."""
    intact = packets_by_number(films[name])
    copy = tmp_path / f"copy{films[name].suffix}"
    right = 0
    for seed in range(20):
        way, data = damage(films[name].read_bytes(), random.Random(seed))
        copy.write_bytes(data)
        verdict = judge(copy, intact)
        assert not verdict.wrong, f"seed {seed}, {way}"
        right += verdict.counts["right"]
    assert right > 2 * FRAMES  # damage costs what it must, not the whole film


def test_a_cut_film_says_how_much_is_lost(films: dict[str, Path], tmp_path: Path):
    """By the container's own list or duration; a transport stream, which has neither, says that it ends in a packet."""
    for name, lost in (("mkv h264", True), ("avi mjpeg", True), ("webm av1", True), ("ts h264", False)):
        data = films[name].read_bytes()
        cut = tmp_path / f"cut{films[name].suffix}"
        cut.write_bytes(data[: len(data) * 6 // 10 // 188 * 188 + 100])
        frames, (report,) = read(cut)
        assert [shown_number(frame.image) for frame in frames] == list(range(len(frames)))
        assert 5 < len(frames) < FRAMES
        if lost:
            assert report.lost == FRAMES - len(frames)
            assert report.words.startswith(f"{report.lost} of {FRAMES} frames are lost: {len(frames)} to {FRAMES - 1}")
        else:
            assert "the file ends within a packet" in report.words


def test_frames_behind_a_hole_keep_their_numbers(films: dict[str, Path], tmp_path: Path):
    """The hole, and what was drawn from it, is lost up to the next key frame; what follows is numbered by its time."""
    for name in ("ts h264", "mkv h264", "avi mpeg4"):
        packets = sorted(packets_by_number(films[name]).items())
        data = films[name].read_bytes()
        gone = dict(packets)[14][-40:]
        hole = tmp_path / f"hole{films[name].suffix}"
        at = data.index(gone[-30:])
        hole.write_bytes(data[:at] + bytes(30) + data[at + 30 :])
        frames, (report,) = read(hole)
        numbers = [frame.number for frame in frames]
        assert [shown_number(frame.image) for frame in frames] == numbers
        assert 14 not in numbers
        assert set(range(24, FRAMES)) <= set(numbers)
        assert report.lost == FRAMES - len(numbers)


def test_what_an_edit_list_hides_is_no_loss(films: dict[str, Path], tmp_path: Path):
    """As a phone trims a film: the frames stay in the file, no player shows them, and a remark says how many."""
    data = bytearray(films["mp4 h264"].read_bytes())
    at = data.index(b"elst") + 12
    assert struct.unpack_from(">I", data, at) == (4000,)  # ms that are shown
    struct.pack_into(">I", data, at, 2500)
    (tmp_path / "trimmed.mp4").write_bytes(bytes(data))
    frames, (report,) = read(tmp_path / "trimmed.mp4")
    assert [shown_number(frame.image) for frame in frames] == [frame.number for frame in frames] == list(range(25))
    assert report == FilmReport("its edit list hides 15 of the 40 frames that it holds", 0)


def test_a_bare_stream_has_no_times(tmp_path: Path):
    path = write_film(tmp_path / "bare.h264", Film(".h264", "libx264", reordered=2), 20)
    frames, reports = read(path)
    assert [(shown_number(frame.image), frame.number, frame.time_s) for frame in frames] == [
        (number, number, None) for number in range(20)
    ]
    assert reports == []
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(60)
    path.write_bytes(bytes(data))
    frames, (report,) = read(path)
    assert [shown_number(frame.image) for frame in frames] == list(range(len(frames)))
    assert report.lost == 20 - len(frames) > 0


def test_a_turned_film_is_upright(tmp_path: Path):
    """As phones store it: the pictures lie on their side, and the film says by how much."""
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(90)
        stored = np.zeros((64, 96, 3), np.uint8)
        stored[:32, :48] = 255  # the upper left quarter
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode(None))
    ((frame,), _) = read(tmp_path / "turned.mp4")
    assert frame.image.shape == (96, 64, 3)
    corners = {(row, column): frame.image[row, column, 0] > 128 for row in (10, 85) for column in (10, 53)}
    assert corners == {(85, 10): True, (10, 10): False, (10, 53): False, (85, 53): False}  # counterclockwise


def test_what_is_no_film_is_said_in_words(films: dict[str, Path], tmp_path: Path):
    data = films["mp4 h264"].read_bytes()
    (tmp_path / "unknown.mp4").write_bytes(data.replace(b"avc1", b"zzz9"))
    (tmp_path / "junk.mp4").write_bytes(b"no film")
    (tmp_path / "empty.ts").touch()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    for name, words in (
        ("unknown.mp4", "codec"),
        ("junk.mp4", "no film, or one that was cut or damaged so that it cannot be opened"),
        ("empty.ts", "no film, or one that was cut or damaged"),
        ("sound.mp4", "a film without a video stream"),
        ("nowhere.mp4", "no such file"),
    ):
        frames, (report,) = read(tmp_path / name)
        assert frames == []
        assert report.lost == 1
        assert words in report.words


def test_a_written_film(tmp_path: Path):
    """It has its name when it is whole; pictures have their times, gaps included; odd sizes are cut to even ones."""
    writer = FilmWriter(tmp_path / "film.mp4")
    times = [0.0, 0.1, 0.5, 0.6]
    for number, time_s in enumerate(times):
        padded = np.pad(numbered_picture(number), ((0, 1), (0, 1), (0, 0)))
        writer.add(padded, time_s)
    assert not (tmp_path / "film.mp4").exists()
    writer.close()
    frames, reports = read(tmp_path / "film.mp4")
    assert [frame.time_s for frame in frames] == times
    assert [shown_number(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert reports == []
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    unfinished = FilmWriter(tmp_path / "other.mp4")
    unfinished.add(numbered_picture(0), 0.0)
    unfinished.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
