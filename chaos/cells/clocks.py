"""Harm to clocks: those of workers, and the server's. The ledger's clock is the monotonic one, which nobody turns.

A library that is loaded before all others answers for the clock; it starts no process of its own, so whoever is
told to end, ends.
"""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime
from pathlib import Path

from chaos.stage import Plan, SkipCellError, Stage
from toril._cron import Cron
from toril.embedded import EmbeddedServer, find_binary

from ._registry import cell


def turned(**settings: str) -> dict[str, str]:
    """What stands in the environment of a process whose clock is wrong."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        raise SkipCellError("libfaketime is not installed: apt-get install faketime")
    return {"LD_PRELOAD": str(found[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **settings}


@cell(
    "28", "workers whose clocks are an hour ahead, an hour behind, and right", Plan(workers=0), begins=False
)
async def wrong_clocks(stage: Stage) -> None:
    """No delayed job may start early or an hour late, and no lock may be taken for old."""
    stage.no_stalls = True
    for offset in ("+1h", "-1h"):
        stage.start_worker(more=turned(FAKETIME=offset))
    stage.start_worker()
    stage.start_producer()
    await stage.ready(40, seconds=60)
    await stage.pause(10 * stage.scale)


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
