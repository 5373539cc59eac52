"""How many jobs have run, and how late each began: a file per worker process that the runner reads while they run.

Asking the server would cost the server; asking the worker would cost the worker. A processor writes into mapped memory,
which costs it less than a microsecond, and it works through forks. Only the standard library, since every contestant's
environment imports it. `contestants/bullmq_node.mjs` writes the same file.

Layout, in 8-byte little-endian words: jobs run, delays noted, then the delays in ns, in the order of the runs.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import Final

__all__ = ["Reader", "Tally"]

_MOST_DELAYS: Final = 200_000
_HEADER: Final = struct.Struct("<QQ")
_WORD: Final = struct.Struct("<Q")


class Tally:
    """The counter of one worker process, made anew in a forked child.

    Args:
        directory: Where the files are; one run of one workload has one.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._pid = 0
        self._count = self._delays = 0

    def hit(self, sent_ns: int = 0) -> None:
        """Count a run of a processor; with the time of its `add` (of the monotonic clock, which processes share),
        note how late it began."""
        now_ns = time.monotonic_ns() if sent_ns else 0
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            self._count += 1
            if sent_ns and self._delays < _MOST_DELAYS:
                _WORD.pack_into(self._map, _HEADER.size + self._delays * _WORD.size, max(0, now_ns - sent_ns))
                self._delays += 1
            _HEADER.pack_into(self._map, 0, self._count, self._delays)

    def hits(self, count: int) -> None:
        """Count many runs at once."""
        with self._lock:
            if self._pid != os.getpid():
                self._begin()
            self._count += count
            _HEADER.pack_into(self._map, 0, self._count, self._delays)

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._count = self._delays = 0
        path = os.path.join(self._directory, str(self._pid))
        with open(path, "w+b") as file:
            file.truncate(_HEADER.size + _MOST_DELAYS * _WORD.size)
            self._map = mmap.mmap(file.fileno(), 0)


class Reader:
    """What all processes that write into a directory have counted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def by_process(self) -> dict[str, int]:
        """Return the count of each process."""
        counts: dict[str, int] = {}
        for entry in os.scandir(self._directory):
            with open(entry.path, "rb") as file:
                header = file.read(_HEADER.size)
            if len(header) == _HEADER.size:
                counts[entry.name] = _HEADER.unpack(header)[0]
        return counts

    def count(self) -> int:
        """Return how many jobs have run."""
        return sum(self.by_process().values())

    def delays_ms(self, skip: int = 0) -> list[float]:
        """Return how late jobs began, without the first `skip` of each process."""
        delays: list[float] = []
        for entry in os.scandir(self._directory):
            with open(entry.path, "rb") as file:
                header = file.read(_HEADER.size)
                if len(header) < _HEADER.size:
                    continue
                words = file.read(_HEADER.unpack(header)[1] * _WORD.size)
            delays += [word / 1e6 for (word,) in list(_WORD.iter_unpack(words))[skip:]]
        return delays
