"""Harm to clocks: those of workers, and the server's. The ledger's clock is the monotonic one, which nobody turns.

A library that is loaded before all others answers for the clock; it starts no process of its own, so whoever is
told to end, ends.
"""

from __future__ import annotations

import asyncio
import signal
import stat
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

from chaos.ledger import read
from chaos.stage import QUEUE, Plan, Running, SkipCellError, Stage
from toril import Queue
from toril._cron import Cron
from toril.embedded import EmbeddedServer, find_binary

from ._registry import cell

TICK: Final = 0.5
"""Seconds between the runs of a job scheduler."""


def turned(**settings: str) -> dict[str, str]:
    """What stands in the environment of a process whose clock is wrong."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        raise SkipCellError("libfaketime is not installed: apt-get install faketime")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **settings}


@cell(
    "28",
    "clocks of two workers and the producer jump by an hour, one goes wrong from the start; job schedulers run",
    Plan(workers=0),
    begins=False,
)
async def wrong_clocks(stage: Stage) -> None:
    """No delayed job may start early or an hour late, no lock may be taken for old, and no scheduler may run twice."""
    stage.no_stalls = True
    ahead, behind = (_JumpingClock(stage, name) for name in ("ahead", "behind"))
    jumping = [stage.start_worker(more=clock.settings) for clock in (ahead, behind)]
    stage.start_worker(more=turned(FAKETIME="+1h x1.02"))
    stage.start_worker()
    stage.start_producer(more=ahead.settings)
    async with Queue(QUEUE, connection=stage.direct_url()) as queue:
        await queue.upsert_job_scheduler("tick", every=TICK, data={"ms": 1})
        await queue.upsert_job_scheduler("tock", pattern="* * * * * *", data={"ms": 1})
        await stage.ready(40, seconds=60)
        began = time.monotonic()
        await stage.pause(3.0)
        stage.fault("clocks jump")
        ahead.jump("+3600")
        behind.jump("-3600")
        stage.healed("clocks have jumped")
        await stage.pause(max(4.0, 10 * stage.scale))
        if stage.client == "toril":
            await _have_jumped(stage, jumping)
        for name in ("tick", "tock"):
            await queue.remove_job_scheduler(name)
    seconds = time.monotonic() - began
    stage.faults += _slots(stage, "tick", TICK, seconds) + _slots(stage, "tock", 1.0, seconds)


class _JumpingClock:
    """A clock that is right until it jumps, for all processes that begin with its settings."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._file = stage.directory / f"clock-{name}"
        self._file.write_text("+0")
        self.settings = turned(FAKETIME_TIMESTAMP_FILE=str(self._file), FAKETIME_NO_CACHE="1")

    def jump(self, to: str) -> None:
        """In one step: who reads half a file does not jump."""
        later = self._file.with_suffix(".later")
        later.write_text(to)
        later.rename(self._file)


async def _have_jumped(stage: Stage, workers: list[Running]) -> None:
    """Ask the workers what time it is."""
    for one in workers:
        one.signal(signal.SIGUSR1)
    deadline, told = time.monotonic() + 5, list[float]()
    while len(told) < len(workers) and time.monotonic() < deadline:
        told = [line["clock"] for line in read(stage.directory) if line["e"] == "held"]
        await asyncio.sleep(0.05)
    if sorted(round((clock - time.time()) / 3600) for clock in told) != [-1, 1]:
        raise SkipCellError("the workers do not mind libfaketime")


def _slots(stage: Stage, name: str, every: float, seconds: float) -> list[str]:
    """I12: the runs of a scheduler are so far apart, none is early, and they do not end."""
    ahead = time.time() - time.monotonic()
    starts = {line["id"]: line["t"] for line in read(stage.directory) if line["e"] == "start"}
    due = {
        job_id: int(job_id.rpartition(":")[2]) / 1000
        for job_id in starts
        if job_id.startswith(f"repeat:{name}:")
    }
    slots = sorted(due.values())
    stage.facts[f"runs_of_{name}"] = len(slots)
    found: list[str] = []
    if close := [later for earlier, later in pairwise(slots) if later - earlier < every - 0.001]:
        found.append(f"I12 {len(close)} runs of {name} came twice within {every:g} s")
    if early := [job_id for job_id, at in due.items() if starts[job_id] + ahead < at - 0.02]:
        found.append(f"I15 {len(early)} runs of {name} were early")
    if len(slots) < 0.7 * seconds / every:
        found.append(f"I12 {name} ran {len(slots)} times in {seconds:.0f} s, every {every:g} s")
    return found


