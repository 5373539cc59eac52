"""What a crash of the server costs: jobs whose `add` had returned, and which are gone after a restart.

Each round starts a real server on an empty directory. Producers add jobs as fast as they can, and note the id
of every job whose `add` returned in a ledger, a file that the server has nothing to do with. At a random moment
the server is ended, then it is started on the same files, and the ledger is compared with what it holds.

`python -m chaos.persistence` prints a table; with `--write` it also replaces the one in
`docs/explanation/redis-and-persistence.md`.

A killed process does not lose what it has handed to the operating system; a machine that loses its power does.
That case is simulated: after the kill, the server's log is cut where the kernel says that its pages were not on the
disk yet (`cachestat`, Linux 6.5+). It is the worst that a power loss can do to a disk that keeps its word.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final, Literal

import redis.asyncio

import toril
from toril import ConnectionLostError, Queue
from toril.embedded import EmbeddedServer, Persistence

__all__ = ["SETTINGS", "Outcome", "Setting", "play"]

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "explanation" / "redis-and-persistence.md"
BEGIN: Final = "<!-- begin: python -m chaos.persistence --write -->"
END: Final = "<!-- end -->"

PRODUCERS: Final = 50
SINCE_SNAPSHOT: Final = 1.0
"""Seconds between the last snapshot and the kill."""
ROUND: Final = 60.0
"""Seconds after which a round is broken off; it takes two to five."""
_CACHESTAT: Final = 451
"""The number of the system call, on x86-64 and arm64."""

Crash = Literal["kill", "stop", "power"]


@dataclass(frozen=True)
class Setting:
    """A way to keep data, and a way to lose it.

    Attributes:
        name: For the command line.
        keeps: For the table.
        ends: Likewise.
    """

    name: str
    keeps: str
    ends: str
    persistence: Persistence
    crash: Crash
    config: dict[str, str] = field(default_factory=dict[str, str])


SETTINGS: Final[dict[str, Setting]] = {
    setting.name: setting
    for setting in (
        Setting("none", "nothing", "`kill -9`", "none", "kill"),
        Setting("rdb", f"RDB, last snapshot {SINCE_SNAPSHOT:.0f} s ago", "`kill -9`", "rdb", "kill"),
        Setting("rdb-stop", "RDB", "SIGTERM", "rdb", "stop"),
        Setting("everysec", "AOF, `appendfsync everysec`", "`kill -9`", "aof", "kill"),
        Setting(
            "everysec-power",
            "AOF, `appendfsync everysec`",
            "power loss, simulated",
            "aof",
            "power",
            {"auto-aof-rewrite-percentage": "0"},
        ),
        Setting("always", "AOF, `appendfsync always`", "`kill -9`", "aof", "kill", {"appendfsync": "always"}),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What one round, or several, came to.

    Attributes:
        acknowledged: Jobs whose `add` returned.
        lost: Those of them that are gone.
        unanswered: Jobs that are there although their `add` did not return: its answer was lost.
        window: Seconds from the first lost job to the end of the server; of several rounds, the longest.
        seconds: How long jobs were added.
    """

    acknowledged: int = 0
    lost: int = 0
    unanswered: int = 0
    window: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.acknowledged + other.acknowledged,
            self.lost + other.lost,
            self.unanswered + other.unanswered,
            max(self.window, other.window),
            self.seconds + other.seconds,
        )


# --- one round ------------------------------------------------------------------------------------------------


async def play(setting: Setting, chance: random.Random) -> Outcome:
    """Play one round: add, crash, restart, count."""
    with tempfile.TemporaryDirectory(prefix="toril-chaos-") as scratch:
        ledger, data = Path(scratch, "ledger"), Path(scratch, "data")
        server = EmbeddedServer(data, setting.persistence, config=setting.config)
        await asyncio.to_thread(server.start)
        try:
            began = time.monotonic()
            ended = await _add_until_crash(server, setting, ledger, chance)
            await asyncio.to_thread(server.start)
            present = await _ids_in(server.url)
        finally:
            await asyncio.to_thread(server.stop)
        return _compare(ledger, present, began, ended)


