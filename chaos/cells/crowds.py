"""Much of everything on one machine: thousands of queues, hundreds of workers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final

from chaos.ledger import read
from chaos.stage import WORKER, Plan, Running, Stage

from ._registry import cell

TICKS: Final = os.sysconf("SC_CLK_TCK")
IDLE_CPU: Final = 0.05
"""Of one processor, that queues which nobody uses may cost."""
FEW_CONNECTIONS: Final = 10
"""That one shared `Connection` may hold, however many use it."""
WORKERS: Final = 200
PROCESSES: Final = 4
DOWN: Final = 3.0
"""Seconds for which the server is gone."""
SPREAD: Final = 1.0
"""Seconds over which all must come back at least, so that they do not meet at the door."""


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@cell(
    "40",
    "2,000 queues in one process, idle, on one shared `Connection`",
    Plan(workers=0, proxied=False),
    clients=("toril",),
    begins=False,
    alone=True,
)
async def idle_queues(stage: Stage) -> None:
    """Only what the process holds and uses is looked at. Workers are not among it: row 41 has them."""
    count = stage.times(2000)
    crowd = stage.start("crowd", queues=count)
    await _are_ready(stage, [crowd], 1)
    async with stage.look() as client:
        await asyncio.sleep(1)
        before, began = cpu_s(crowd.pid), time.monotonic()
        await asyncio.sleep(10)
        share = (cpu_s(crowd.pid) - before) / (time.monotonic() - began)
        # The driver's own is one of them.
        connections = len(await client.client_list()) - 1
    stage.facts |= {
        "queues": count,
        "connections": connections,
        "cpu_percent": round(100 * share, 1),
        "rss_mb": round(crowd.rss_mb(), 1),
    }
    if connections > FEW_CONNECTIONS:
        stage.faults.append(f"{connections} connections for {count:,} queues, not {FEW_CONNECTIONS}")
    if share > IDLE_CPU:
        stage.faults.append(f"idle queues use {share:.1%} of a processor, not {IDLE_CPU:.0%}")


@cell(
    "41",
    "200 workers, 50 in each of 4 processes; the server is killed, and back after 3 s",
    Plan(
        workers=0,
        persistence="aof",
        # One job each: what counts is who comes back, and when.
        worker={"concurrency": 1, "lock_duration": 15, "stalled_interval": 5},
        proxied=False,
        settle=60,
    ),
    begins=False,
    within=10,
    alone=True,
)
async def herd(stage: Stage) -> None:
    """They must all come back, and not in one moment."""
    each = max(5, stage.times(WORKERS) // PROCESSES)
    crowds = [_start_workers(stage, each) for _ in range(PROCESSES)]
    await _are_ready(stage, crowds, each * PROCESSES)
    stage.start_producer()
    everyone = await _have_all_run(stage, each * PROCESSES, since=0.0, seconds=60)
    await stage.pause(1.0)
    stage.fault("server ends")
    await asyncio.to_thread(stage.server.kill)
    await asyncio.sleep(DOWN)
    await asyncio.to_thread(stage.server.start)
    stage.healed("server is back")
    back = time.monotonic()
    arrived, peak = await _watch(stage, 6.0)
    late = await _have_all_run(stage, len(everyone), since=back, seconds=30)
    arrived.sort()
    spread = arrived[int(0.95 * (len(arrived) - 1))] - arrived[0] if arrived else 0.0
    densest = max((sum(one <= other < one + 0.1 for other in arrived) for one in arrived), default=0)
    slowest = max((at - back for at in late.values()), default=0.0)
    stage.facts |= {
        "workers": len(everyone),
        "back": len(late),
        "all_back_s": round(slowest, 1),
        "connections": len(arrived),
        "spread_s": round(spread, 2),
        "most_in_100_ms": densest,
        "server_cpu_peak_percent": round(100 * peak),
    }
    if len(late) < len(everyone):
        stage.faults.append(f"I17 {len(everyone) - len(late)} of {len(everyone)} workers never came back")
    elif slowest > stage.within:
        stage.faults.append(f"I17 the last worker ran a job after {slowest:.1f} s, not {stage.within:g} s")
    if spread < SPREAD:
        stage.faults.append(
            f"95 % of all connections came within {spread:.2f} s, not spread over {SPREAD:g} s"
        )


def _start_workers(stage: Stage, each: int) -> Running:
    if stage.client == "toril":
        options: dict[str, Any] = {**WORKER, **stage.plan.worker}
        return stage.start("crowd", objects=each, **options)
    return stage.start_worker(objects=each)


async def _are_ready(stage: Stage, crowds: list[Running], count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if sum(line["e"] == "ready" for line in read(stage.directory)) >= count:
            return
        if not all(one.is_alive for one in crowds):
            break
        await asyncio.sleep(0.1)
    raise RuntimeError(f"a process of many was not ready within 60 s\n{stage.words()}")


async def _have_all_run(stage: Stage, count: int, since: float, seconds: float) -> dict[int, float]:
    """Wait until so many workers have begun a job since a time; when each of them did."""
    deadline = time.monotonic() + seconds
    first: dict[int, float] = {}
    while time.monotonic() < deadline:
        first = {}
        for line in read(stage.directory):
            if line["e"] == "start" and line["t"] > since:
                first[line["pid"]] = min(line["t"], first.get(line["pid"], line["t"]))
        if len(first) >= count:
            break
        await asyncio.sleep(0.2)
    return first


async def _watch(stage: Stage, seconds: float) -> tuple[list[float], float]:
    """See for a while who connects: when each connection was first seen, and the server's busiest fifth of a second."""
    arrived: dict[str, float] = {}
    peak, since, used = 0.0, time.monotonic(), cpu_s(stage.server.pid)
    end = since + seconds
    async with stage.look() as client:
        own = str(await client.client_id())
        while (now := time.monotonic()) < end:
            for one in await client.client_list():
                arrived.setdefault(one["id"], time.monotonic())
            if now - since >= 0.2:
                again = cpu_s(stage.server.pid)
                peak = max(peak, (again - used) / (now - since))
                since, used = now, again
            await asyncio.sleep(0.02)
    arrived.pop(own, None)
    return list(arrived.values()), peak
