"""A long run under load and faults: does anything grow, is anything lost? `python -m chaos.soak --minutes 30`.

Two worker processes, a producer, three job schedulers, a flow of a hundred every ten seconds, and once a minute a
fault. One of the workers is never killed: it is the one that is watched. Every ten seconds a sample is taken. When the
worker is warm, and at the end, the load stops for a moment, and what is held then must be the same. At the end come the
bounds, a line of JSON, and a plot, `docs/images/soak.svg`.

`--faults "RST,server restart" --every 15 --seed 7` looks into some kinds of faults; `--ledger DIR` keeps what was
written down.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from redis.exceptions import RedisError

from toril import Connection, FlowJob, FlowProducer, NewJob, Queue, TorilError, fsck

from .ledger import read
from .soak_judge import CALM, WARM_UP, Idle, Sample, Tales, judge, within_bounds
from .stage import PREFIX, QUEUE, ROOT, Plan, Running, Stage, staged, unfinished
from .svg import Panel, draw

PLOT: Final = ROOT / "docs" / "images" / "soak.svg"
FIGURES: Final = ROOT / "chaos" / "results" / "soak.json"
FAULTS: Final = (
    "kill worker",
    "RST",
    "half-open",
    "SCRIPT FLUSH",
    "server restart",
    "SIGSTOP",
    "blocked loop",
)
LOCK: Final = 5.0
CHILDREN: Final = 100
FLOW_EVERY: Final = 10.0
_TOLD: Final = {"completed": "completed", "failed": "failed", "stalled": "taken back"}
"""Events of the queue, and what the ledger calls them."""
_OF_JOBS: Final = (":processed", ":dependencies", ":unsuccessful", ":failed")
"""Keys of single jobs."""


@dataclass(frozen=True)
class Course:
    """What is asked for. Durations in seconds, but `minutes`."""

    minutes: float
    rate: float
    seed: int
    every: float = 60.0
    faults: Sequence[str] = FAULTS
    cycles: int = 2000
    ledger: Path | None = None

    @property
    def sample_every(self) -> float:
        return min(10.0, self.every / 3)


# --- looking ---


async def sample(client: redis.asyncio.Redis, worker: Running, began: float, lag: float) -> Sample:
    """Take one."""
    info = await client.info()
    fds, threads = worker.held()
    return Sample(
        t=round(time.monotonic() - began, 1),
        rss_mb=round(worker.rss_mb(), 2),
        fds=fds,
        threads=threads,
        backlog=await unfinished(client),
        used_memory_mb=round(int(info["used_memory"]) / 2**20, 3),
        keys=await client.dbsize(),
        clients=int(info["connected_clients"]),
        events=await client.xlen(PREFIX + "events"),
        output_mb=round(sum(int(one["omem"]) for one in await client.client_list()) / 2**20, 3),
        lag_ms=round(lag * 1000, 1),
    )


async def states_of(client: redis.asyncio.Redis) -> dict[str, str]:
    """In which state each job is."""
    raw: Any = client
    found: dict[str, str] = {}
    for name in ("wait", "paused", "active"):
        found.update(dict.fromkeys(await raw.lrange(PREFIX + name, 0, -1), name))
    for name in ("delayed", "prioritized", "waiting-children", "completed", "failed"):
        found.update(dict.fromkeys(await raw.zrange(PREFIX + name, 0, -1), name))
    return found


async def listen(stage: Stage) -> None:
    """Write each end of a job, and each job that is taken back, into the ledger: of most jobs no record stays."""
    last = "0-0"
    while True:
        with contextlib.suppress(RedisError, OSError):
            async with stage.look() as client:
                while True:
                    rows: list[Any] = (
                        await client.xrange(PREFIX + "events", f"({last}", "+", count=2000) or []
                    )
                    for last, row in rows:  # noqa: B007 - it is where the next reading begins
                        if told := _TOLD.get(row.get("event", "")):
                            why = {"why": row.get("failedReason")} if told == "failed" else {}
                            stage.book.write(told, id=row["jobId"], **why)
                    if len(rows) < 2000:
                        await asyncio.sleep(0.2)
        await asyncio.sleep(0.1)


async def idle(stage: Stage, steady: Running) -> Idle:
    """What is held now; the load has ended.

    Connections that are kept for later, as many as bursts and faults have left, are reset. Then each worker gets so
    many jobs that all of its lanes open, and some that last for several renewals of their locks: after that it holds
    what every busy worker holds.
    """
    stage.proxy.reset()
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        await queue.add_bulk([NewJob("work", {"ms": 2})] * 3000)
        await queue.add_bulk([NewJob("work", {"ms": LOCK * 1500})] * 60)
    async with stage.look() as client:
        for _ in range(300):
            await asyncio.sleep(0.1)
            if not await unfinished(client):
                break
    await asyncio.sleep(1)
    steady.signal(signal.SIGUSR1)
    await asyncio.sleep(1)
    tasks = [
        line["tasks"] for line in read(stage.directory) if line["e"] == "held" and line["pid"] == steady.pid
    ]
    async with stage.look() as client:
        records, others = 0, Counter[str]()
        keys: list[str] = [key async for key in client.scan_iter(match=f"{PREFIX}*", count=2000)]  # pyright: ignore
        for key in keys:
            name = key.removeprefix(PREFIX)
            kind = await client.type(key)
            is_job = ":" not in name or name.startswith("repeat:")
            if is_job and kind == "hash" and name != "meta":
                records += 1
            elif not name.endswith(_OF_JOBS) and await client.pttl(key) < 0:
                # What expires by itself, such as receipts of adds, is on its way out.
                others[name.split(":")[0]] += 1
        clients = len(await client.client_list())
    fds, threads = steady.held()
    return Idle(fds, threads, tasks[-1] if tasks else -1, clients, records, dict(sorted(others.items())))


# --- doing ---


async def strike(stage: Stage, what: str, steady: Running) -> None:
    """One fault."""
    stage.fault(what)
    other = next(one for one in stage.workers if one is not steady)
    if what == "kill worker":
        stage.kill_worker(other)
        stage.start_worker()
    elif what == "RST":
        stage.proxy.reset()
    elif what == "half-open":
        stage.proxy.black_hole = True
        await asyncio.sleep(5)
        stage.proxy.black_hole = False
    elif what == "SCRIPT FLUSH":
        async with stage.look() as client:
            await client.script_flush()
    elif what == "server restart":
        await stage.restart_server()
    elif what == "SIGSTOP":
        steady.signal(signal.SIGSTOP)
        await asyncio.sleep(LOCK / 2)
        steady.signal(signal.SIGCONT)
    else:
        async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
            await queue.add("work", {"block": 2})
    stage.healed(what)


async def add_flows(stage: Stage, tag: str) -> None:
    """Add a flow now and then, like the producer: what nobody has confirmed is added again."""
    number = 0
    async with FlowProducer(connection=stage.url) as flows:
        while True:
            number += 1
            parent = f"{tag}-{number}"
            ids = [parent, *(f"{parent}-{child}" for child in range(CHILDREN))]
            children = [FlowJob("work", QUEUE, {"ms": 2}, {"job_id": job_id}) for job_id in ids[1:]]
            flow = FlowJob("work", QUEUE, {"ms": 2}, {"job_id": parent}, children)
            for job_id in ids:
                stage.book.write("sent", id=job_id, delay=0, fails=0)
            while True:
                try:
                    await flows.add(flow)
                    break
                except TorilError as error:
                    stage.book.write("again", id=parent, why=type(error).__name__)
                    await asyncio.sleep(0.2)
            for job_id in ids:
                stage.book.write("acked", id=job_id)
            await asyncio.sleep(FLOW_EVERY)


@contextlib.asynccontextmanager
async def loaded(stage: Stage, tag: str) -> AsyncGenerator[None]:
    """Schedulers and flows for the time of a block; at its end the producer ends too, and all jobs have run."""
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        for number in range(3):
            await queue.upsert_job_scheduler(f"every-{number}", every=1, name="work", data={"ms": 1})
    flows = asyncio.create_task(add_flows(stage, f"{tag}flow"))
    try:
        yield
    finally:
        flows.cancel()
        await asyncio.wait({flows})
    async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
        for number in range(3):
            await queue.remove_job_scheduler(f"every-{number}")
    await stage.drain()


async def wait(seconds: float) -> float:
    """Sleep; return how much longer that took: for so long nothing here got a processor."""
    began = time.monotonic()
    await asyncio.sleep(seconds)
    return max(0.0, time.monotonic() - began - seconds)


async def run(
    stage: Stage, course: Course, began: float, steady: Running, samples: list[Sample]
) -> list[Idle]:
    """Load and faults until the time is over; return what was held at idle when the worker was warm, and at the end."""
    end = began + course.minutes * 60
    held: list[Idle] = []
    due = began + course.every
    lag = 0.0
    for until in (began + min(WARM_UP, course.minutes * 20), end):
        if held:
            stage.start_producer(tag="k")
        async with loaded(stage, "f" if not held else "g"):
            while (now := time.monotonic()) < until and steady.is_alive:
                async with stage.look() as client:
                    samples.append(await sample(client, steady, began, lag))
                    print(json.dumps(asdict(samples[-1])), flush=True)
                if now >= due and until - now > min(CALM, course.every):
                    due = now + course.every
                    await strike(stage, stage.chance.choice(course.faults), steady)
                lag = await wait(min(course.sample_every, max(0.0, until - time.monotonic())))
        if stage.faults or not steady.is_alive:
            break
        held.append(await idle(stage, steady))
    return held


async def soak(course: Course) -> dict[str, Any]:
    """Run, and return the figures."""
    plan = Plan(
        workers=2,
        rate=course.rate,
        persistence="aof",
        worker={
            "concurrency": 50,
            "lock_duration": LOCK,
            "stalled_interval": 2,
            "remove_on_complete": 1000,
            "remove_on_fail": 100,
            "lag": 0.25,
            "is_traced": True,
        },
        producer={"doom_every": 50, "is_varied": False},
        settle=30,
    )
    samples: list[Sample] = []
    async with staged("toril", plan, course.seed, 1.0) as stage:
        began = time.monotonic()
        steady = stage.workers[0]
        async with stage.look() as client:
            await client.hdel(PREFIX + "meta", "opts.maxLenEvents")
        ears = asyncio.create_task(listen(stage))
        held = await run(stage, course, began, steady, samples)
        ears.cancel()
        await asyncio.wait({ears})
        async with stage.look() as client:
            states = await states_of(client)
            left = await unfinished(client)
        async with Connection(f"redis://127.0.0.1:{stage.port}") as connection:
            found = await fsck.check(connection, QUEUE, most=200)
        if not steady.is_alive:
            stage.faults.append(f"the steady worker ended\n{stage.words()}")
        figures = await asyncio.to_thread(lambda: judge(Tales(stage.directory), samples, states, began))
        unclean = stage.unclean()
        grown = [
            line["lines"]
            for line in read(stage.directory)
            if line["e"] == "grown" and line["pid"] == steady.pid
        ]
        if course.ledger is not None:
            shutil.copytree(
                stage.directory, course.ledger, ignore=shutil.ignore_patterns("data"), dirs_exist_ok=True
            )
    return {
        "minutes": course.minutes,
        "rate": course.rate,
        "seed": course.seed,
        "load_average": round(os.getloadavg()[1], 1),
        **figures,
        "left": left,
        "idle": [asdict(one) for one in held],
        "stage": stage.faults,
        "fsck": [f"fsck {one.invariant}: {one.text} ({one.key})" for one in found][:20],
        "unclean_log_lines": len(unclean),
        "unclean": unclean[:5],
        "grown": grown[-1] if grown else [],
        "samples": [asdict(one) for one in samples],
    }


def run_cycles(count: int) -> dict[str, Any]:
    """Open and close a queue and a worker so many times, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "chaos.cycles", "--count", str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60 + count,
        check=False,
    )
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"count": count, "broken": [f"the cycles ended with {done.returncode}"]}


