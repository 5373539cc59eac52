"""What a cell of the matrix plays on: a server, a proxy before it, workers and a producer as processes, a ledger.

The fault itself is the cell's; here is what all of them share: how processes are started and ended, how the load
begins and ends, and when the dust has settled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import redis.asyncio

from toril.embedded import EmbeddedServer, Persistence
from toril.scripts.loader import load

from .ledger import Ledger, read
from .proxy import Proxy

__all__ = [
    "PREFIX",
    "QUEUE",
    "WORKER",
    "Client",
    "Plan",
    "Running",
    "SkipCellError",
    "Stage",
    "need_node",
    "refusals",
    "staged",
]

ROOT: Final = Path(__file__).resolve().parents[1]
QUEUE: Final = "{chaos}"
"""In braces, so that its keys share a slot of a cluster."""
PREFIX: Final = f"bull:{QUEUE}:"
PORT: Final = ROOT / "chaos" / ".venv" / "bin" / "python"
"""Of the environment of BullMQ's Python port, which needs another redis-py."""
Client = Literal["toril", "bullmq", "bullmq-python"]
PACKAGES: Final = {"bullmq": "bullmq", "bullmq5": "bullmq5"}
"""Of those that Node.js runs: the package. `bullmq5` is the last version before 6, and no client of the table."""
DIED_TALKING: Final = re.compile(
    r"Traceback|never retrieved|was destroyed but it is pending|ResourceWarning|Unhandled|never awaited"
)


class SkipCellError(Exception):
    """The cell cannot run on this machine, and says why."""


class NoLoadError(Exception):
    """The load did not begin, so nothing was harmed and nothing is known."""


@dataclass(frozen=True)
class Plan:
    """What a cell asks for. Durations in seconds.

    Attributes:
        workers: Processes.
        rate: Jobs added each second by the one producer.
        persistence: Of the server.
        config: Further settings of the server.
        worker: Options of each worker that differ from `WORKER`.
        producer: Further options of the producer, see `chaos.producer`.
        proxied: Whether workers and producer reach the server through the proxy.
        settle: How long after the last fault all jobs must have ended.
    """

    workers: int = 3
    rate: float = 200
    persistence: Persistence = "none"
    config: dict[str, str] = field(default_factory=dict[str, str])
    worker: dict[str, Any] = field(default_factory=dict[str, Any])
    producer: dict[str, Any] = field(default_factory=dict[str, Any])
    proxied: bool = True
    settle: float = 30.0


WORKER: Final[dict[str, Any]] = {
    "concurrency": 20,
    "lock_duration": 2,
    "stalled_interval": 1,
    "max_stalled_count": 3,
    "drain_delay": 1,
    "grace": 3,
}
"""The time scale of the tests: with a lock of 30 s each cell would take minutes."""


class Running:
    """A process of the cell, and those that it starts. What they print is kept in a file."""

    def __init__(self, command: Sequence[str], output: Path, more: Mapping[str, str] | None = None) -> None:
        self.output = output
        self.ended_at = 0.0
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(more or {})},
                # A group of its own, so that whatever it starts ends with it.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it lives."""
        if self.is_alive:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to it and to all that it has started, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    async def ended(self, seconds: float) -> int | None:
        """Wait for the end; its exit code, or None where it did not end in time."""

        def wait() -> int | None:
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                return None
            finally:
                # Here, since the event loop may be busy with the verdict on another row.
                self.ended_at = time.monotonic()

        return await asyncio.to_thread(wait)

    def held(self) -> tuple[int, int]:
        """How many files it has open, and how many threads it has; zeros where the system does not say."""
        with contextlib.suppress(OSError):
            place = Path(f"/proc/{self.pid}")
            return len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))
        return 0, 0

    def rss_mb(self) -> float:
        """Memory that it holds; 0 where the system does not say."""
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
        return 0.0


