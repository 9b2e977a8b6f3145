"""The number of each frame of a film, found from its packets without decoding them.

A number is the frame's place in the film as it was recorded, so lost frames leave a gap in the numbers:

- MP4 and MOV list all samples: the number is the rank of the frame's time among all times of the list.
- AVI lists its chunks in decoding order: a key frame's number is its chunk's place, and the pictures that the decoder
  gives after it count on from there.
- Other containers (Matroska, WebM, MPEG-TS, ...) have no list. In a regular film the number is the time since the first
  frame over the duration of one frame; where durations differ it is the rank among the times that are there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from train.deploy.film_chunks import place_chunks
from train.deploy.film_packets import StoredPacket, read_packets

_TS_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and where in it the byte stands that begins them all
_TS_BEGIN = 0x47
_REGULAR_SHARE = 0.8  # of the gaps between times that are one frame long, in a regular film
_STATED_SHARE = 0.6  # the same where the stream itself states the frame rate
_FEW = 10  # gaps between times, too few for a share: the stream's own frame rate decides
MOST_REORDERED = 16  # frames by which a codec's decoding order may differ from the order of time
_NEVER_REORDERED = ("vp8", "vp9", "av1", "mjpeg")  # codecs that show frames as they decode them
_MOST_UNREAD = 0.3  # of a file may follow its last frame: indexes and tags
_JUMP_S, _JUMP_FRAMES = 1.0, 5  # a gap above both is a jump in the time of a film with irregular times


@dataclass(frozen=True)
class FilmIndex:
    """The numbers of a film's frames, and the losses that show without decoding."""

    numbers: dict[int, int]  # time in ticks -> frame number from 0
    total: int  # frames that the film should hold
    start: Fraction | int  # time of frame 0 in ticks
    tick_s: Fraction
    notes: list[str]  # losses of an unknown number of frames
    remarks: list[str] = field(default_factory=list)  # what is no loss
    times: list[int | None] = field(default_factory=list)  # of each packet's frame; empty: the packets have no times
    repeats: frozenset[int] = frozenset()  # numbers of frames that the film shows by repeating the one before
    by_place: bool = False  # times are places in decoding order, and the order of the pictures tells the numbers
    depth: int = 0  # frames by which decoding order differs from the order of time

    def time_s(self, time: int) -> float:
        """Seconds since frame 0."""
        return round(float((time - self.start) * self.tick_s), 6)


def index_film(path: Path, container: InputContainer, stream: VideoStream) -> FilmIndex:
    """Read all packets of a film that was just opened."""
    packets, notes = read_packets(container, stream)
    if container.format.name == "mpegts" and path.stat().st_size % _ts_packet_bytes(path):
        notes.append("the file ends within a packet: what followed is missing")
        packets[-1:] = [replace(packet, whole=False) for packet in packets[-1:]]
    if container.format.name == "mpegts":  # a gap is noted with a packet beside the one that it is in
        whole = [packet.whole for packet in packets]
        packets = [replace(packet, whole=all(whole[max(0, row - 1) : row + 1])) for row, packet in enumerate(packets)]
    if container.format.name == "avi":
        packets, repeats, listed = place_chunks(path, packets, stream.index, stream.frames)
        total = max(listed, stream.frames, len(packets))
        index = FilmIndex({}, total, 0, 1 / (stream.average_rate or Fraction(1)), [], repeats=repeats, by_place=True)
    elif not packets or any(packet.time is None for packet in packets):
        return FilmIndex({}, max(stream.frames, len(packets)), 0, stream.time_base or Fraction(1), notes)
    elif "mp4" in container.format.name.split(","):
        index = _index_by_rank(path, packets, stream)
    else:
        index = _index_by_time(path, packets, stream, container)
    time = [packet.time if packet.whole else None for packet in packets]
    total = max(index.total, max(index.numbers.values(), default=-1) + 1)
    return replace(index, times=time, total=total, notes=notes + index.notes, depth=_depth(time, index.numbers))


def _ts_packet_bytes(path: Path) -> int:
    """Return the size of a transport stream's packets by its first ones; 1 where they do not tell."""
    with path.open("rb") as file:
        data = file.read(3 * _TS_PACKETS[-1][0])
    for size, at in _TS_PACKETS:
        if all(byte == _TS_BEGIN for byte in data[at::size]) and len(data) > size:
            return size
    return 1


