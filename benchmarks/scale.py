"""`python -m benchmarks scale`: what holds for a few jobs, queues and workers must hold for many.

Each test has a small case and a large one, and compares rates within the same minute. The server's own slow log says
whether a command has kept it from all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, Unpack

from benchmarks.arena import Arena, BenchError, Program, await_count
from benchmarks.cells import Bench, Settings
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.tally import Reader
from toril import Connection, FlowJob, FlowProducer, Queue
from toril.options import JobOptions
from toril.queue import NewJob
from toril.scripts import load

__all__ = ["TESTS", "Line", "scale"]

SCALED: Final = Contestant("toril", "toril", "toril_scale", "own", 0, 0)
LONGEST_MS: Final = 20.0
RATE_KEPT: Final = 0.9
FIRST_JOB_SECONDS: Final = 1.0
SHARE_OF_ONE: Final = 0.67
_LONGEST: Final = "longest command, ms"
_LIMIT: Final = 90.0
_DESCRIPTORS: Final = 20_000


@dataclass(frozen=True)
class Line:
    """One figure beside its bound.

    Attributes:
        is_floor: Whether the figure must be at least the bound; else at most.
        note: What it was made of.
    """

    test: str
    what: str
    measured: float | None
    bound: float
    is_floor: bool
    note: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the bound holds."""
        if self.measured is None:
            return False
        return self.measured >= self.bound if self.is_floor else self.measured <= self.bound

    @property
    def verdict(self) -> str:
        """As it is printed."""
        return "not measured" if self.measured is None else "met" if self.is_met else "falls short"


