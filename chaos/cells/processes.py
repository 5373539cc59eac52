"""Harm to workers and producers: killed, stopped, blocked, poisoned."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter, defaultdict
from typing import Any

from chaos.ledger import read
from chaos.stage import PREFIX, QUEUE, WORKER, Plan, Running, Stage, need_node
from toril import Queue

from ._registry import cell

LOCK = 2.0
CALL = 64
"""Jobs that one call of a bulk of small ones adds."""


# A lock and two looks for stalled jobs, and a second to start a process.
@cell("1", "workers killed (`kill -9`), one after the other", within=6)
async def kill_workers(stage: Stage) -> None:
    for _ in range(stage.times(20)):
        await stage.pause(0.2, 0.8)
        stage.kill_worker(stage.chance.choice(stage.workers))
        stage.start_worker()


@cell(
    "1b", "the same, of the completed jobs only the last 100 are kept", Plan(producer={"keep": 100}), within=6
)
async def kill_and_trim(stage: Stage) -> None:
    stage.keeps = 100
    await kill_workers(stage)


@cell("2", "a producer killed in the middle of bulks of 1,000", Plan(workers=2, rate=20), clients=("toril",))
async def kill_producers(stage: Stage) -> None:
    """The first producer is the usual load; those that die add bulks beside it, in calls of 64 jobs."""
    usual = stage.producer
    for number in range(stage.times(10)):
        tag = f"bulk{number}"
        victim = stage.start_producer(tag=tag, bulk=1000, ms=(0, 0))
        await _has_begun_bulk(stage, victim)
        # A bulk takes tens of milliseconds: some victims die before its first call, some between, some in the next.
        await stage.pause(0.0, 0.08)
        victim.kill()
    stage.producer = usual
    async with stage.look() as client:
        bulks = await bulks_of(client)
    begun = {
        line["id"].split("-")[0] for line in read(stage.directory) if str(line.get("id")).startswith("bulk")
    }
    torn = [bulk for bulk, numbers in bulks.items() if len(numbers) != 1000]
    stage.facts |= {"killed": len(begun), "bulks": len(bulks), "partial": len(torn)}
    if len(bulks) < len(begun):
        stage.faults.append(
            f"{len(begun)} producers were killed, {len(bulks)} bulks are there: nothing is proved"
        )
    # Each call is done or not, one after the other: what is there is the beginning of the bulk, and whole calls.
    odd = [bulk for bulk in torn if len(bulks[bulk]) % CALL or bulks[bulk] != set(range(len(bulks[bulk])))]
    if odd:
        stage.faults.append(f"I1 {len(odd)} bulks are there in pieces, such as {odd[0]}")


async def _has_begun_bulk(stage: Stage, producer: Running, seconds: float = 60) -> None:
    """Wait until it has added one bulk, and is about to send the next: three lines in its ledger for each job."""
    deadline = time.monotonic() + seconds
    book = stage.directory / f"producer-{producer.pid}.jsonl"
    while time.monotonic() < deadline:
        if book.exists() and book.read_bytes().count(b"\n") >= 3000:
            return
        await asyncio.sleep(0.005)
    raise RuntimeError(f"a producer has begun no bulk within {seconds:g} s")


async def bulks_of(client: Any) -> dict[str, set[int]]:
    """Which jobs of each bulk are there, by their place in it."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    async for key in client.scan_iter(match=f"{PREFIX}bulk*", count=2000):
        name = key.removeprefix(PREFIX)
        if ":" not in name:
            tag, number = name.split("-")
            bulk, place = divmod(int(number) - 1, 1000)
            found[f"{tag}/{bulk}"].add(place)
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
        slowest = max(slowest, leaving.ended_at - began)
        if code != 0:
            stage.faults.append(f"SIGTERM: exit code {code}")
            leaving.kill()
    stage.facts["exit_s"] = round(slowest, 2)
    if slowest > (3 + 1) * stage.slack:
        stage.faults.append(f"SIGTERM: a worker took {slowest:.1f} s with a grace of 3 s")


