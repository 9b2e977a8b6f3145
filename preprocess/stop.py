"""Stop signals as one KeyboardInterrupt, where it can be borne."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

EXIT_STOPPED = 75  # stopped by a signal, with the work kept
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def catch_signals() -> None:
    """From now on the first of SIGTERM, SIGINT and SIGUSR1 raises KeyboardInterrupt; those after it find it under way.

    Batch systems send a signal to every process, some more than once, and people press Ctrl-C twice: an exception in
    the middle of an orderly end would spoil it.
    """
    for number in SIGNALS:
        signal.signal(number, _stop)


def _stop(_: int, __: FrameType | None) -> NoReturn:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def signals_held() -> Iterator[None]:
    """A signal that comes inside is answered at the end: what begins inside is not left half begun."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def children_deaf() -> Iterator[None]:
    """Programs that are started inside never hear the signals: batch systems send them to every process of a job."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
