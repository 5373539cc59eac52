"""The two programs that every Python contestant is: a producer that obeys commands, and a worker.

    python -m benchmarks.contestants.arq producer URL      commands on stdin, answers on stdout, one JSON a line
    python -m benchmarks.contestants.arq worker URL JSON   works until it is killed

`contestants/bullmq_node.mjs` understands the same. Only the standard library: every environment imports this.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, ClassVar, Final

from benchmarks.tally import Tally

__all__ = ["QUEUE", "Adapter", "end_with_runner", "fail_first", "main"]

QUEUE: Final = "bench"
AT_ONCE: Final = 1000
"""So many are awaited at once, or handed to one bulk add."""


class Adapter:
    """What a contestant can do. A subclass says the rest in its docstring: which configuration, and why.

    Attributes:
        is_async: Whether its client is awaited; else its methods are plain functions.
        missing: Workload, or what a workload needs -> what to print instead of a figure.
        pending: The keys that hold jobs which have not ended; with a `*`, all that match. Empty when all has run.
        kept: The key that holds all jobs that completed, where there is one.
        distributions: Whose versions to report.
    """

    is_async: ClassVar[bool] = True
    missing: ClassVar[dict[str, str]] = {}
    pending: ClassVar[Sequence[str]] = ()
    kept: ClassVar[str] = ""
    distributions: ClassVar[Sequence[str]] = ()

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_prioritized = False
        """Whether the worker will meet priorities, for who must know beforehand."""

    def open(self) -> Any:
        """Connect the producer."""

    def add(
        self,
        data: dict[str, Any],
        *,
        name: str = "noop",
        delay: float = 0,
        priority: int = 0,
        attempts: int = 1,
    ) -> Any:
        """Add one job. `delay` in seconds; a smaller `priority` runs first; 0 is none."""
        raise TypeError(f"{type(self).__name__} has no add, and its `missing` does not say so")

    def add_bulk(self, datas: list[dict[str, Any]], **options: Any) -> Any:
        """Add many jobs in as few round trips as the library can. Without it, `missing` has "bulk"."""
        raise TypeError(f"{type(self).__name__} has no add_bulk, and its `missing` does not say so")

    def add_flow(self, children: int) -> Any:
        """Add a parent with so many children, which it waits for. Without it, `missing` has "flows"."""
        raise TypeError(f"{type(self).__name__} has no add_flow, and its `missing` does not say so")

    def work(self, tally: Tally, concurrency: int, threads: int) -> Any:
        """Work for ever: `noop`, `noop_sync` (a plain function), `fail_once`."""
        raise TypeError(f"{type(self).__name__} has no work, and its `missing` does not say so")


def fail_first(seen: set[str], job_id: str) -> None:
    """Fail the first attempt of each job."""
    if job_id not in seen:
        seen.add(job_id)
        raise RuntimeError("the first attempt fails")


def main(adapter: type[Adapter]) -> None:
    """Be the producer or the worker, as the command line says."""
    role, url, *rest = sys.argv[1:]
    contestant = adapter(url)
    if role == "producer":
        _run(_produce(contestant), contestant)
        return
    end_with_runner()
    options = json.loads(rest[0])
    contestant.is_prioritized = options["prioritized"]
    work = contestant.work(Tally(options["tally"]), options["concurrency"], options["threads"])
    if work is not None:
        _run(work, contestant)


def _run(main: Coroutine[Any, Any, None], adapter: Adapter) -> None:
    # Every asyncio contestant gets the faster loop, whatever starts it.
    if adapter.is_async and importlib.util.find_spec("uvloop"):
        with asyncio.Runner(loop_factory=importlib.import_module("uvloop").new_event_loop) as runner:
            runner.run(main)
    else:
        asyncio.run(main)


def end_with_runner() -> None:
    """End when the runner does, however it ends: its end of stdin closes."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


