"""A long run under load and faults: does anything grow, is anything lost? `python -m chaos.soak --minutes 30`.

Two worker processes, a producer, three job schedulers, and once a minute a fault. One of the workers is never killed:
it is the one whose memory is watched. Every ten seconds a sample is taken; at the end come the bounds, a line of JSON,
and a plot, `docs/images/soak.svg`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio

from toril import Queue

from .ledger import read
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
EVERY: Final = 60.0
SAMPLE: Final = 10.0
LOCK: Final = 5.0
CALM: Final = 20.0
"""Seconds after a fault that do not count as calm."""


@dataclass
class Sample:
    """What was there at one moment. `rss_mb`, `fds` and `threads` are the steady worker's."""

    t: float
    rss_mb: float
    fds: int
    threads: int
    backlog: int
    used_memory_mb: float
    keys: int
    clients: int
    events: int


def look_at(worker: Running) -> tuple[float, int, int]:
    """A process's memory in MB, its open files and its threads."""
    threads = len(os.listdir(f"/proc/{worker.pid}/task"))
    return worker.rss_mb(), len(os.listdir(f"/proc/{worker.pid}/fd")), threads


async def sample(client: redis.asyncio.Redis, worker: Running, began: float) -> Sample:
    """Take one."""
    info = await client.info()
    rss, fds, threads = look_at(worker)
    return Sample(
        t=round(time.monotonic() - began, 1),
        rss_mb=round(rss, 2),
        fds=fds,
        threads=threads,
        backlog=await unfinished(client),
        used_memory_mb=round(int(info["used_memory"]) / 2**20, 3),
        keys=await client.dbsize(),
        clients=int(info["connected_clients"]),
        events=await client.xlen(PREFIX + "events"),
    )


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


async def soak(minutes: float, rate: float, seed: int) -> dict[str, Any]:
    """Run, and return the figures."""
    plan = Plan(
        workers=2,
        rate=rate,
        persistence="aof",
        worker={
            "concurrency": 50,
            "lock_duration": LOCK,
            "stalled_interval": 2,
            "remove_on_complete": 1000,
            "remove_on_fail": 1000,
        },
        settle=60,
    )
    samples: list[Sample] = []
    async with staged("toril", plan, seed, 1.0) as stage:
        began = time.monotonic()
        end = began + minutes * 60
        steady = stage.workers[0]
        async with stage.look() as client:
            await client.hdel(PREFIX + "meta", "opts.maxLenEvents")
        async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
            for number in range(3):
                await queue.upsert_job_scheduler(f"every-{number}", every=1, name="work", data={"ms": 1})
        due = began + EVERY
        while time.monotonic() < end:
            async with stage.look() as client:
                samples.append(await sample(client, steady, began))
                print(json.dumps(asdict(samples[-1])), flush=True)
            if time.monotonic() >= due and end - time.monotonic() > CALM:
                due += EVERY
                await strike(stage, stage.chance.choice(FAULTS), steady)
            await asyncio.sleep(SAMPLE)
        async with Queue(QUEUE, connection=f"redis://127.0.0.1:{stage.port}") as queue:
            for number in range(3):
                await queue.remove_job_scheduler(f"every-{number}")
        await stage.drain()
        async with stage.look() as client:
            failed = await client.zcard(PREFIX + "failed")
            left = await unfinished(client)
        figures = judge_soak(list(read(stage.directory)), samples, failed, left, began)
        figures["unclean_log_lines"] = len(stage.unclean())
    return {
        "minutes": minutes,
        "rate": rate,
        "seed": seed,
        **figures,
        "samples": [asdict(one) for one in samples],
    }