class Stage:
    """One cell's server, proxy and processes. See `staged`.

    Attributes:
        chance: Made from the seed; all that is left to chance comes from it.
        scale: Of the cell's sizes, 1 for the whole matrix.
        facts: What the cell measured itself; goes into its line.
        faults: Violations that the cell found itself.
    """

    def __init__(
        self,
        client: Client,
        plan: Plan,
        directory: Path,
        server: EmbeddedServer,
        chance: random.Random,
        scale: float,
    ) -> None:
        self.client: Client = client
        self.plan = plan
        self.directory = directory
        self.server = server
        self.port = server.port
        self.chance = chance
        self.scale = scale
        self.book = Ledger(directory, "driver")
        self.proxy = Proxy(server.port, chance, names=script_names() if client == "toril" else {})
        self.workers: list[Running] = []
        self.everyone: list[Running] = []
        self.producer: Running | None = None
        self.facts: dict[str, Any] = {}
        self.faults: list[str] = []
        self.losses: list[tuple[float, float]] = []
        """From when to when the server may have forgotten what it did: that is reported, and not the client's fault."""
        self.is_given_up = False
        """The load has not drained in time, and nothing moves any more."""
        self.no_stalls = False
        """No job may have been taken back."""
        self.slack = 1.0
        """By which times may be longer on a machine that has other things to do."""
        self.within = 5.0
        """Seconds for a recovery."""
        self.healed_at = 0.0
        """When the last fault was over, by the ledger's clock."""
        self.exits = contextlib.AsyncExitStack()
        """What the cell has opened."""
        self.may_fail: set[str] = set()
        """Jobs that are meant to fail."""
        self.keeps: int | None = None
        """How many completed jobs are kept; None for all."""
        self.at_once: int | None = None
        """How many jobs of all workers together may run at a time; None for any number."""
        self.limited_since = 0.0
        """From when on that is so, by the ledger's clock."""
        self.order: list[str] | None = None
        """In which jobs must begin; None where that is not to be judged."""
        self.may_be_early = False
        """The server's clock itself was moved: what is due is due by that clock."""
        self.first_held: dict[int, tuple[int, int]] = {}
        """Files and threads of each worker when it had begun."""

    # --- processes ---

    @property
    def url(self) -> str:
        """Where workers and producer find the server."""
        return self.proxy.url if self.plan.proxied else self.direct_url()

    def direct_url(self, host: str = "127.0.0.1") -> str:
        """The server itself, at one of its addresses, with the password that the plan gave it."""
        password = self.plan.config.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}{host}:{self.port}"

    def start_worker(
        self,
        url: str | None = None,
        more: Mapping[str, str] | None = None,
        *,
        within: Sequence[str] = (),
        **options: Any,
    ) -> Running:
        """Start one more worker, perhaps with more in its environment, or `within` what another program sets up."""
        settings = {
            "url": url or self.url,
            "queue": QUEUE,
            "ledger": str(self.directory),
            **WORKER,
            **self.plan.worker,
            **options,
        }
        return self._start("worker", settings, more, within)

    def _start(
        self,
        role: str,
        settings: dict[str, Any],
        more: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
    ) -> Running:
        client = settings.pop("client", self.client)
        if client in PACKAGES:
            command = ["node", str(ROOT / "interop" / "chaos.js"), role]
            settings["package"] = PACKAGES[client]
        elif client == "bullmq-python":
            command = [str(PORT), "-m", "chaos.peers.bullmq_python", role]
        else:
            command = [sys.executable, "-W", "default::ResourceWarning", "-m", f"chaos.{role}"]
        output = self.directory / f"{role}-{len(self.everyone)}.out"
        running = Running([*within, *command, json.dumps(settings)], output, more)
        self.everyone.append(running)
        if role == "worker":
            self.workers.append(running)
        return running

    def start(self, role: str, **settings: Any) -> Running:
        """Start another program of `chaos`, with the queue and the ledger among its settings."""
        known = {"url": self.url, "queue": QUEUE, "ledger": str(self.directory)}
        return self._start(role, {**known, **settings})

    async def open_proxy(self, is_deaf: bool = False) -> Proxy:
        """One more way to the server, for one worker of its own, or for other servers."""
        names = script_names() if self.client == "toril" else {}
        return await self.exits.enter_async_context(
            Proxy(self.port, self.chance, names=names, is_deaf=is_deaf)
        )

    def start_producer(self, more: Mapping[str, str] | None = None, **options: Any) -> Running:
        """Begin the load."""
        settings = {
            "url": self.url,
            "queue": QUEUE,
            "ledger": str(self.directory),
            "rate": self.plan.rate,
            "seed": self.chance.randrange(2**31),
            **self.plan.producer,
            **options,
        }
        self.producer = self._start("producer", settings, more)
        return self.producer

    def kill_worker(self, victim: Running) -> None:
        """SIGKILL; its jobs are watched from now on."""
        victim.kill()
        self.book.write("fault", what="kill", pid=victim.pid)
        self.workers.remove(victim)

    # --- time ---

    def times(self, count: int) -> int:
        """How often, at this scale."""
        return max(1, round(count * self.scale))

    async def pause(self, low: float, high: float | None = None) -> None:
        """Let the load run for a while that chance chooses."""
        await asyncio.sleep(self.chance.uniform(low, high or low))

    def fault(self, what: str) -> None:
        """Note that a fault begins."""
        self.book.write("fault", what=what)

    def forgets(self, since: float, until: float | None = None) -> None:
        """Note that the server itself may have forgotten what it did since a time, until another or now."""
        self.losses.append((since, time.monotonic() if until is None else until))

    def healed(self, what: str) -> None:
        """Note that it is over: from now on every worker has to come back."""
        self.book.write("healed", what=what)
        self.healed_at = time.monotonic()

    async def ready(self, count: int = 1, seconds: float = 120) -> None:
        """Wait until so many workers are ready and some jobs have run."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = [line["e"] for line in read(self.directory)]
            if events.count("ready") >= len(self.workers) and events.count("end") >= count:
                for one in self.workers:
                    self.first_held.setdefault(one.pid, one.held())
                return
            await asyncio.sleep(0.1)
        raise NoLoadError(f"the load did not begin within {seconds:g} s\n{self.words()}")

    async def has_run(self, worker: Running, seconds: float = 60) -> None:
        """Wait until this worker has begun a job."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(line["e"] == "start" and line["pid"] == worker.pid for line in read(self.directory)):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError(f"a worker has run no job within {seconds:g} s\n{self.words()}")

    async def has_begun(self, job_id: str, seconds: float = 60) -> None:
        """Wait until this job has begun."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(line["e"] == "start" and line["id"] == job_id for line in read(self.directory)):
                return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"job {job_id!r} has not begun within {seconds:g} s")

    async def all_run(self) -> None:
        """Wait until each worker has begun a job since the last fault: who lives and takes nothing is no worker."""
        if self.producer is None or not self.producer.is_alive:
            return
        deadline = time.monotonic() + self.within + 2
        while True:
            lines = list(read(self.directory))
            since = max((line["t"] for line in lines if line["e"] in ("healed", "fault")), default=0.0)
            # In a crowd each worker has a name of its own.
            crowds = {line["pid"] // 1000 for line in lines if line["e"] == "ready"}
            seen = {line["pid"] for line in lines if line["e"] == "start" and line["t"] > since}
            idle = [one for one in self.workers if one.pid not in seen | crowds]
            dead = [one for one in self.workers if not one.is_alive]
            if not idle and not dead:
                return
            if time.monotonic() > deadline:
                self.faults.append(
                    f"I17 {len(idle)} workers took nothing any more, {len(dead)} ended by themselves"
                )
                return
            await asyncio.sleep(0.1)

    async def drain(self) -> float:
        """End the load, and wait until nothing is left to run; return how long that took.

        It is given up when nothing has moved for `settle` seconds, or after four times as long. Then the workers are
        frozen, so that nothing moves while it is judged.
        """
        began = time.monotonic()
        if self.is_given_up:
            return 0.0
        if self.producer is not None:
            self.producer.signal(signal.SIGTERM)
            if await self.producer.ended(2 * self.plan.settle) is None:
                self.faults.append("the producer did not end")
                self.producer.kill()
        left, moved = -1, time.monotonic()
        async with self.look() as client:
            while (now := time.monotonic()) - began < 4 * self.plan.settle and now - moved < self.plan.settle:
                before, left = left, await unfinished(client)
                if left == 0:
                    return now - began
                if left != before:
                    moved = now
                await asyncio.sleep(0.05)
        self.is_given_up = True
        for one in self.workers:
            one.signal(signal.SIGSTOP)
        self.faults.append(f"not drained within {time.monotonic() - began:.0f} s: {left} jobs")
        return time.monotonic() - began

    @contextlib.asynccontextmanager
    async def look(self) -> AsyncGenerator[redis.asyncio.Redis]:
        """A client of one's own, past the proxy."""
        async with redis.asyncio.Redis.from_url(self.direct_url(), decode_responses=True) as client:
            yield client

    async def keep_events(self) -> None:
        """Let the server keep all events, so that they can be replayed."""
        async with self.look() as client:
            await client.hset(PREFIX + "meta", "opts.maxLenEvents", "10000000")

    async def restart_server(self, stop: bool = False) -> None:
        """End the server by SIGKILL, or in good order, and start it on the same files and port."""
        self.fault("server ends")
        await asyncio.to_thread(self.server.stop if stop else self.server.kill)
        await asyncio.to_thread(self.server.start)
        self.healed("server is back")

    # --- looking back ---

    def words(self) -> str:
        """The last that each process has printed."""
        return "\n".join(
            f"{one.output.name}: {one.output.read_text(errors='replace')[-1500:]}"
            for one in self.everyone
            if one.output.exists() and one.output.stat().st_size
        )

    def unclean(self) -> list[str]:
        """Lines of the processes' logs that a healthy program does not write."""
        return [
            f"{one.output.name}: {line[:200]}"
            for one in self.everyone
            for line in one.output.read_text(errors="replace").splitlines()
            if DIED_TALKING.search(line)
        ]

    def said(self, words: str) -> int:
        """How often the workers have logged these words."""
        return sum(one.output.read_text(errors="replace").count(words) for one in self.everyone)

    def log_lines(self) -> int:
        """How much has been logged by all workers together."""
        return sum(one.output.read_bytes().count(b"\n") for one in self.everyone)