@cell("29", "the server's clock jumps ahead by an hour", Plan(workers=0, rate=100), begins=False)
async def server_jumps(stage: Stage) -> None:
    """All locks run out at that moment: what ran is taken back, once. What is delayed is due, by the server's clock."""
    stage.may_be_early = True
    clock = stage.directory / "clock"
    clock.write_text("+0")
    program = stage.directory / "turned-server"
    settings = turned(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1")
    given = " ".join(f"{name}='{value}'" for name, value in settings.items())
    program.write_text(f"#!/bin/sh\nexec env {given} '{find_binary()}' \"$@\"\n")
    program.chmod(stat.S_IRWXU)
    server = EmbeddedServer(binary=program)
    await asyncio.to_thread(server.start)
    stage.exits.callback(server.stop)
    stage.port = server.port
    await stage.keep_events()
    for _ in range(3):
        stage.start_worker(url=server.url)
    stage.start_producer(url=server.url)
    await stage.ready(40, seconds=60)
    await stage.pause(2.0)
    stage.fault("clock jumps")
    async with stage.look() as client:
        before = int((await client.time())[0])
        # In one step: a server that reads half a file does not jump.
        (stage.directory / "later").write_text("+3600")
        (stage.directory / "later").rename(clock)
        for _ in range(50):
            await asyncio.sleep(0.05)
            if int((await client.time())[0]) - before > 3000:
                break
        else:
            raise SkipCellError("the server does not mind libfaketime")
    stage.healed("clock has jumped")
    await stage.pause(8.0)


@cell(
    "30",
    "20,000 cron patterns around changes of the clock and leap days, beside the parser that Node.js uses",
    Plan(workers=0),
    clients=("toril",),
    begins=False,
)
async def changing_clocks(stage: Stage) -> None:
    """Nothing that happens to a process: both are asked when a scheduler is due next, and must say the same.

    What differs on purpose is left out, see `docs/decisions/cron-parsing.md`.
    """
    # Only here, since they are the tests' own.
    from tests.interop import test_cron as cron
    from tests.interop.node import Node, why_no_node

    if reason := why_no_node():
        raise SkipCellError(reason)
    chance = stage.chance
    around = cron.random_cases(cron.ORDINARY, stage.times(15_000), chance.randrange(2**31))
    # Leap days of ordinary leap years, of 2000's like, and the year 2100, which has none.
    leaps = [
        datetime(year, chance.choice((1, 2, 3)), chance.randint(1, 28), tzinfo=UTC)
        for year in chance.choices((2027, 2028, 2096, 2099, 2100, 2103, 2104), k=stage.times(5000))
    ]
    patterns = ("0 0 29 2 *", "30 6 L 2 *", "0 12 28-31 * *", "0 0 29 * 1", "15 3 29,30 2,3 *", "0 0 L * *")
    leap = [
        (chance.choice(patterns), chance.choice(cron.ORDINARY), round(at.timestamp() * 1000)) for at in leaps
    ]
    node = await asyncio.to_thread(Node, f"redis://127.0.0.1:{stage.port}")
    try:
        different: list[str] = []
        asked = 0
        for cases in (around, leap):
            same = [
                case
                for case in cases
                if not cron.is_repeated(case[2], case[1]) or Cron.parse(case[0]).is_every_hour
            ]
            for start in range(0, len(same), 1000):
                some = same[start : start + 1000]
                answers = await node.ask("cron", deadline=60, cases=some)
                for case, theirs in zip(some, answers, strict=True):
                    mine = cron.ours(*case)
                    if theirs != mine and (isinstance(theirs, int) or isinstance(mine, int)):
                        different.append(cron.told(case, theirs, mine))
            asked += len(same)
    finally:
        await asyncio.to_thread(node.stop)
    stage.facts |= {"asked": asked, "different": len(different)}
    if different:
        stage.faults.append(f"{len(different)} next runs differ, such as {different[0]}")