def plot(figures: dict[str, Any]) -> str:
    """The run as a picture: memory, backlog, what the server holds and the lag, with the faults as lines.

    A lag of more than 100 ms is drawn as that: those of a frozen or blocked worker would leave nothing of the others.
    """
    samples = figures["samples"]
    times = [one["t"] / 60 for one in samples]
    panels = [
        Panel("memory of a worker, MB", [one["rss_mb"] for one in samples]),
        Panel("jobs not ended", [one["backlog"] for one in samples]),
        Panel("memory of the server, MB", [one["used_memory_mb"] for one in samples]),
        Panel("open files of the worker", [one["fds"] for one in samples]),
        Panel("delay of a worker's event loop, p99, ms", [min(ms, 100.0) for ms in figures["lags_ms"]]),
    ]
    return draw("minutes", times, panels, [fault["t"] / 60 for fault in figures["faults"]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=400, help="jobs a second")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every", type=float, default=60, help="seconds from fault to fault")
    parser.add_argument("--faults", default=",".join(FAULTS), help="kinds of faults, with commas between")
    parser.add_argument(
        "--cycles", type=int, default=2000, help="how often a queue and a worker are opened and closed"
    )
    parser.add_argument("--ledger", type=Path, default=None, help="keep the ledgers and logs in this folder")
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    faults = [name.strip() for name in options.faults.split(",")]
    if unknown := set(faults) - set(FAULTS):
        parser.error(f"no fault {unknown.pop()!r}; there are {', '.join(FAULTS)}")
    seed = random.randrange(2**31) if options.seed is None else options.seed
    course = Course(
        options.minutes, options.rate, seed, options.every, faults, options.cycles, options.ledger
    )
    none: dict[str, Any] = {"count": 0, "broken": []}
    cycles = run_cycles(course.cycles) if course.cycles else none
    figures: dict[str, Any] = {**asyncio.run(soak(course)), "cycles": cycles}
    figures["broken"] = within_bounds(figures)
    for path in (options.figures, options.plot):
        path.parent.mkdir(parents=True, exist_ok=True)
    options.figures.write_text(json.dumps(figures, indent=1) + "\n")
    options.plot.write_text(plot(figures))
    print(json.dumps({key: value for key, value in figures.items() if key not in ("samples", "faults")}))
    return 1 if figures["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