async def unfinished(client: redis.asyncio.Redis) -> int:
    """How many jobs have not ended yet."""
    pipeline = client.pipeline(transaction=False)
    for name in ("wait", "paused", "active"):
        pipeline.llen(PREFIX + name)
    for name in ("delayed", "prioritized", "waiting-children"):
        pipeline.zcard(PREFIX + name)
    return sum(await pipeline.execute())


def need_node(*clients: str) -> None:
    """Raise `SkipCellError` where these clients, which Node.js runs, are not there."""
    modules = ROOT / "interop" / "node_modules"
    if shutil.which("node") is None or not all((modules / PACKAGES[client]).is_dir() for client in clients):
        raise SkipCellError("BullMQ for Node.js is not installed: make test installs it")


async def refusals(client: redis.asyncio.Redis, kind: str) -> int:
    """How many commands the server has refused with this word."""
    told: dict[str, Any] = await client.info("errorstats")
    return int(told.get(f"errorstat_{kind}", {"count": 0})["count"])


def script_names() -> dict[str, str]:
    """The names of toril's scripts by their SHA."""
    here = ROOT / "src" / "toril" / "scripts"
    return {load(path.stem).sha: path.stem for path in here.glob("*.lua")}


@contextlib.asynccontextmanager
async def staged(
    client: Client, plan: Plan, seed: int, scale: float, begin: bool = True
) -> AsyncGenerator[Stage]:
    """Set the stage for one cell; whatever happens on it, all processes end with it."""
    if client == "bullmq":
        need_node(client)
    if client == "bullmq-python" and not PORT.exists():
        raise SkipCellError("BullMQ's Python port is not installed: make chaos installs it")
    with tempfile.TemporaryDirectory(prefix="toril-chaos-") as scratch:
        directory = Path(scratch)
        data = directory / "data"
        data.mkdir(mode=0o700)
        server = EmbeddedServer(data, plan.persistence, config={"enable-debug-command": "yes", **plan.config})
        await asyncio.to_thread(server.start)
        stage = Stage(client, plan, directory, server, random.Random(seed), scale)
        try:
            await stage.keep_events()
            async with stage.proxy, stage.exits:
                if begin:
                    for _ in range(plan.workers):
                        stage.start_worker()
                    stage.start_producer()
                    await stage.ready(20)
                    # BullMQ's queue has set what it takes for right.
                    await stage.keep_events()
                yield stage
        finally:
            # SIGKILL ends frozen processes as well.
            for running in stage.everyone:
                running.kill()
            stage.book.close()
            await asyncio.to_thread(server.stop)
