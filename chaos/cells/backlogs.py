"""A backlog that workers find when they start: what waits must cost nothing to those who take from its end."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any, Final

from chaos.ledger import read
from chaos.stage import PREFIX, QUEUE, Plan, Stage
from toril import NewJob, Queue

from ._registry import cell
from .crowds import cpu_s

FEW: Final = 10_000
ENOUGH: Final = 200_000
"""So many jobs of the backlog are run, which is enough to see how fast they go."""
FIRST_JOB: Final = 1.0
"""Seconds from the start of the worker that is ready last until a job has begun."""
SLOW_MS: Final = 10
SHARE: Final = 0.9
"""Of the rate with few jobs that must be left with many."""


@cell(
    "36",
    "3 workers start cold before a backlog of 1,000,000 jobs",
    Plan(workers=0, worker={"lock_duration": 30, "stalled_interval": 30, "terse": True}, proxied=False),
    begins=False,
    alone=True,
)
async def backlog(stage: Stage) -> None:
    """The jobs do nothing, and of each worker only the first is in the ledger: the server is asked what became of them.

    Both clients find the same backlog, which toril adds.
    """
    many = max(2 * FEW, stage.times(1_000_000))
    few = await _drain(stage, FEW, FEW, again=4)
    deep = await _drain(stage, many, min(many, ENOUGH))
    # Once more, since a machine is not always as fast.
    later = await _drain(stage, FEW, FEW, again=4)
    usual, rate = statistics.median([*few.rates, *later.rates]), statistics.median(deep.rates)
    stage.facts |= {
        "backlog": many,
        "bytes_a_job": deep.bytes_a_job,
        "first_job_s": round(deep.first_job_s, 2),
        "first_job_s_of_few": round(few.first_job_s, 2),
        "jobs_a_second": round(rate),
        "jobs_a_second_of_few": round(usual),
        "server_us_a_job": round(deep.server_us, 1),
        "server_us_a_job_of_few": round((few.server_us + later.server_us) / 2, 1),
        "slow_commands": deep.slow,
        "slow_commands_of_few": few.slow + later.slow,
    }
    if deep.first_job_s > FIRST_JOB * stage.slack:
        stage.faults.append(f"the first job began after {deep.first_job_s:.2f} s, not {FIRST_JOB:g} s")
    if rate < SHARE * usual / stage.slack:
        stage.faults.append(
            f"{rate:.0f} jobs a second of {many:,}, {usual:.0f} of {FEW:,}: {rate / usual:.0%}, not {SHARE:.0%}"
        )
    if deep.slow:
        stage.faults.append(f"{deep.slow} commands took more than {SLOW_MS} ms")


@dataclass(frozen=True)
class _Drained:
    """What workers made of a backlog.

    Attributes:
        first_job_s: From the start of the workers' programs.
        rates: Jobs a second, one for each `FEW` jobs: of their middle, when all workers run.
        slow: Commands of the server that took long meanwhile.
        bytes_a_job: Memory of the server before any had run.
        server_us: Time of the processor that the server needed for a job, which a busy machine changes least.
    """

    first_job_s: float
    rates: list[float]
    slow: int
    bytes_a_job: int
    server_us: float


async def _drain(stage: Stage, count: int, enough: int, again: int = 0) -> _Drained:
    """Fill the queue, start workers, let them run so many jobs; leave an empty server.

    With `again` they are given as many jobs so many times more, and only these rates count: with few jobs the worker
    that starts first has done most of them before the others are there, and shares the machine with nobody.
    """
    rates: list[float] = []
    async with stage.look() as client, Queue(QUEUE, connection=stage.url) as queue:
        await stage.keep_events()
        await _fill(queue, count)
        memory = int((await client.info("memory"))["used_memory"])
        await client.config_set("slowlog-log-slower-than", str(SLOW_MS * 1000))
        await client.config_set("slowlog-max-len", "1000")
        await client.slowlog_reset()
        began, used = time.monotonic(), cpu_s(stage.server.pid)
        workers = [stage.start_worker() for _ in range(3)]
        seen = await _watch(stage, client, 0, enough)
        server_us = 1e6 * (cpu_s(stage.server.pid) - used) / seen[-1][1]
        first = min(line["t"] for line in read(stage.directory) if line["e"] == "first" and line["t"] > began)
        if not again:
            rates += [_rate(seen, low, low + FEW) for low in range(FEW, enough - FEW + 1, FEW)]
        for done in range(enough, enough * (again + 1), enough):
            await queue.pause()
            await _fill(queue, count)
            await queue.resume()
            rates.append(_rate(await _watch(stage, client, done, done + enough), done, done + enough))
        # Only what the workers did: what follows is the driver's.
        slow = await client.slowlog_len()
        for one in workers:
            one.kill()
            stage.workers.remove(one)
        states = await queue.get_job_counts()
        if states["failed"] or sum(states.values()) != count * (again + 1):
            told = {state: number for state, number in states.items() if number}
            stage.faults.append(f"I1, I4 of {count * (again + 1):,} jobs there are {told}")
        # Else a server frees a million jobs in the background, while it is measured with few.
        raw: Any = client
        await raw.execute_command("FLUSHALL", "SYNC")
    return _Drained(first - began, rates, slow, round(memory / count), server_us)


async def _fill(queue: Queue, count: int) -> None:
    for start in range(0, count, 2000):
        await queue.add_bulk(NewJob("work", {"n": start + at}) for at in range(min(2000, count - start)))


async def _watch(stage: Stage, client: Any, done: int, enough: int) -> list[tuple[float, int]]:
    """See how many have been completed, and when, until it is enough."""
    seen = [(time.monotonic(), done)]
    while seen[-1][1] < enough:
        now, done = time.monotonic(), await client.zcard(PREFIX + "completed")
        if done > seen[-1][1]:
            seen.append((now, done))
        elif now - seen[-1][0] > 20:
            raise RuntimeError(f"nothing moves: {done} of {enough} jobs have run\n{stage.words()}")
        await asyncio.sleep(0.01)
    return seen


def _rate(seen: list[tuple[float, int]], low: int, high: int) -> float:
    """Jobs a second in the middle four fifths between two counts."""
    tenth = (high - low) // 10
    first, last = (next(one for one in seen if one[1] >= at) for at in (low + tenth, high - tenth))
    return (last[1] - first[1]) / max(last[0] - first[0], 0.001)