async def _add_until_crash(
    server: EmbeddedServer, setting: Setting, ledger: Path, chance: random.Random
) -> float:
    """Add jobs until the server has ended; return when that was."""
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(Queue("persistence", connection=server.url))
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(server.url))
        # Line by line: what is acknowledged stands in the file before anything else happens.
        lines = stack.enter_context(ledger.open("w", buffering=1))

        async def produce() -> None:
            with suppress(ConnectionLostError):
                while True:
                    job = await queue.add("work", {"made": time.time()})
                    lines.write(f"{job.id} {time.monotonic()}\n")

        producers = [asyncio.create_task(produce()) for _ in range(PRODUCERS)]
        await asyncio.sleep(chance.uniform(1.0, 2.0))
        if setting.persistence == "rdb" and setting.crash == "kill":
            await _snapshot(client)
        data = server.dir
        await asyncio.to_thread(server.stop if setting.crash == "stop" else server.kill)
        ended = time.monotonic()
        if setting.crash == "power":
            _lose_power(data)
        await asyncio.gather(*producers)
        return ended


async def _snapshot(client: redis.asyncio.Redis) -> None:
    """Let the server take a snapshot, and return `SINCE_SNAPSHOT` seconds after the moment that it shows."""
    asked = time.monotonic()
    await client.bgsave()
    while (await client.info("persistence"))["rdb_bgsave_in_progress"]:  # noqa: ASYNC110 - it is in another process
        await asyncio.sleep(0.01)
    await asyncio.sleep(max(0.0, asked + SINCE_SNAPSHOT - time.monotonic()))


class UnsupportedError(Exception):
    """This system does not tell which pages of a file are on the disk."""


class _PageRange(ctypes.Structure):
    _fields_: ClassVar = [("offset", ctypes.c_uint64), ("length", ctypes.c_uint64)]


class _PageCounts(ctypes.Structure):
    _fields_: ClassVar = [
        (name, ctypes.c_uint64) for name in ("cached", "dirty", "in_writeback", "evicted", "recently_evicted")
    ]
    dirty: int
    in_writeback: int


def _lose_power(directory: Path) -> None:
    """Cut the server's log at its first page that is not on the disk."""
    (log,) = directory.glob("appendonlydir/*.incr.aof")
    with log.open("r+b") as file:
        page = os.sysconf("SC_PAGESIZE")
        for offset in range(0, log.stat().st_size, page):
            if _unsaved_pages(file.fileno(), offset, page):
                file.truncate(offset)
                return


def _unsaved_pages(descriptor: int, offset: int, length: int) -> int:
    """Return how many pages of a part of a file are not on the disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    counts = _PageCounts()
    part = _PageRange(offset, length)
    if libc.syscall(_CACHESTAT, descriptor, ctypes.byref(part), ctypes.byref(counts), 0) != 0:
        raise UnsupportedError(f"cachestat: {os.strerror(ctypes.get_errno())}; it needs Linux 6.5+")
    return counts.dirty + counts.in_writeback


async def _ids_in(url: str) -> set[str]:
    """Return the ids of the jobs that a worker would get: in the list, and with a record."""
    async with Queue("persistence", connection=url) as queue:
        ids = await queue.get_ids("waiting")
        present: set[str] = set()
        for start in range(0, len(ids), 1000):
            some = ids[start : start + 1000]
            pipeline = queue.connection.client.pipeline(transaction=False)
            for job_id in some:
                pipeline.exists(queue.keys.job(job_id))
            present.update(
                job_id for job_id, is_there in zip(some, await pipeline.execute(), strict=True) if is_there
            )
        return present


def _compare(ledger: Path, present: set[str], began: float, ended: float) -> Outcome:
    acknowledged: dict[str, float] = {}
    for line in ledger.read_text().splitlines():
        job_id, when = line.split()
        acknowledged[job_id] = float(when)
    lost = [when for job_id, when in acknowledged.items() if job_id not in present]
    return Outcome(
        acknowledged=len(acknowledged),
        lost=len(lost),
        unanswered=len(present - acknowledged.keys()),
        window=max(0.0, ended - min(lost)) if lost else 0.0,
        seconds=ended - began,
    )


# --- the table ------------------------------------------------------------------------------------------------


def table(outcomes: dict[str, Outcome]) -> str:
    """Return the outcomes as a table in Markdown."""
    rows = [
        "| the server keeps | it ends by | jobs acknowledged | lost | that is, at most the last | adds per second |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for name, outcome in outcomes.items():
        setting = SETTINGS[name]
        share = "all" if outcome.lost == outcome.acknowledged else f"{outcome.lost:,}"
        window = f"{outcome.window:.1f} s" if outcome.lost else "–"
        if outcome.lost == outcome.acknowledged:
            window = "everything"
        speed = outcome.acknowledged / outcome.seconds if outcome.seconds else 0.0
        rows.append(
            f"| {setting.keeps} | {setting.ends} | {outcome.acknowledged:,} | **{share}** | {window} | {speed:,.0f} |"
        )
    return "\n".join(rows)


def caption(rounds: int, server: str) -> str:
    """Say how, where and when the table was made."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return (
        f"Made by `python -m chaos.persistence --rounds {rounds} --write` on {datetime.now(UTC):%Y-%m-%d}: "
        f"toril {toril.__version__}{f' ({commit})' if commit else ''}, {server}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, data on {_file_system()}. "
        f"Sums over {rounds} rounds of 1 to 3 seconds each, with {PRODUCERS} adds on their way at any time; "
        "the window is the longest of all rounds."
    )


