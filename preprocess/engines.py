"""Engines that write shards on this machine: this process or a pool of processes; both call the same function."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import forkserver, get_context, parent_process, resource_tracker
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from preprocess.shard import Context, Progress, ShardJob, ShardMaker
from preprocess.stop import children_deaf, signals_held
from shards.manifest import ShardIndex

_MAX_TEMPORARY_BYTES = 74  # of the path of the folder for temporary files

Report = Callable[[str], None]  # a line for people


def run_here(context: Context, jobs: Iterator[ShardJob], progress: Progress) -> Iterator[ShardIndex]:
    """One after the other, in this process."""
    maker = ShardMaker(context)
    for job in jobs:
        yield maker.write(job, progress)


def run_pool(
    context: Context, jobs: Iterator[ShardJob], workers: int, progress: Progress, report: Report
) -> Iterator[ShardIndex]:
    """In processes, in any order; shards under way when a process dies are tried once more, one at a time.

    Raises ValueError where one dies again.
    """
    if (reason := _why_no_pool()) is not None:
        report(f"processes cannot share locks, which Linux keeps in /dev/shm ({reason}): one process converts alone")
        yield from run_here(context, jobs, progress)
        return
    lost: list[ShardJob] = []
    with _Pool(context, workers) as pool:
        yield from pool.run(jobs, progress, lost)
    while lost:
        names = ", ".join(job.describe() for job in lost)
        report(f"a worker process died (out of memory?) while writing {names}: trying once more, one at a time")
        for job in lost:
            died: list[ShardJob] = []
            with _Pool(context, 1) as pool:
                yield from pool.run(iter([job]), progress, died)
            if died:
                raise ValueError(f"a worker process died again while writing {job.describe()}: out of memory?")
        lost = []
        with _Pool(context, workers) as pool:
            yield from pool.run(jobs, progress, lost)


@dataclass(frozen=True)
class _Shared:
    """The state that the processes of a pool share."""

    stop: Event  # set: leave the shard that is under way unfinished
    frames_done: Synchronized[int]


class _Pool:
    """Processes that write shards. Forkserver: forking a process that has used OpenCV's threads can hang."""

    def __init__(self, context: Context, workers: int) -> None:
        _start_servers()
        processes = get_context("forkserver")
        self._shared = _Shared(processes.Event(), processes.Value("q", 0))
        self._ahead = 2 * workers
        self._pool = ProcessPoolExecutor(workers, processes, _start_worker, (self._shared, context))

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._shared.stop.set()  # where all went well nobody is left to see it
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, jobs: Iterator[ShardJob], progress: Progress, lost: list[ShardJob]) -> Iterator[ShardIndex]:
        """Keep a bounded number of shards under way, so that memory does not grow with the data set.

        Where a process dies the run ends, with the shards that were under way in `lost`.
        """
        running: dict[Future[ShardIndex], ShardJob] = {}
        reported = 0
        try:
            while True:
                for job in islice(jobs, self._ahead - len(running)):
                    lost.append(job)  # should submitting it fail
                    with signals_held():  # it starts processes
                        running[self._pool.submit(_write, job)] = lost.pop()
                if not running:
                    return
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                frames = self._shared.frames_done.value
                progress(frames - reported)
                reported = frames
                for future in done:
                    index = future.result()
                    del running[future]
                    yield index
        except BrokenProcessPool:
            finished = [future for future in running if future.done() and future.exception() is None]
            for future in finished:
                del running[future]
                yield future.result()
            lost += running.values()
        except (EOFError, ConnectionError) as error:
            raise ValueError(
                "the process that starts workers died (out of memory?): the same command goes on"
            ) from error


def _start_servers() -> None:
    """The processes that start and mind the workers. Neither they nor the workers hear signals: the build decides."""
    with signals_held(), _short_temporary_folder():
        for ensure_running in (resource_tracker.ensure_running, forkserver.ensure_running):
            with children_deaf():  # anew, since the first of them lets the signals through again
                ensure_running()


def _why_no_pool() -> str | None:
    """Why the processes of a pool could have no locks in common; None where they can."""
    _start_servers()  # first: a lock would start one of them that hears signals
    try:
        get_context("forkserver").Lock()
    except OSError as error:
        return str(error.strerror)
    return None


@contextmanager
def _short_temporary_folder() -> Iterator[None]:
    """Inside, Python's own temporary files lie in a folder whose path leaves room for a socket's name.

    The path of a socket has at most 107 bytes, and multiprocessing adds 32 to that of the temporary folder.
    """
    usual = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _MAX_TEMPORARY_BYTES:
        usable = [path for path in ("/tmp", "/var/tmp", "/dev/shm") if os.access(path, os.W_OK | os.X_OK)]
        if not usable:
            raise ValueError(
                f"TMPDIR must have at most {_MAX_TEMPORARY_BYTES} bytes where /tmp cannot be written, got "
                f"{tempfile.gettempdir()}: the path of a socket has no more room"
            )
        tempfile.tempdir = usable[0]
    try:
        yield
    finally:
        tempfile.tempdir = usual


class _Stopped(Exception):
    """Raised in a worker to leave its shard unfinished."""


_write_here: Callable[[ShardJob], ShardIndex] | None = None  # of a worker process: pixel maps are made once


def _start_worker(shared: _Shared, context: Context) -> None:
    global _write_here  # noqa: PLW0603 - a process pool's initialiser has nowhere else to put it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    maker = ShardMaker(context)

    def count(frames: int) -> None:
        if shared.stop.is_set():
            raise _Stopped
        with shared.frames_done.get_lock():
            shared.frames_done.value += frames

    _write_here = lambda job: maker.write(job, count)  # noqa: E731


def _end_with_parent() -> None:
    """A build that was killed leaves no process that goes on writing."""
    parent = parent_process()
    assert parent is not None, "workers are started by a build"
    parent.join()
    os._exit(1)


def _write(job: ShardJob) -> ShardIndex:
    assert _write_here is not None, "the pool's initialiser sets it"
    return _write_here(job)