class Ground:
    """A server for one test, and what all of them do with it.

    Args:
        arena: The server.
        factor: How much of the full size: 1 is the issue's, a test takes a hundredth.
    """

    def __init__(self, arena: Arena, factor: float) -> None:
        self.arena = arena
        self.factor = factor
        arena.client.config_set("slowlog-log-slower-than", 1000)
        arena.client.config_set("slowlog-max-len", 2000)
        arena.client.config_set("maxclients", 15_000)

    def size(self, count: int, least: int = 1) -> int:
        """Return a count at this factor."""
        return max(least, int(count * self.factor))

    def empty(self) -> None:
        """Forget all keys and what was slow."""
        self.arena.empty()
        self.arena.client.slowlog_reset()

    def fill(self, count: int, queue: int = 0, **options: Unpack[JobOptions]) -> None:
        """Add jobs in lists of 1,000."""
        job = NewJob("noop", {"t": 0}, options)

        async def add() -> None:
            async with Queue(f"scale-{queue}", connection=self.arena.url) as target:
                for start in range(0, count, 1000):
                    await target.add_bulk([job] * min(1000, count - start))

        asyncio.run(add())

    @contextlib.contextmanager
    def working(
        self,
        *,
        processes: int = 1,
        queues: int = 1,
        workers: int = 1,
        concurrency: int = 100,
        milliseconds: int = 0,
    ) -> Generator[tuple[list[Program], Path]]:
        """Let worker processes run."""
        tally = self.arena.new_tally()
        options = {
            "queues": queues,
            "workers": workers,
            "concurrency": concurrency,
            "milliseconds": milliseconds,
        }
        programs = [self.arena.worker(SCALED, tally, **options) for _ in range(processes)]
        try:
            yield programs, tally
        finally:
            for program in programs:
                program.end()

    def rate(self, count: int, programs: list[Program], tally: Path, since: float | None = None) -> float:
        """Return jobs/s from the first tenth, or from a moment, until so many have run."""
        reader = Reader(tally)
        deadline = time.monotonic() + _LIMIT
        seen = 0
        if since is None:
            seen = await_count(reader, max(1, count // 10), programs, deadline)
            since = time.monotonic()
        ran = await_count(reader, count, programs, deadline)
        return (ran - seen) / (time.monotonic() - since)

    def longest(self, test: str) -> Line:
        """Say which command has kept the server longest since the last `empty`."""
        entries: Any = self.arena.client.slowlog_get(2000)
        slow = [(entry["duration"] / 1000, _named(entry["command"])) for entry in entries]
        slow = [
            one
            for one in slow
            if one[1].split()[0] not in {"FLUSHALL", "INFO", "CONFIG", "SLOWLOG", "SCRIPT"}
        ]
        worst = max(slow, default=(0.0, "none took 1 ms"))
        return Line(test, _LONGEST, worst[0], LONGEST_MS, False, worst[1])


def _ratio(test: str, large: float, small: float, note: str) -> Line:
    said = f"{large:,.0f} jobs/s, {note} {small:,.0f}"
    return Line(test, "rate, against the small case", large / small, RATE_KEPT, True, said)


def waiting(ground: Ground) -> list[Line]:
    """1,000,000 waiting jobs."""
    count, run = ground.size(1_000_000, 5000), ground.size(40_000, 2000)
    title = f"{count:,} waiting jobs"
    ground.empty()
    ground.fill(run)
    with ground.working() as (programs, tally):
        small = ground.rate(run, programs, tally)
    ground.empty()
    before = ground.arena.used_memory()
    ground.fill(count)
    held = (ground.arena.used_memory() - before) / count
    started = time.monotonic()
    with ground.working() as (programs, tally):
        await_count(Reader(tally), 1, programs, time.monotonic() + _LIMIT)
        first = time.monotonic() - started
        large = ground.rate(run, programs, tally)
    lines = [
        _ratio(title, large, small, f"of {run:,} waiting"),
        ground.longest(title),
        Line(title, "start of the process to first job, s", first, FIRST_JOB_SECONDS, False),
    ]
    return [*lines, _memory(ground, title, held)]


def _memory(ground: Ground, title: str, held: float) -> Line:
    """Compare with the reference client's at a tenth of the number, since it takes longer to add them."""
    bench = Bench(ground.arena, CONTESTANTS["bullmq-node"], Settings(limit=_LIMIT), {})
    count = ground.size(100_000, 5000)

    def memory(fill: Callable[[], Any]) -> float:
        ground.empty()
        before = ground.arena.used_memory()
        fill()
        return (ground.arena.used_memory() - before) / count

    ours, theirs = memory(lambda: ground.fill(count)), None
    with contextlib.suppress(BenchError):
        try:
            bench.start()
            command = {"do": "fill", "n": count}
            theirs = memory(lambda: bench.ask(command, time.monotonic() + _LIMIT))
        finally:
            bench.end()
    note = f"{held:,.0f} bytes; at {count:,} {ours:,.0f}" + (
        f", BullMQ for Node {theirs:,.0f}" if theirs else ""
    )
    return Line(title, "memory per job, against BullMQ", theirs and round(ours / theirs, 2), 1.0, False, note)


def delayed(ground: Ground) -> list[Line]:
    """100,000 delayed jobs that are due at once."""
    counts = ground.size(5_000, 500), ground.size(100_000, 1000)
    rates: list[float] = []
    for count in counts:
        ground.empty()
        with ground.working() as (programs, tally):
            ground.fill(1)
            await_count(Reader(tally), 1, programs, time.monotonic() + _LIMIT)
            due_ms = int(time.time() * 1000) + 2000 + count // 5
            ground.fill(count, timestamp=due_ms - 3_600_000, delay=3600)
            time.sleep(max(0.0, due_ms / 1000 - time.time()))
            rates.append(ground.rate(count + 1, programs, tally, time.monotonic()))
    title = f"{counts[1]:,} delayed jobs due at once"
    return [_ratio(title, rates[1], rates[0], f"of {counts[0]:,}"), ground.longest(title)]


def children(ground: Ground) -> list[Line]:
    """10,000 children of one parent."""
    count = ground.size(10_000, 200)
    rates: list[float] = []
    for of_each in (100, count):
        ground.empty()

        async def add(of_each: int = of_each) -> None:
            leaves = [FlowJob("noop", "scale-0", {"t": 0}) for _ in range(of_each)]
            async with FlowProducer(connection=ground.arena.url) as flows:
                for _ in range(count // of_each):
                    await flows.add(FlowJob("parent", "scale-0", {"t": 0}, children=leaves))

        asyncio.run(add())
        with ground.working() as (programs, tally):
            rates.append(ground.rate(count + count // of_each, programs, tally))
    title = f"{count:,} children of one parent"
    return [_ratio(title, rates[1], rates[0], "of parents with 100"), ground.longest(title)]


def queues(ground: Ground) -> list[Line]:
    """2,000 queues in one process, against a hundredth of them with the same adds: ten jobs to each in turn."""
    many, jobs, each = ground.size(2_000, 20), ground.size(20_000, 400), 10
    few = max(1, many // 100)
    rates: list[float] = []

    async def add(count: int, jobs_of_each: int, turns: int = 1) -> None:
        async with Connection(ground.arena.url) as connection:
            targets = [Queue(f"scale-{i}", connection=connection) for i in range(count)]
            for _ in range(turns):
                for target in targets:
                    await target.add_bulk([NewJob("noop", {"t": 0}) for _ in range(jobs_of_each)])

    for count in (few, many):
        ground.empty()
        asyncio.run(add(count, 1))
        with ground.working(queues=count, concurrency=10) as (programs, tally):
            # All are there before anything is measured.
            await_count(Reader(tally), count, programs, time.monotonic() + _LIMIT)
            turns = max(1, jobs // (count * each))
            started = time.monotonic()
            asyncio.run(add(count, each, turns))
            ran = turns * count * each
            await_count(Reader(tally), count + ran, programs, time.monotonic() + _LIMIT)
            rates.append(ran / (time.monotonic() - started))
    title = f"{many:,} queues in one process"
    note = f"of {few} queues with as many adds of {each} jobs"
    return [_ratio(title, rates[1], rates[0], note), ground.longest(title)]


def workers(ground: Ground) -> list[Line]:
    """200 workers on one queue, in two processes, against two."""
    many, jobs = ground.size(200, 4), ground.size(30_000, 1000)
    rates: list[float] = []
    for each in (1, many // 2):
        ground.empty()
        ground.fill(jobs)
        with ground.working(processes=2, workers=each, concurrency=10) as (programs, tally):
            rates.append(ground.rate(jobs, programs, tally))
    title = f"{many} workers on one queue"
    return [_ratio(title, rates[1], rates[0], "of 2 workers"), ground.longest(title)]


def fairness(ground: Ground) -> list[Line]:
    """Several worker processes share a short queue."""
    processes, jobs = 3, 150
    ground.empty()
    with ground.working(processes=processes, milliseconds=20) as (programs, tally):
        # Until each has had a job, it may still be starting.
        reader, warm = Reader(tally), 0
        deadline = time.monotonic() + _LIMIT
        while len(reader.by_process()) < processes:
            if time.monotonic() > deadline:
                raise BenchError("a process had no job at all, however many came")
            ground.fill(30)
            warm = await_count(reader, warm + 30, programs, deadline)
        before = reader.by_process()
        ground.fill(jobs)
        await_count(reader, warm + jobs, programs, deadline)
        taken = sorted((now - before.get(who, 0) for who, now in reader.by_process().items()), reverse=True)
    title = f"{processes} processes share {jobs} jobs"
    note = " + ".join(map(str, taken))
    return [Line(title, "largest share of one process", taken[0] / sum(taken), SHARE_OF_ONE, False, note)]


TESTS: Final[dict[str, Callable[[Ground], list[Line]]]] = {
    "waiting": waiting,
    "delayed": delayed,
    "children": children,
    "queues": queues,
    "workers": workers,
    "fairness": fairness,
}


def scale(names: list[str], factor: float, rounds: int = 1, *, say: Any = print) -> list[Line]:
    """Run tests so many times each; who fails is a line without a figure.

    Of each figure the median is kept, and of the longest commands the longest: no run of them may be long.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(_DESCRIPTORS, hard)), hard))
    lines: list[Line] = []
    for name in names:
        found: dict[str, list[Line]] = {}
        for _ in range(rounds):
            for line in _once(name, factor):
                say(_row(line), flush=True)
                found.setdefault(line.what, []).append(line)
        lines += [_of_rounds(same) for same in found.values()]
    return lines


def _once(name: str, factor: float) -> list[Line]:
    with Arena() as arena:
        try:
            return TESTS[name](Ground(arena, factor))
        except Exception as error:
            return [Line(name, str(TESTS[name].__doc__), None, 0, True, f"{type(error).__name__}: {error}")]


def _of_rounds(lines: list[Line]) -> Line:
    """Return the line that stands for what a test has measured again and again."""
    by_figure = sorted(lines, key=lambda line: -1 if line.measured is None else line.measured)
    if by_figure[0].measured is None:
        return by_figure[0]
    return by_figure[-1 if lines[0].what == _LONGEST else len(lines) // 2]


def table(lines: list[Line]) -> str:
    """Return all lines as Markdown."""
    return "\n".join(
        ["| test | what | bound | measured | | |", "|---|---|--:|--:|---|---|", *map(_row, lines)]
    )


def _row(line: Line) -> str:
    measured = "–" if line.measured is None else f"{line.measured:.2f}"
    bound = f"at {'least' if line.is_floor else 'most'} {line.bound:g}"
    return f"| {line.test} | {line.what} | {bound} | {measured} | {line.verdict} | {line.note} |"


def _named(command: Any) -> str:
    """Return a command with the name of its script."""
    words = (command.decode(errors="replace") if isinstance(command, bytes) else str(command)).split()
    if words[0].upper() in {"EVALSHA", "EVAL"}:
        return _script_names().get(words[1], words[0])
    return " ".join(words[:2])


def _script_names() -> dict[str, str]:
    files = resources.files("toril.scripts").iterdir()
    names = [file.name.removesuffix(".lua") for file in files if file.name.endswith(".lua")]
    return {load(name).sha: name for name in names}