def _index_by_rank(path: Path, packets: Sequence[StoredPacket], stream: VideoStream) -> FilmIndex:
    """MP4: the rank among all samples of the list, those that the file lacks included.

    When a lacking sample would be shown is known but for the frames by which the film is reordered: frames of that
    moment get no number.
    """
    entries = list(stream.index_entries)
    kept = [row for row, entry in enumerate(entries) if not entry.is_discard]  # edits hide the beginning or the end
    entries = entries[kept[0] : kept[-1] + 1] if kept else []
    trusted = _with_usual_delay(packets)
    delays = [packet.time - packet.decode_time for packet in trusted if packet.time is not None
              and packet.decode_time is not None]  # fmt: skip
    listed = Counter(entry.timestamp for entry in entries if entry.timestamp is not None)
    lacking = sorted((listed - Counter(packet.decode_time or 0 for packet in trusted)).elements())
    times = sorted(packet.time for packet in trusted if packet.time is not None)
    numbers = {}
    for time, count in Counter(times).items():
        before = bisect_left(lacking, time - max(delays))
        if count == 1 and before == bisect_right(lacking, time - min(delays)):
            numbers[time] = bisect_left(times, time) + before
    start = times[0] if not lacking else min(times[0], lacking[0] + min(delays))
    tick_s = stream.time_base or Fraction(1)
    total = len(trusted) + len(lacking)
    notes, hidden = _edited(path, stream, len(entries))
    step = _regular_step(sorted(numbers), stream, tick_s) if hidden else None
    if step is not None:  # frames that seem hidden at the end, and as many gaps before it: their times are damaged
        by_step = _numbers_by_step(sorted(numbers), step, start)
        if max(by_step.values(), default=0) == total + hidden - 1:
            agreed = {time: number for time, number in numbers.items() if by_step.get(time) == number}
            return FilmIndex(agreed, total + hidden, start, tick_s, notes)
    remarks = [f"its edit list hides {hidden} of the {total + hidden} frames that it holds"] if hidden else []
    return FilmIndex(numbers, total, start, tick_s, notes, remarks)


