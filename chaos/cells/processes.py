"""Harm to workers and producers: killed, stopped, blocked, poisoned."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from chaos.ledger import read
from chaos.stage import PREFIX, QUEUE, Plan, Stage
from toril import Queue

from ._registry import cell

LOCK = 2.0


# A lock and two looks for stalled jobs, and a second to start a process.
@cell("1", "workers killed (`kill -9`), one after the other", within=6)
async def kill_workers(stage: Stage) -> None:
    for _ in range(stage.times(20)):
        await stage.pause(0.2, 0.8)
        stage.kill_worker(stage.chance.choice(stage.workers))
        stage.start_worker()


@cell("2", "a producer killed in the middle of bulks of 1,000", Plan(workers=2, rate=20), clients=("toril",))
async def kill_producers(stage: Stage) -> None:
    """The first producer is the usual load; those that die add bulks beside it."""
    usual = stage.producer
    for number in range(stage.times(10)):
        victim = stage.start_producer(tag=f"bulk{number}", bulk=1000, rate=100_000, ms=(0, 0))
        await stage.pause(0.6, 1.2)
        victim.kill()
    stage.producer = usual
    async with stage.look() as client:
        bulks = await bulks_of(client)
    torn = [bulk for bulk, count in bulks.items() if count != 1000]
    stage.facts["bulks"], stage.facts["partial"] = len(bulks), len(torn)
    if not bulks:
        stage.faults.append("no bulk had begun when its producer was killed: nothing is proved")
    if torn:
        stage.faults.append(f"I1 {len(torn)} bulks are there in part, such as {torn[0]}")


async def bulks_of(client: Any) -> dict[str, int]:
    """How many jobs of each bulk are there."""
    found: dict[str, int] = {}
    async for key in client.scan_iter(match=f"{PREFIX}bulk*", count=2000):
        name = key.removeprefix(PREFIX)
        if ":" not in name:
            tag, number = name.split("-")
            bulk = f"{tag}/{(int(number) - 1) // 1000}"
            found[bulk] = found.get(bulk, 0) + 1
    return found


LONG = Plan(rate=25, producer={"ms": (100, 6000)}, worker={"lock_duration": 5, "stalled_interval": 1})


@cell("6", "SIGTERM to workers, grace 3 s, jobs of 0.1 to 6 s", LONG)
async def stop_workers(stage: Stage) -> None:
    stage.no_stalls = True
    slowest = 0.0
    for _ in range(stage.times(5)):
        await stage.pause(1.0, 1.5)
        leaving = stage.workers.pop(0)
        stage.start_worker()
        began = time.monotonic()
        leaving.signal(signal.SIGTERM)
        code = await leaving.ended(10)
        slowest = max(slowest, time.monotonic() - began)
        if code != 0:
            stage.faults.append(f"SIGTERM: exit code {code}")
            leaving.kill()
    stage.facts["exit_s"] = round(slowest, 2)
    if slowest > (3 + 1) * stage.slack:
        stage.faults.append(f"SIGTERM: a worker took {slowest:.1f} s with a grace of 3 s")


@cell("7", "SIGTERM or SIGINT twice with a grace of a minute", LONG, clients=("toril",))
async def hurry_workers(stage: Stage) -> None:
    stage.no_stalls = True
    slowest = 0.0
    for first, second in (
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT),
    ):
        leaving = stage.start_worker(grace=60)
        await stage.has_run(leaving)
        await stage.pause(1.0)
        stage.workers.remove(leaving)
        leaving.signal(first)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        leaving.signal(second)
        code = await leaving.ended(10)
        slowest = max(slowest, time.monotonic() - began)
        if code != 0:
            stage.faults.append(f"{first.name}, {second.name}: exit code {code}")
            leaving.kill()
    stage.facts["exit_s"] = round(slowest, 2)
    if slowest > 2 * stage.slack:
        stage.faults.append(f"the second signal took {slowest:.1f} s")


@cell("8", "workers frozen (SIGSTOP) for 2.5 locks, then woken")
async def freeze_workers(stage: Stage) -> None:
    for _ in range(stage.times(4)):
        await stage.pause(0.3, 0.8)
        victim = stage.chance.choice(stage.workers)
        stage.fault("SIGSTOP")
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(2.5 * LOCK)
        victim.signal(signal.SIGCONT)
        stage.healed("SIGCONT")


@cell("9", "workers frozen for half a lock", Plan(worker={"lock_duration": 4}))
async def nap_workers(stage: Stage) -> None:
    stage.no_stalls = True
    for _ in range(stage.times(5)):
        await stage.pause(1.5, 2.0)
        victim = stage.chance.choice(stage.workers)
        stage.fault("SIGSTOP")
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(2.0)
        victim.signal(signal.SIGCONT)
        stage.healed("SIGCONT")


BLOCKING = Plan(rate=20, producer={"block_every": 40, "block": 3 * LOCK, "ms": (2, 200)}, settle=60)


@cell("31", "1 job in 40 blocks its event loop for 3 locks", BLOCKING)
async def block_loops(stage: Stage) -> None:
    stage.no_stalls = True
    await stage.pause(15 * stage.scale)


@cell(
    "32",
    "1 job in 40 holds the GIL for 2 locks",
    Plan(rate=20, producer={"block_every": 40, "gil": 2 * LOCK, "block": 0, "ms": (2, 200)}, settle=60),
    clients=("toril",),
)
async def hold_gil(stage: Stage) -> None:
    """The lock may run out. What counts is that the loser changes nothing, which the checker sees."""
    await stage.pause(15 * stage.scale)


# One job at a time: whatever runs beside a pill dies with it, see 34b.
@cell(
    "34",
    "5 poison pills that kill their worker, one job at a time, workers under a restarter",
    Plan(rate=60, worker={"concurrency": 1}),
    within=10,
)
async def poison(stage: Stage) -> None:
    pills = [f"pill-{number}" for number in range(5)]
    stage.may_fail.update(pills)
    began = time.monotonic()
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        await asyncio.gather(*(queue.add("work", {"pill": True}, job_id=pill) for pill in pills))
        deadline = began + 60
        states: list[str] = []
        while time.monotonic() < deadline:
            for dead in [one for one in stage.workers if not one.is_alive]:
                stage.kill_worker(dead)
                stage.start_worker()
            states = [await queue.get_job_state(pill) for pill in pills]
            if all(state == "failed" for state in states):
                break
            await asyncio.sleep(0.05)
        else:
            stage.faults.append(f"the pills are not out of the way: {states}")
    runs = sum(line["e"] == "start" and line["id"] in pills for line in read(stage.directory))
    stage.facts["quarantine_s"] = round(time.monotonic() - began, 1)
    stage.facts["pill_runs"] = runs


@cell("34b", "the same with 20 jobs at a time: what runs beside a pill is taken back with it", within=6)
async def poison_neighbours(stage: Stage) -> None:
    await poison(stage)


@cell(
    "39",
    "workers killed while flows run, half of all jobs with children",
    Plan(producer={"flow_every": 2}),
    within=6,
)
async def kill_in_flows(stage: Stage) -> None:
    await kill_workers(stage)


@cell("42", "toril and BullMQ on one queue: kills, freezes and RSTs", clients=("toril",))
async def mixed_fleet(stage: Stage) -> None:
    kinds = {one.pid: "toril" for one in stage.workers}
    own = stage.producer
    for _ in range(2):
        kinds[stage.start_worker(client="bullmq").pid] = "bullmq"
    other = stage.start_producer(client="bullmq", tag="n", rate=100)
    await stage.ready(40)
    for _ in range(stage.times(6)):
        await stage.pause(0.3, 0.8)
        harm = stage.chance.choice(("kill", "freeze", "reset"))
        victim = stage.chance.choice(stage.workers)
        if harm == "kill":
            stage.kill_worker(victim)
            kinds[stage.start_worker(client=kinds[victim.pid]).pid] = kinds[victim.pid]
        elif harm == "freeze":
            stage.fault("SIGSTOP")
            victim.signal(signal.SIGSTOP)
            await asyncio.sleep(2.5 * LOCK)
            victim.signal(signal.SIGCONT)
            stage.healed("SIGCONT")
        else:
            stage.fault("RST")
            stage.proxy.reset()
            stage.healed("RST")
    other.signal(signal.SIGTERM)
    if await other.ended(20) is None:
        stage.faults.append("BullMQ's producer did not end")
    stage.producer = own