async def _produce(adapter: Adapter) -> None:
    await _maybe(adapter.open())
    loop = asyncio.get_running_loop()
    versions: dict[str, str] = {}
    metadata = importlib.import_module("importlib.metadata")
    for distribution in adapter.distributions:
        versions[distribution] = metadata.version(distribution)
    hello = {
        "missing": adapter.missing,
        "pending": list(adapter.pending),
        "kept": adapter.kept,
        "versions": {"python": sys.version.split()[0], **versions},
    }
    print(json.dumps(hello), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await _obey(adapter, json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


async def _obey(adapter: Adapter, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command; answer how long it took, and the processor's time that it took."""
    do, count, job = command["do"], command["n"], command.get("job", {})
    if do == "fill":
        do = "bulk" if "bulk" not in adapter.missing else "many" if "many" not in adapter.missing else "one"
    warm_up = count // 10 if command.get("warm", False) else 0
    act = {"one": _one, "many": _many, "bulk": _bulk, "pace": _pace, "idle": _idle, "flows": _flows}[do]
    await act(adapter, warm_up, job, command)
    started, cpu = time.monotonic(), time.process_time()
    await act(adapter, count - warm_up, job, command)
    return {
        "started": started,
        "seconds": time.monotonic() - started,
        "cpu": time.process_time() - cpu,
        "n": count - warm_up,
    }


def _data(job: dict[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {"t": time.monotonic_ns() if job.get("stamp") else 0}
    if job.get("size"):
        data["pad"] = "x" * job["size"]
    return data


def _options(job: dict[str, Any], i: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if job.get("name"):
        options["name"] = job["name"]
    if job.get("priority"):
        options["priority"] = i % 10 + 1
    if job.get("due"):
        options["delay"] = max(0.001, job["due"] - time.time())
    if job.get("attempts"):
        options["attempts"] = job["attempts"]
    return options


async def _one(adapter: Adapter, count: int, job: dict[str, Any], _: dict[str, Any]) -> None:
    if adapter.is_async:
        for i in range(count):
            await adapter.add(_data(job), **_options(job, i))
    else:
        for i in range(count):
            adapter.add(_data(job), **_options(job, i))


async def _many(adapter: Adapter, count: int, job: dict[str, Any], command: dict[str, Any]) -> None:
    if not adapter.is_async:
        # Of those whose client cannot be awaited, only a bound says that it can: it takes all that come as a list.
        await _bulk(adapter, count, job, command)
        return
    for start in range(0, count, AT_ONCE):
        chunk = range(start, min(count, start + AT_ONCE))
        await asyncio.gather(*(adapter.add(_data(job), **_options(job, i)) for i in chunk))


async def _bulk(adapter: Adapter, count: int, job: dict[str, Any], _: dict[str, Any]) -> None:
    # Big data in smaller lists, for everybody: nobody sends 64 MB in one command.
    most = max(1, min(AT_ONCE, 1_000_000 // job["size"])) if job.get("size") else AT_ONCE
    for start in range(0, count, most):
        chunk = range(start, min(count, start + most))
        await _maybe(adapter.add_bulk([_data(job) for _ in chunk], each=[_options(job, i) for i in chunk]))


async def _flows(adapter: Adapter, count: int, _: dict[str, Any], command: dict[str, Any]) -> None:
    for _i in range(count):
        await _maybe(adapter.add_flow(command["children"]))


async def _idle(adapter: Adapter, count: int, _: dict[str, Any], command: dict[str, Any]) -> None:
    """Add one job at a time, with random pauses, so that no polling interval of anybody's meets their beat."""
    rng = random.Random(count)
    for i in range(count):
        await _maybe(adapter.add(_data({"stamp": True}), **_options({}, i)))
        await asyncio.sleep(command["gap"] * rng.uniform(0.5, 1.5))


async def _pace(adapter: Adapter, count: int, _: dict[str, Any], command: dict[str, Any]) -> None:
    """Add at a fixed rate, whether or not the adds before have been answered."""
    rate, started = command["rate"], time.monotonic()
    running: set[asyncio.Task[Any]] = set()
    loop = asyncio.get_running_loop()
    done = 0
    while done < count:
        due = min(count, int((time.monotonic() - started) * rate) + 1)
        while done < due:
            call = adapter.add(_data({"stamp": True}), **_options({}, done))
            done += 1
            if adapter.is_async:
                task = loop.create_task(_await(call))
                running.add(task)
                task.add_done_callback(running.discard)
        await asyncio.sleep(max(0.0, started + done / rate - time.monotonic()))
    if running:
        await asyncio.gather(*running)


async def _await(call: Awaitable[Any]) -> Any:
    return await call


async def _maybe(answer: Any) -> Any:
    return await answer if hasattr(answer, "__await__") else answer