def _with_usual_delay(packets: Sequence[StoredPacket]) -> list[StoredPacket]:
    """Return the packets without the few whose time is damaged: shown far later than decoded, or at another's time."""
    counted = Counter(packet.time for packet in packets)
    delays = [(packet.time or 0) - (packet.decode_time or 0) for packet in packets]
    decoded = sorted(packet.decode_time or 0 for packet in packets)
    step = median_low([later - earlier for earlier, later in pairwise(decoded)] or [1])
    usual = sorted(delays)[len(delays) * 9 // 10] - min(delays)
    late = [delay - min(delays) > 2 * usual + 2 * step for delay in delays]
    few = sum(late) <= max(2, len(packets) // 100)
    return [packet for packet, is_late in zip(packets, late, strict=True)
            if counted[packet.time] == 1 and not (few and is_late)] or list(packets)  # fmt: skip


def _edited(path: Path, stream: VideoStream, shown: int) -> tuple[list[str], int]:
    """A loss where an MP4's list of durations has other samples than its list of sizes; frames that its edits hide."""
    if stream.frames <= shown:
        return [], 0
    with av.open(str(path), options={"ignore_editlist": "1"}, metadata_errors="replace") as unedited:
        listed = len(unedited.streams[stream.index].index_entries)
    if listed != stream.frames:
        return [f"its lists of frames disagree: {stream.frames} or {listed}"], 0
    return [], max(0, listed - shown)


def _index_by_time(
    path: Path, packets: list[StoredPacket], stream: VideoStream, container: InputContainer
) -> FilmIndex:
    """A container without a list. `packets` lose times that contradict the others."""
    tick_s = stream.time_base or Fraction(1)
    in_order = stream.codec_context.codec.canonical_name in _NEVER_REORDERED
    backwards = _drop_contradicting(packets, 2 if in_order else MOST_REORDERED + 2)
    notes = [f"its time runs backwards after {len(packets) - backwards} frames"] if backwards else []
    times = _single_times(packets)
    if not times:
        return FilmIndex({}, len(packets), 0, tick_s, [*notes, "its times contradict each other"])
    step = _regular_step(times, stream, tick_s)
    matroska = "matroska" in container.format.name.split(",")
    start = Fraction(_matroska_start(packets[0], times[0], stream, tick_s) if matroska else times[0])
    end_s = _end_s(container, stream) if matroska else 0.0
    rest = path.stat().st_size - max(packet.position or 0 for packet in packets)
    if matroska and len(container.streams) == 1 and rest > _MOST_UNREAD * path.stat().st_size:
        notes.append(f"the last {rest / path.stat().st_size:.0%} of the file hold no frame that could be found")
    if step is not None:
        starts = [
            start,
            *([Fraction(0)] if matroska else []),
            *(time - row * step for row, time in enumerate(times[1:4], 1)),
        ]
        start = next((one for one in starts if 2 * len(_numbers_by_step(times, step, one)) > len(times)), start)
        numbers = _numbers_by_step(times, step, start)
        total = round((Fraction(end_s) / tick_s - start) / step) if end_s else 0
        return FilmIndex(numbers, total, start, tick_s, notes)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    longest = max(_JUMP_S, _JUMP_FRAMES * float(median_low(gaps) * tick_s)) if gaps else _JUMP_S
    notes += [f"its time jumps by {float(gap * tick_s):.1f} s" for gap in gaps if gap * tick_s > longest]
    if end_s and end_s - times[-1] * tick_s > longest:
        notes.append(f"its last frame is of {float(times[-1] * tick_s):.1f} s, it should last {end_s:.1f} s")
    total = max(len(packets), round(end_s / float(median_low(gaps) * tick_s)) if notes and gaps else 0)
    return FilmIndex({time: number for number, time in enumerate(times)}, total, times[0], tick_s, notes)


def _matroska_start(first: StoredPacket, time: int, stream: VideoStream, tick_s: Fraction) -> int:
    """The time of the film's first frame, which may be lost: where the index begins earlier, or the time late."""
    indexed = min((entry.timestamp for entry in stream.index_entries), default=time)
    if indexed < time:
        return indexed
    return time if first.key and first.time == time and time * tick_s < _JUMP_S else 0


def _single_times(packets: Sequence[StoredPacket]) -> list[int]:
    """The times in order, without those that two packets claim."""
    counted = Counter(packet.time for packet in packets if packet.time is not None)
    return sorted(time for time, count in counted.items() if count == 1)


def _end_s(container: InputContainer, stream: VideoStream) -> float:
    """When a Matroska film ends by its header; 0.0 where it does not say so."""
    hours, colon, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, colon, seconds = rest.partition(":")
    try:
        if colon:
            return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0
    alone = len(container.streams) == 1  # other streams may end later
    return container.duration / av.time_base if alone and container.duration else 0.0


def _drop_contradicting(packets: list[StoredPacket], most: int) -> int:
    """Take the time from packets that are far from their neighbours, and from all after a step back in time.

    Returns how many the latter are. Decoding order and order of time may differ by `most` frames.
    """
    times = sorted({packet.time for packet in packets if packet.time is not None})
    gaps = [later - earlier for earlier, later in pairwise(times)]
    far = most * max(1, median_low(gaps or [1]))
    claimed = [packet.time for packet in packets]
    latest = claimed[0]
    for row, time in enumerate(claimed):
        nearby = [near for near in claimed[max(0, row - 2) : row + 3] if near is not None]
        if time is None or abs(time - median_low(nearby)) > far:
            packets[row] = replace(packets[row], time=None)
            continue
        latest = max(time, latest or time)
        if time < latest - far:
            packets[row:] = [replace(packet, time=None) for packet in packets[row:]]
            return len(packets) - row
    return 0


def _regular_step(times: Sequence[int], stream: VideoStream, tick_s: Fraction) -> Fraction | None:
    """Ticks from frame to frame, if most times lie on the grid of one frame rate; None where durations differ."""
    gaps = [later - earlier for earlier, later in pairwise(times)]
    if not gaps:
        return None
    rates = [rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
    usual = median_low(gaps)
    steps = [step for step in (1 / (rate * tick_s) for rate in rates) if abs(step - usual) <= max(1, usual / 20)]
    best = max([*steps, Fraction(usual)], key=lambda step: len(_numbers_by_step(times, step, times[0])))
    counts = [_on_grid(gap, best) for gap in gaps]
    few = len(gaps) < _FEW and best in steps and 0 not in counts
    least = _STATED_SHARE if best in steps else _REGULAR_SHARE
    return best if few or counts.count(1) >= least * len(gaps) else None


def _on_grid(gap: Fraction | int, step: Fraction) -> int:
    """Return the number of steps in a gap; 0 if the gap is not a whole number of steps."""
    count = round(gap / step)
    most_off = min(step / 4, max(Fraction(1), step / 50) + (count - 1) * step / 200)
    return count if abs(gap - count * step) <= most_off else 0


def _numbers_by_step(times: Sequence[int], step: Fraction, start: Fraction | int) -> dict[int, int]:
    """Numbers of the times, counted in steps from one time on the grid to the next.

    Between two of them there may be as many others as there are steps, as cameras jitter; if there are more or fewer,
    it is not known which frame each of them is, and they get no number.
    """
    numbers: dict[int, int] = {}
    anchor: Fraction | int = start
    number, between = 0, list[int]()
    for time in times:
        first = not numbers and -1 <= time - start <= 1
        count = 0 if first else _on_grid(time - anchor, step)
        if first or count:
            number += count
            if between and len(between) == count - 1:
                numbers.update(zip(between, range(number - count + 1, number), strict=True))
            numbers[time] = number
            anchor, between = time, []
        else:
            between.append(time)
    return numbers


def _depth(times: Sequence[int | None], numbers: dict[int, int]) -> int:
    """The most frames by which a frame is shown before one that is decoded earlier."""
    deepest, latest = 0, 0
    for time in times:
        number = numbers.get(time) if time is not None else None
        if number is not None:
            latest = max(latest, number)
            deepest = max(deepest, latest - number)
    return min(deepest, MOST_REORDERED)
