"""Shards behind URLs or pipes: the manifest and indexes are fetched first, then whole shards into memory.

Samples, labels, order and checksums are known as for a folder, so no other module depends on where shards are.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock

import orjson
from braceexpand import braceexpand
from webdataset.gopen import gopen

from shards.manifest import read_manifest
from shards.reader import SampleRef, ShardSet, check_member
from shards.schema import MANIFEST, index_name
from train.config import RunConfig

HELD = 4  # shards in memory, and in a block of the shuffle, where nothing else is asked for
_SHARD = re.compile(r"(?:train|val|test)-\d{6}\.tar")
_FETCHERS = 8  # indexes fetched at once


def is_remote(shards: str) -> bool:
    """Return whether this is a URL or a pipe rather than a folder."""
    return shards.startswith("pipe:") or "://" in shards


def open_remote(config: RunConfig) -> tuple[RunConfig, RemoteShards, str]:
    """Return the set, the config with the shuffle block limited by memory, and a line that states the cost."""
    held = config.stream.shuffle_shards or HELD
    shards = RemoteShards(config.shards, held)
    largest = max((shard["bytes"] for shard in shards.manifest["shards"]), default=0)
    line = (
        f"shards come from a URL or pipe: each is fetched whole whenever its block comes up, by every process; samples "
        f"are shuffled within {held} shards only, which are held in memory (up to {held * largest / 1e6:.0f} MB; "
        "--shuffle-shards sets another number), and no shard's size is known before it is fetched"
    )
    return replace(config, stream=replace(config.stream, shuffle_shards=held)), shards, line


class RemoteShards(ShardSet):
    """A finished set behind URLs: the train shards that a pattern names, and every val shard beside them."""

    def __init__(self, pattern: str, held: int) -> None:
        """`http://host/shards/train-{000000..000077}.tar`, or `pipe:` and a command; keeps `held` shards in memory.

        Raises ValueError where the pattern names no shard, or where manifest or index are not beside them.
        """
        try:
            urls = list(braceexpand(pattern))
        except ValueError as error:
            raise ValueError(f"{pattern} must have as many {{ as }}: {error}") from error
        named = {_shard_in(url) for url in urls}
        self._url = urls[0]
        records = Path(tempfile.mkdtemp(prefix="amtl-"))
        weakref.finalize(self, shutil.rmtree, records, ignore_errors=True)
        (records / MANIFEST).write_bytes(fetch(self.url_of(MANIFEST)))
        keep_shards(records, named, pattern)
        super().__init__(records)
        names = [index_name(shard["name"]) for shard in self.manifest["shards"]]
        with ThreadPoolExecutor(_FETCHERS) as pool:
            for name, data in zip(names, pool.map(lambda name: fetch(self.url_of(name)), names), strict=True):
                (records / name).write_bytes(data)
        self._sizes = {shard["name"]: shard["bytes"] for shard in self.manifest["shards"]}
        self._held: dict[str, Future[bytes]] = {}  # the one used last is at the end
        self._most, self._lock = held, Lock()

    def url_of(self, name: str) -> str:
        """Return the URL of a file of the set, formed like that of the pattern's first shard."""
        return _SHARD.sub(name, self._url)

    def check_sizes(self) -> None:
        """Do nothing: a shard's size is compared when it is fetched."""

    def read(self, ref: SampleRef, member: str) -> bytes:
        """Return a member's bytes. Raises ValueError where they or their shard differ from the index."""
        place = ref.sample.members[member]
        data = self._shard(ref.shard)[place.offset : place.offset + place.size]
        try:
            check_member(data, place)
        except ValueError as error:
            raise ValueError(f"{self.url_of(ref.shard)} {error} at {ref.key}.{member}") from error
        return data

    def _shard(self, name: str) -> bytes:
        """Return a shard from memory; the first thread that needs it fetches it while others wait."""
        with self._lock:
            found = self._held.pop(name, None)
            future = found or Future()
            self._held[name] = future
            if len(self._held) > self._most:
                del self._held[next(iter(self._held))]
        if found is None:
            try:
                future.set_result(self._fetch_shard(name))
            except ValueError as error:
                future.set_exception(error)
        return future.result()

    def _fetch_shard(self, name: str) -> bytes:
        data = fetch(self.url_of(name))
        if len(data) != self._sizes[name]:
            raise ValueError(f"{self.url_of(name)} must have {self._sizes[name]} bytes, got {len(data)}")
        return data

    def close(self) -> None:
        """Free the shards in memory."""
        super().close()
        with self._lock:
            self._held.clear()


def _shard_in(url: str) -> str:
    found = _SHARD.findall(url)
    if len(set(found)) != 1:
        raise ValueError(f"{url} must name one shard, like train-000000.tar, got {len(set(found))}")
    return str(found[0])


def keep_shards(records: Path, named: set[str], pattern: str) -> None:
    """Remove train shards that are not named from the manifest; if all are named it stays byte for byte."""
    manifest = read_manifest(records)
    known = {shard["name"] for shard in manifest["shards"]}
    if named - known:
        raise ValueError(f"{pattern} names {min(named - known)}, which is not in the set's manifest")
    kept = [shard for shard in manifest["shards"] if shard["split"] != "train" or shard["name"] in named]
    if len(kept) < len(known):
        (records / MANIFEST).write_bytes(orjson.dumps({**manifest, "shards": kept}))


def fetch(url: str) -> bytes:
    """Return all bytes behind a URL or pipe. Raises ValueError where they cannot be read."""
    try:
        with gopen(url) as stream:
            return bytes(stream.read())
    except (OSError, ValueError) as error:
        raise ValueError(f"{url} cannot be read: {' '.join(str(error).split())}") from error