# 60 short jobs, some of which are as long as a worker that is told to stop can wait for, or longer.
@cell(
    "6b",
    "one worker, one job at a time, replaced (SIGTERM) while jobs run that outlast its grace: the order of jobs",
    Plan(workers=0, worker={"concurrency": 1, "grace": 0.5, "lock_duration": 10}),
    clients=("toril",),
    begins=False,
)
async def keep_order(stage: Stage) -> None:
    stage.no_stalls = True
    kinds: list[tuple[str, dict[str, Any]]] = []
    for number in range(60):
        if number % 6 == 1:
            kinds.append((f"last-in-{number}", {"lifo": True}))
        elif number % 6 == 4:
            kinds.append((f"priority-{number}", {"priority": 1 + number % 4}))
        else:
            kinds.append((f"plain-{number}", {}))
    slow = [job_id for job_id, _ in kinds if job_id.startswith("plain")][5::10]
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        for job_id, options in kinds:
            stage.book.write("sent", id=job_id, delay=0, fails=0)
            await queue.add("work", {"ms": 3000 if job_id in slow else 20}, job_id=job_id, **options)
            stage.book.write("acked", id=job_id)
    stage.order = [
        *(job_id for job_id, options in reversed(kinds) if "lifo" in options),
        *(job_id for job_id, options in kinds if not options),
        *(
            job_id
            for job_id, _ in sorted(kinds, key=lambda kind: kind[1].get("priority", 0))
            if "priority" in job_id
        ),
    ]
    for job_id in slow:
        worker = stage.start_worker()
        await stage.has_begun(job_id)
        stage.workers.remove(worker)
        worker.signal(signal.SIGTERM)
        if await worker.ended(10) != 0:
            stage.faults.append("a worker did not end in good order")
            worker.kill()
    stage.start_worker()


@cell(
    "7",
    "SIGTERM, SIGINT or SIGHUP and another, or SIGQUIT, with a grace of a minute",
    LONG,
    clients=("toril",),
)
async def hurry_workers(stage: Stage) -> None:
    stage.no_stalls = True
    slowest = 0.0
    for first, second in (
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGHUP, signal.SIGTERM),
        (None, signal.SIGQUIT),
    ):
        leaving = stage.start_worker(grace=60)
        await stage.has_run(leaving)
        await stage.pause(1.0)
        stage.workers.remove(leaving)
        if first is not None:
            leaving.signal(first)
            await asyncio.sleep(0.3)
        began = time.monotonic()
        leaving.signal(second)
        code = await leaving.ended(10)
        slowest = max(slowest, leaving.ended_at - began)
        if code != 0:
            stage.faults.append(f"{first and first.name}, {second.name}: exit code {code}")
            leaving.kill()
    stage.facts["exit_s"] = round(slowest, 2)
    if slowest > 2 * stage.slack:
        stage.faults.append(f"the second signal took {slowest:.1f} s")


# Jobs of such a length that each worker holds some when it freezes.
HELD = Plan(producer={"ms": (20, 300)})


@cell("8", "workers frozen (SIGSTOP) for 2.5 locks, then woken", HELD)
async def freeze_workers(stage: Stage) -> None:
    for _ in range(stage.times(4)):
        await stage.pause(0.3, 0.8)
        victim = stage.chance.choice(stage.workers)
        stage.fault("SIGSTOP")
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(2.5 * LOCK)
        victim.signal(signal.SIGCONT)
        stage.healed("SIGCONT")
    await stage.pause(1.0)
    overlaps = overlaps_of(list(read(stage.directory)))
    stage.facts["run_elsewhere"] = len(overlaps)
    stage.facts["longest_overlap_s"] = round(max(overlaps, default=0.0), 1)
    if not overlaps:
        stage.faults.append("no job was taken over: nothing is proved")


def overlaps_of(lines: list[dict[str, Any]]) -> list[float]:
    """For how many seconds each job that began elsewhere before its first run had ended was run by both."""
    first: dict[str, dict[str, Any]] = {}
    later: dict[str, float] = {}
    found: list[float] = []
    for line in sorted(lines, key=lambda line: line["t"]):
        if line["e"] == "start" and first.setdefault(line["id"], line)["pid"] != line["pid"]:
            later.setdefault(line["id"], line["t"])
        elif line["e"] in ("end", "gone") and line["id"] in later:
            begun = first[line["id"]]
            if (begun["pid"], begun["run"]) == (line["pid"], line["run"]):
                found.append(line["t"] - later[line["id"]])
    return found


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
    await stage.pause(max(8.0, 15 * stage.scale))
    # It says so, and where.
    said = stage.said("the event loop has been blocked")
    stage.facts["blocked_loops_named"] = said
    if stage.client == "toril" and not said:
        stage.faults.append("no worker has said that its loop is blocked")


