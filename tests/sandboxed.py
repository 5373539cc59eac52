"""Processors that `test_sandbox.py` runs in processes of their own, where they have to be imported by name."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from toril import (
    DelayedError,
    DependencyCounts,
    Job,
    Queue,
    RateLimitError,
    SyncJob,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)

declared = Queue("declared")


@dataclass
class Shift:
    """What a typed job is about."""

    pharmacy: str
    day: date


@declared.processor("cover", sandboxed=True)
def cover(shift: Shift) -> dict[str, Any]:
    """Return what it was given, as it understood it, and where it runs."""
    assert isinstance(shift.day, date)
    print("this goes nowhere near the worker's pipe")
    return {"pharmacy": shift.pharmacy, "year": shift.day.year, "pid": os.getpid()}


def tags() -> set[str]:
    """Return what only its annotation makes JSON."""
    return {"a", "b"}


@declared.processor("where", sandboxed=True)
async def where(job: Job) -> str:
    """Return the queue that it takes its job for one of."""
    return job.queue.qualified_name


async def ask(job: Job, verbs: list[tuple[str, list[Any]]]) -> dict[str, Any]:
    """Use the job's verbs, one after another; return their answers, and what the job then knows of itself."""
    answers: list[Any] = []
    for verb, arguments in verbs:
        answer = await getattr(job, verb)(*arguments)
        answers.append(asdict(answer) if isinstance(answer, DependencyCounts) else answer)
    await job.refresh()
    knows = [job.id, job.name, job.data, job.progress, job.attempts_started, job.options.attempts]
    return {"answers": answers, "knows": knows, "queue": job.queue.qualified_name}


def talk_plainly(job: SyncJob, to: str) -> int:
    """Use the job's verbs without asyncio."""
    job.update_progress(1)
    return job.log(f"hello {to}")


def fall(how: str) -> None:
    """End badly."""
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "hush":
        raise KeyboardInterrupt
    if how == "quit":
        sys.exit("enough")
    raise KeyError(how)


def steer(job: SyncJob, how: str) -> str:
    """Raise what steers, on the first start."""
    if job.job.attempts_started > 1:
        return f"{how} after {job.job.attempts_made}"
    if how == "DelayedError":
        raise DelayedError(0.05)
    if how == "WaitingError":
        raise WaitingError
    if how == "WaitingChildrenError":
        raise WaitingChildrenError
    if how == "RateLimitError":
        raise RateLimitError(0.05)
    raise UnrecoverableError(how)


def spin(job: SyncJob) -> None:
    """Never end."""
    job.update_progress(os.getpid())
    while True:
        pass


def hold(job: SyncJob, *, alone: bool = False) -> None:
    """Never end, let no other thread run, and do not listen; with a process of its own, unless it is to be alone."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pids = [os.getpid()]
    if not alone:
        pids.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
    job.update_progress(pids)
    ctypes.PyDLL(None).sleep(600)


async def lose_patience(job: Job) -> int:
    """Wait for the first of two answers no longer than a turn of the loop."""
    try:
        async with asyncio.timeout(0):
            await job.log("unheard")
    except TimeoutError:
        return await job.log("heard")
    raise AssertionError("the answer was there before it was asked for")


async def add_another(job: Job) -> str | None:
    """Add to the queue that the job is of, once."""
    return None if job.name == "another" else (await job.queue.add("another")).id


def leave_a_fork() -> None:
    """Die as for want of memory, and leave a process that does not."""
    if os.fork() == 0:
        time.sleep(600)
    os.kill(os.getpid(), signal.SIGKILL)


def shout() -> str:
    """Write to wherever output goes."""
    print("out", flush=True)
    os.write(1, b"out\n")
    os.write(2, b"err\n")
    return "said"


async def whole(job: Job) -> Any:
    """A function for all jobs of a worker."""
    await asyncio.sleep(0)
    return [job.name, job.data, os.getpid()]


def pid() -> int:
    """Return where it runs."""
    time.sleep(0.001)
    return os.getpid()
