"""Lines on standard output and standard error, where a reader may have gone and a disk may be full."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class OutputError(ValueError):
    """Standard output or standard error cannot be written."""


def write_text(text: str, *, err: bool = False) -> None:
    """Write text to standard output or standard error, at once.

    A pipe whose reader has ended, as in `| head -1`, takes the rest in silence and the command goes on; so does a
    stream that was closed before the start. Raises OutputError where the stream cannot be written for another reason.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _discard(stream)
    except OSError as error:
        _discard(stream)
        name = "standard error" if err else "standard output"
        raise OutputError(f"{name} cannot be written: {error.strerror}") from error


def _discard(stream: TextIO) -> None:
    """Send everything that follows to nowhere, the text that is still buffered included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