@cell(
    "32",
    "1 job in 40 holds the GIL for 2 locks",
    Plan(rate=20, producer={"block_every": 40, "gil": 2 * LOCK, "block": 0, "ms": (2, 200)}, settle=60),
    clients=("toril",),
)
async def hold_gil(stage: Stage) -> None:
    """Who holds it loses its own lock at each start, so it may fail in the end; whoever runs beside it may not.

    What counts is that the loser changes nothing, which the checker sees.
    """
    stage.may_fail.update(f"j-{number}" for number in ENDLESS)
    await stage.pause(max(8.0, 15 * stage.scale))
    lines = list(read(stage.directory))
    # Who has lost the lock meanwhile is cancelled.
    ends = {
        (line["id"], line["run"], line["pid"]): line["t"] for line in lines if line["e"] in ("end", "gone")
    }
    held = [
        ends[line["id"], line["run"], line["pid"]] - line["t"]
        for line in lines
        if line["e"] == "start"
        and line["id"] in stage.may_fail
        and (line["id"], line["run"], line["pid"]) in ends
    ]
    stage.facts["longest_held_s"] = round(max(held, default=0.0), 1)
    if max(held, default=0.0) < LOCK:
        stage.faults.append("nobody held the GIL for as long as a lock: nothing is proved")


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
        found = [await queue.get_job(pill) for pill in pills]
        reasons = {str(job and job.failed_reason) for job in found}
    runs = Counter(
        line["id"] for line in read(stage.directory) if line["e"] == "start" and line["id"] in pills
    )
    stage.facts["quarantine_s"] = round(time.monotonic() - began, 1)
    stage.facts["pill_runs"] = runs.total()
    chances = {**WORKER, **stage.plan.worker}["max_stalled_count"] + 1
    if stage.client == "toril" and not (set(runs) == set(pills) and max(runs.values()) <= chances):
        stage.faults.append(f"the pills ran {dict(runs)} times, not once to {chances} times each")
    if not all("stalled more than allowable limit" in reason for reason in reasons):
        stage.faults.append(f"the pills have failed for {reasons}")


# Numbers of jobs that never end; the producer of a cell comes nowhere near the last of them.
ENDLESS = range(0, 100_000, 40)


@cell(
    "35",
    "1 job in 40 never ends, with a limit of 1 s for each attempt",
    # So few places that none would be left if those of jobs that hang were not given back.
    Plan(rate=100, worker={"timeout": 1, "concurrency": 3}, producer={"block_every": 40, "hang": True}),
    clients=("toril",),
)
async def never_end(stage: Stage) -> None:
    """They fail, and only they; their places are free again."""
    stage.no_stalls = True
    stage.may_fail.update(f"j-{number}" for number in ENDLESS)
    await stage.pause(12 * stage.scale)


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


@cell(
    "42",
    "toril, BullMQ 6 and BullMQ 5 on one queue: kills, freezes, RSTs, restarts of the server",
    Plan(persistence="aof"),
    clients=("toril",),
    within=6,
)
async def mixed_fleet(stage: Stage) -> None:
    need_node("bullmq", "bullmq5")
    kinds = {one.pid: "toril" for one in stage.workers}
    own = stage.producer
    for client in ("bullmq", "bullmq5"):
        kinds[stage.start_worker(client=client).pid] = client
    other = stage.start_producer(client="bullmq", tag="n", rate=100)
    await stage.ready(40)
    # The queue of each Node.js process has set what it takes for right.
    await stage.keep_events()
    harms = ["kill", "freeze", "reset", "restart"] * 2
    stage.chance.shuffle(harms)
    harms = [*dict.fromkeys(harms), *harms][: max(4, stage.times(6))]
    for harm in harms:
        await stage.pause(0.3, 0.8)
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
        elif harm == "restart":
            await stage.restart_server()
        else:
            stage.fault("RST")
            stage.proxy.reset()
            stage.healed("RST")
    other.signal(signal.SIGTERM)
    if await other.ended(20) is None:
        stage.faults.append("BullMQ's producer did not end")
    stage.producer = own
    await stage.all_run()
    await stage.drain()
    stage.faults += await differences(stage)


async def differences(stage: Stage) -> list[str]:
    """I18: whether BullMQ's getters, of both generations, see of the queue what toril's see."""
    # Only here, since it is the tests' own.
    from tests.interop.node import Node, NodeQueue

    found: list[str] = []
    async with Queue(QUEUE, connection=stage.direct_url()) as queue:
        counts = {state: count for state, count in (await queue.get_job_counts()).items() if count}
        jobs = await queue.get_jobs("completed")
        jobs = stage.chance.sample(jobs, min(50, len(jobs)))
        children = {job.id: await job.get_children_values() for job in jobs}
        for package in ("bullmq", "bullmq5"):
            node = await asyncio.to_thread(Node, stage.direct_url(), package)
            try:
                async with NodeQueue(node, QUEUE, prefix="bull") as theirs:
                    if counts != (seen := await theirs.counts()):
                        found.append(f"I18 {package} counts {seen}, toril {counts}")
                    for job in jobs:
                        told = await theirs.job(job.id) or {}
                        names = ("data", "returnvalue", "attemptsMade", "attemptsStarted")
                        ours = (job.data, job.return_value, job.attempts_made, job.attempts_started)
                        if tuple(told.get(name) for name in names) != ours:
                            found.append(f"I18 {package} reads job {job.id} as {told}")
                    for job_id, values in children.items():
                        if values != await theirs.on_job(job_id, "getChildrenValues"):
                            found.append(f"I18 {package} reads other results of the children of job {job_id}")
            finally:
                await asyncio.to_thread(node.stop)
    return found
