"""The engine that writes shards on a Dask cluster; its workers do what those of one machine do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from preprocess.engines import Report
from preprocess.shard import Context, Progress, ShardJob, ShardMaker
from shards.manifest import ShardIndex

_CONNECT_S = 20.0  # how long a scheduler may take to answer
_LOOK_S = 1.0  # how often the cluster is asked for new workers
_IMPORT = "import preprocess.cluster"


def run_dask(
    context: Context, jobs: Iterator[ShardJob], address: str, progress: Progress, report: Report
) -> Iterator[ShardIndex]:
    """On the Dask cluster at `address`, whose workers must see the same files under the same names.

    A shard whose worker dies is given to another by Dask. Raises ValueError where there is no such cluster, where its
    scheduler or a worker lacks this package, or where a shard's workers die again and again.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, asked for here only
    except ImportError as error:
        raise ValueError("--dask needs the extra `cluster`: pip install 'asymmetric-mtl[cluster]'") from error
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise ValueError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        workers = _Workers(client, address, report)
        workers.wait_for_one()
        submitted: dict[Any, ShardJob] = {}  # by its future
        while True:
            # The context goes with every shard: scattered, it could be lost with the one worker that had it.
            for job in islice(jobs, max(0, 2 * max(1, workers.threads()) - len(submitted))):
                submitted[client.submit(write_on_cluster, context, job, pure=False)] = job
            if not submitted:
                return
            for future in _finished(list(submitted)):
                job = submitted.pop(future)
                index = _result(future, job)
                progress(len(job.frames))
                yield index
            workers.check()


def _finished(futures: list[Any]) -> list[Any]:
    """Return the futures that are done, as soon as there are some; none after `_LOOK_S`, to look for new workers."""
    from distributed import wait  # noqa: PLC0415 - an extra

    try:
        return list(wait(futures, timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
    except TimeoutError:
        return []


def _result(future: Any, job: ShardJob) -> ShardIndex:
    from distributed import KilledWorker  # noqa: PLC0415 - an extra

    try:
        index: ShardIndex = future.result()
    except KilledWorker as error:
        raise ValueError(f"the cluster's workers died while writing {job.describe()}: out of memory?") from error
    return index


class _Workers:
    """The workers of a Dask cluster, which come and go; each is asked once whether it has this package.

    A worker without it cannot read its tasks, and a scheduler without it cannot pass them on: the client would wait for
    ever. `exec` is a function that they all have.
    """

    def __init__(self, client: Any, address: str, report: Report) -> None:
        self._client, self._address, self._report = client, address, report
        self._checked: set[str] = set()
        self._waiting = False
        try:
            client.run_on_scheduler(exec, _IMPORT)
        except ImportError as error:
            raise ValueError(self._lacking("scheduler", address, error)) from error

    def wait_for_one(self) -> None:
        """Return as soon as there is a worker."""
        while not self.threads():
            self.check()
            time.sleep(_LOOK_S)
        self.check()

    def threads(self) -> int:
        """The threads of all workers that are there now."""
        return sum(self._client.nthreads().values())

    def check(self) -> None:
        """Say where there is no worker; raises ValueError where one that has come lacks the package."""
        present = set(self._client.nthreads())
        if not present and not self._waiting:
            self._report(f"the Dask cluster at {self._address} has no workers: waiting for the first")
        self._waiting = not present
        new = present - self._checked
        if new:
            answers = self._client.run(exec, _IMPORT, workers=list(new), on_error="return")
            for worker, answer in answers.items():
                if isinstance(answer, ImportError):
                    raise ValueError(self._lacking("worker", worker, answer))
        self._checked |= new

    def _lacking(self, what: str, address: str, error: ImportError) -> str:
        return (
            f"the Dask {what} at {address} must have asymmetric-mtl installed, as this machine has it, got "
            f"{type(error).__name__}: {error}"
        )


_of_thread = threading.local()


def write_on_cluster(context: Context, job: ShardJob) -> ShardIndex:
    """The function that a Dask worker runs; each of its threads keeps its own pixel maps."""
    build = (context.out, tuple(context.fingerprints.items()), context.strict, context.claim)
    if getattr(_of_thread, "build", None) != build:
        _of_thread.build, _of_thread.maker = build, ShardMaker(context)
    index: ShardIndex = _of_thread.maker.write(job, lambda _: None)
    return index