def _file_system() -> str:
    """The kind of file system that the servers' files are on."""
    place = os.path.realpath(tempfile.gettempdir())
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    holding = [mount for mount in mounts if os.path.commonpath((place, mount[1])) == mount[1]]
    return max(holding, key=lambda mount: len(mount[1]))[2]


def rewrite(page: str, block: str) -> str:
    """Return the page with a new block between the marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"{PAGE} needs exactly one block between {BEGIN} and {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", page)


async def _server_name() -> str:
    server = EmbeddedServer()
    await asyncio.to_thread(server.start)
    try:
        async with redis.asyncio.Redis.from_url(server.url, decode_responses=True) as client:
            info = await client.info("server")
    finally:
        await asyncio.to_thread(server.stop)
    if "valkey_version" in info:
        return f"Valkey {info['valkey_version']}"
    return f"Redis {info['redis_version']}"


async def measure(
    names: Sequence[str], rounds: int, chance: random.Random, minutes: float
) -> tuple[dict[str, Outcome], int]:
    """Play all settings so many times in turn, telling how they end; return the sums, and of how many rounds.

    After so many minutes nothing begins any more, and a round that not all settings have had does not count.

    Raises:
        RuntimeError: A setting added nothing, or hung.
    """
    sums: dict[str, Outcome] = {}
    end = time.monotonic() + 60 * minutes
    for number in range(1, rounds + 1):
        outcomes: dict[str, Outcome] = {}
        for name in names:
            if time.monotonic() >= end:
                return sums, number - 1
            outcomes[name] = outcome = await _in_time(name, chance)
            print(
                f"{name:15} round {number}: {outcome.acknowledged:7,} acknowledged, {outcome.lost:7,} lost, "
                f"the last {outcome.window:.2f} s; {outcome.unanswered} kept without an answer",
                file=sys.stderr,
                flush=True,
            )
        sums = {name: sums.get(name, Outcome()) + outcome for name, outcome in outcomes.items()}
    return sums, rounds


async def _in_time(name: str, chance: random.Random) -> Outcome:
    try:
        async with asyncio.timeout(ROUND):
            outcome = await play(SETTINGS[name], chance)
    except TimeoutError:
        raise RuntimeError(f"{name}: a round was not over after {ROUND:.0f} s") from None
    if not outcome.acknowledged:
        raise RuntimeError(f"{name}: no job was added, so nothing was measured")
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m chaos.persistence",
        description="Count the jobs that a crash of the server costs, under each kind of persistence.",
    )
    parser.add_argument(
        "settings", nargs="*", metavar="SETTING", help=f"of {', '.join(SETTINGS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is played; default: 5")
    parser.add_argument(
        "--minutes", type=float, default=8, help="after which no round begins any more; default: 8"
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="makes the moments of the crashes the same again"
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    unknown = [name for name in options.settings if name not in SETTINGS]
    if unknown or options.rounds < 1:
        parser.error(f"no setting {unknown[0]!r}" if unknown else "--rounds must be at least 1")
    if options.write and options.settings:
        parser.error("--write needs all settings")

    names = options.settings or [*SETTINGS]
    outcomes, rounds = asyncio.run(
        measure(names, options.rounds, random.Random(options.seed), options.minutes)
    )
    print(table(outcomes))
    if rounds < options.rounds:
        print(
            f"{options.minutes:g} minutes are over: {rounds} of {options.rounds} rounds count",
            file=sys.stderr,
        )
    if not rounds:
        return 1
    if options.write:
        block = f"{table(outcomes)}\n\n{caption(rounds, asyncio.run(_server_name()))}"
        PAGE.write_text(rewrite(PAGE.read_text(), block))
    return 0


if __name__ == "__main__":
    sys.exit(main())
