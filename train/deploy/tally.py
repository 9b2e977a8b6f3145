"""The account of a prediction run: frames that were predicted, inputs that were left out, and remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.deploy.inputs import Frame, ShardSplit, Source
from train.engine.checkpoint import Checkpoint
from train.engine.run import Reporter
from train.engine.seen import count_seen, seen_line

_LINES = 10  # inputs that are left out, and remarks, that get a line of their own; films always do


class Tally:
    """Counts frames as they are done, and tells a person about those that need it."""

    def __init__(self, reporter: Reporter, sources: Sequence[Source]) -> None:
        self._reporter = reporter
        self._sources = sources
        self._expected = sum(source.count() for source in sources)
        self.names: list[str] = []
        self.left_out: list[Frame] = []
        self._frames: dict[str, dict[str, float | int | None]] = {}  # by name: where it is in its file
        self._remarks: list[dict[str, str]] = []

    def seen_lines(self, path: Path, checkpoint: Checkpoint) -> list[str]:
        """Return a line for each set of shards: how many of its samples the checkpoint was trained on."""
        splits = [source for source in self._sources if isinstance(source, ShardSplit)]
        keys = {str(source.shards.folder): [ref.key for ref in source.samples] for source in splits}
        return [seen_line(path, count_seen(checkpoint, of), len(of), folder) for folder, of in keys.items()]

    def done(self, frame: Frame) -> None:
        """Count a frame that was predicted, or an input without a picture."""
        if frame.image is not None:
            self.names.append(frame.name)
            if frame.number is not None:
                self._frames[frame.name] = {"number": frame.number, "time_s": frame.time_s}
        elif frame.lost:
            self.left_out.append(frame)
            if frame.film or len(self.left_out) <= _LINES:
                self._reporter.say(f"left out {frame.source}: {frame.reason}")
        else:
            self._remark(frame, frame.reason)
        for remark in frame.remarks:
            self._remark(frame, remark)
        so_far = len(self.names) + self.lost
        self._reporter.progress("predicting", so_far, max(so_far, self._expected), str)

    def _remark(self, frame: Frame, remark: str) -> None:
        self._remarks.append({"input": frame.source, "remark": remark})
        if len(self._remarks) <= _LINES:
            self._reporter.say(f"{frame.source}: {remark}")

    @property
    def lost(self) -> int:
        """Pictures that were left out."""
        return sum(frame.lost for frame in self.left_out)

    def record(self) -> dict[str, Any]:
        """Return the account for `predictions.json`."""
        left_out = [{"input": frame.source, "reason": frame.reason, "frames": frame.lost} for frame in self.left_out]
        return {"names": self.names, "frames": self._frames, "left_out": left_out, "remarks": self._remarks}

    def finish(self, out: str, record_file: str) -> None:
        """Say the closing line. Raises ValueError with it where something was left out."""
        if len(self._remarks) > _LINES:
            self._reporter.say(f"{len(self._remarks) - _LINES} more remarks on inputs are in {record_file}")
        if not self.left_out:
            self._reporter.say(f"wrote {out}: {len(self.names)} images; {record_file} says what the numbers mean")
            return
        reasons = Counter(frame.reason for frame in self.left_out if not frame.film)
        counted = ", ".join([f"{reason}: {count}" for reason, count in reasons.most_common()]
                            + [f"{frame.source}: {frame.reason}" for frame in self.left_out if frame.film])  # fmt: skip
        total = len(self.names) + self.lost
        raise ValueError(
            f"{self.lost} of {total} inputs could not be used ({counted}); the other {len(self.names)} are in {out}"
            if self.names else f"none of {total} inputs could be used ({counted})"
        )  # fmt: skip