def judge_soak(
    lines: list[dict[str, Any]], samples: Sequence[Sample], failed: int, left: int, began: float
) -> dict[str, Any]:
    """Compare ledger and samples with the bounds."""
    acked = {line["id"] for line in lines if line["e"] == "acked"}
    good = {line["id"] for line in lines if line["e"] == "end" and not line.get("failed")}
    starts = [line for line in lines if line["e"] == "start"]
    ends = {(line["id"], line["run"], line["pid"]) for line in lines if line["e"] == "end"}
    fails = {line["id"]: line["fails"] for line in lines if line["e"] == "sent"}
    runs: dict[str, int] = {}
    unended: dict[str, int] = {}
    for line in starts:
        runs[line["id"]] = runs.get(line["id"], 0) + 1
        if (line["id"], line["run"], line["pid"]) not in ends:
            unended[line["id"]] = unended.get(line["id"], 0) + 1
    extra = {job_id: count - 1 - fails.get(job_id, 0) for job_id, count in runs.items()}
    duplicates = sum(count for count in extra.values() if count > 0)
    marks = sorted(line["t"] for line in lines if line["e"] in ("fault", "healed"))
    warm = [one for one in samples if one.t >= min(600, samples[-1].t / 3)]
    rss = [one.rss_mb for one in warm]
    waits = calm_waits(lines, marks)
    slope = slope_per_hour([one.t for one in warm], rss)
    return {
        "jobs": len(acked),
        "executed": len(starts),
        "lost": len(acked - good),
        "left": left,
        "duplicates": duplicates,
        "ended_before": duplicates
        - sum(min(max(count, 0), unended.get(one, 0)) for one, count in extra.items()),
        "false_failed": failed,
        "faults": [
            {"what": line["what"], "t": round(line["t"] - began, 1)}
            for line in lines
            if line["e"] == "fault" and "pid" not in line and line["what"] != "server ends"
        ],
        "rss_slope_mb_per_hour": round(slope, 2),
        "rss_growth_mb": round(statistics.mean(rss[-6:]) - statistics.mean(rss[:6]), 2),
        "used_memory_slope_mb_per_hour": round(
            slope_per_hour([one.t for one in warm], [one.used_memory_mb for one in warm]), 2
        ),
        "fds": [warm[0].fds, warm[-1].fds],
        "threads": [warm[0].threads, warm[-1].threads],
        "most_events": max(one.events for one in samples),
        "calm_wait_p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 1) if waits else None,
        "load_average": round(os.getloadavg()[1], 1),
    }


def calm_waits(lines: list[dict[str, Any]], marks: Sequence[float]) -> list[float]:
    """From sending to start, of plain jobs that were sent while no fault was near; sorted."""
    sent = {line["id"]: line["t"] for line in lines if line["e"] == "sent" and not line["delay"]}
    waits: list[float] = []
    for line in lines:
        if line["e"] == "start" and line["run"] == 1 and line["id"] in sent:
            when = sent.pop(line["id"])
            if all(not when - CALM < mark < when + 2 for mark in marks) and "-" not in line["id"][2:]:
                waits.append(line["t"] - when)
    return sorted(waits)


def slope_per_hour(times: Sequence[float], values: Sequence[float]) -> float:
    """By least squares."""
    return statistics.linear_regression(times, values).slope * 3600 if len(times) > 2 else 0.0


def within_bounds(figures: dict[str, Any]) -> list[str]:
    """Which bounds are broken."""
    first = figures["samples"][0]["rss_mb"]
    broken = [name for name in ("lost", "left", "false_failed", "unclean_log_lines") if figures[name]]
    if figures["rss_slope_mb_per_hour"] > 2 and figures["rss_growth_mb"] > max(10, first * 0.05):
        broken.append("rss")
    if figures["threads"][0] < figures["threads"][1]:
        broken.append("threads")
    return broken


def plot(figures: dict[str, Any]) -> str:
    """The run as a picture: memory, backlog, and what the server holds, with the faults as lines."""
    samples = figures["samples"]
    times = [one["t"] / 60 for one in samples]
    panels = [
        Panel("memory of a worker, MB", [one["rss_mb"] for one in samples]),
        Panel("jobs not ended", [one["backlog"] for one in samples]),
        Panel("memory of the server, MB", [one["used_memory_mb"] for one in samples]),
        Panel("open files of the worker", [one["fds"] for one in samples]),
    ]
    return draw("minutes", times, panels, [fault["t"] / 60 for fault in figures["faults"]])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.soak")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200, help="jobs a second")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--plot", type=Path, default=PLOT)
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    figures = asyncio.run(soak(options.minutes, options.rate, seed))
    figures["broken"] = within_bounds(figures)
    for path in (options.figures, options.plot):
        path.parent.mkdir(parents=True, exist_ok=True)
    options.figures.write_text(json.dumps(figures, indent=1) + "\n")
    options.plot.write_text(plot(figures))
    print(json.dumps({key: value for key, value in figures.items() if key not in ("samples", "faults")}))
    return 1 if figures["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
