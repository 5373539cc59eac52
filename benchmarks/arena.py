"""The server and the processes: started, watched, ended. Each contestant meets the same server, emptied before.

Needs Linux: what a process has used is read from /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import redis

from benchmarks.contestants import Contestant
from benchmarks.tally import Reader
from toril.embedded import EmbeddedServer

__all__ = ["Arena", "BenchError", "Program", "Reading"]

ROOT: Final = Path(__file__).resolve().parents[1]
_TICK: Final = os.sysconf("SC_CLK_TCK")
# So many seconds, after which the server has looked at all its clients, and cut their buffers.
_STOCKTAKING: Final = 2.5


class BenchError(Exception):
    """A contestant did not do what it was asked to: what, and its last words."""


@dataclass(frozen=True)
class Reading:
    """What had been used at one moment.

    Attributes:
        at: Seconds of the monotonic clock.
        server: Seconds of the processor that the server had used.
        workers: Likewise, of all workers.
        commands: How many commands the server had carried out, those within scripts too.
    """

    at: float
    server: float
    workers: float
    commands: int


def processor_seconds(pid: int) -> float:
    """Return what a process and its children have used; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used = (int(fields[11]) + int(fields[12])) / _TICK
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                used += processor_seconds(int(child))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return used


class Program:
    """A producer or a worker, in a session of its own, so that what it starts ends with it."""

    def __init__(self, contestant: Contestant, *arguments: str) -> None:
        self._title = f"{contestant.name} {arguments[0]}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [*contestant.command(), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        self._unread = b""

    @property
    def pid(self) -> int:
        """Of the process, and of its session."""
        return self._process.pid

    def processor_seconds(self) -> float:
        """Return what it and its children have used."""
        return processor_seconds(self.pid)

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(self.last_words("ended")) from None

    def hear(self, deadline: float) -> dict[str, Any]:
        """Wait for an answer.

        Raises:
            BenchError: None came in time, or it is an error.
        """
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise BenchError(self.last_words("did not answer in time"))
            if not (read := os.read(descriptor, 1 << 16)):
                raise BenchError(self.last_words("ended"))
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self._title}: {answer['error']}")
        return answer

    def check(self) -> None:
        """Raise if it has ended by itself."""
        if self._process.poll() is not None:
            raise BenchError(self.last_words("ended"))

    def last_words(self, what: str) -> str:
        """Return what happened to it, with the last line that it wrote."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"{self._title} {what}" + (f": {lines[-1][:300]}" if lines else "")

    def end(self) -> None:
        """Kill it and what it started. The server is emptied afterwards, so nothing has to be put in order."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Arena:
    """A real Valkey, a client to look at it, and a directory for tallies."""

    def __enter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.server: EmbeddedServer = self._stack.enter_context(EmbeddedServer())
        self.client: redis.Redis = self._stack.enter_context(
            redis.Redis(port=self.server.port, decode_responses=True)
        )
        self._tallies = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Of the server; a database of its own, as every library understands it."""
        return f"redis://127.0.0.1:{self.server.port}/0"

    def empty(self) -> None:
        """Forget all keys, and wait until their memory is free again."""
        # Valkey would free the memory in the background, and be charged for it while it is measured.
        self._command("FLUSHALL", "SYNC")

    def revive(self) -> None:
        """Start the server again if it has gone, on the same port."""
        if not self.server.is_running:
            self.server.start()

    def new_tally(self) -> Path:
        """Return an empty directory."""
        self._tallies += 1
        path = self._scratch / str(self._tallies)
        path.mkdir()
        return path

    def producer(self, contestant: Contestant) -> Program:
        """Start a contestant's producer; it says hello when it is connected."""
        return Program(contestant, "producer", self.url)

    def worker(self, contestant: Contestant, tally: Path, **options: int) -> Program:
        """Start a contestant's worker: `concurrency`, `threads`, and whether it is `prioritized`."""
        return Program(contestant, "worker", self.url, json.dumps({"tally": str(tally), **options}))

    def read(self, workers: Sequence[Program] = ()) -> Reading:
        """Look at everybody's use of the processors."""
        at = time.monotonic()
        stats: Any = self.client.info("commandstats")
        cpu: Any = self.client.info("cpu")
        return Reading(
            at,
            cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            sum(worker.processor_seconds() for worker in workers),
            sum(stat["calls"] for stat in stats.values()),
        )

    def used_memory(self) -> int:
        """Return the bytes that the server's data takes, with the tables that hold it, without its clients' buffers."""
        # These it counts and lets shrink in its own time; until then they pass for data, and 10,000 jobs show it.
        time.sleep(_STOCKTAKING)
        memory: Any = self.client.info("memory")
        return int(memory["used_memory"]) - int(memory["mem_clients_normal"])

    def held(self, keys: Sequence[str]) -> int:
        """Return how many members these keys have together; of a stream, what its groups have not ended."""
        total = 0
        for pattern in keys:
            if "*" in pattern:
                matching: Any = self.client
                total += sum(1 for _ in matching.scan_iter(pattern, count=1000))
                continue
            kind: Any = self.client.type(pattern)
            if kind == "stream":
                total += self._unended(pattern)
            elif kind != "none":
                count = {"list": "LLEN", "zset": "ZCARD", "set": "SCARD", "hash": "HLEN"}[kind]
                answer: Any = self._command(count, pattern)
                total += int(answer)
        return total

    def _command(self, *words: str) -> Any:
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def _unended(self, stream: str) -> int:
        groups: Any = self.client.xinfo_groups(stream)
        if not groups:
            return int(self.client.xlen(stream))  # pyright: ignore[reportArgumentType]
        return max(int(group["pending"]) + int(group["lag"] or 0) for group in groups)


def await_count(reader: Reader, count: int, workers: Sequence[Program], deadline: float) -> int:
    """Wait until so many jobs have run; return how many have.

    Raises:
        BenchError: They have not in time, or a worker ended.
    """
    while (seen := reader.count()) < count:
        if time.monotonic() > deadline:
            raise BenchError(f"{seen} of {count} jobs had run when the time was up")
        for worker in workers:
            worker.check()
        time.sleep(0.001)
    return seen
