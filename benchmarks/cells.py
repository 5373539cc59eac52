"""One measurement: one contestant, one workload, one round.

Whatever is measured is counted: how many jobs ran, and that the server holds none that did not. A fast wrong run is an
error, not a figure.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.arena import Arena, BenchError, Program, Reading, await_count
from benchmarks.contestants import Contestant
from benchmarks.measures import Sample, percentile
from benchmarks.tally import Reader
from benchmarks.workloads import Workload

__all__ = ["Bench", "Settings"]

FLOW_CHILDREN: Final = 100
MEMORY_JOBS: Final = 10_000
READY_JOBS: Final = 20
_END_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        seconds: About how long one measurement lasts; the number of jobs follows from it.
        concurrency: Jobs that one worker runs at once, the same for everybody who can choose.
        limit: Seconds after which a contestant hangs.
    """

    seconds: float = 1.0
    concurrency: int = 100
    limit: float = 60.0


@dataclass
class Bench:
    """One contestant in one round: its producer lives through all workloads."""

    arena: Arena
    contestant: Contestant
    settings: Settings
    rates: dict[tuple[str, str], float]
    """What was found before, (contestant, workload) -> jobs/s: how many jobs make a second."""
    hello: dict[str, Any] = field(default_factory=dict[str, Any])
    _producer: Program | None = None

    def start(self) -> None:
        """Start the producer, and let it say what it can do."""
        if (absence := self.contestant.absence()) != "":
            raise BenchError(absence)
        self._producer = self.arena.producer(self.contestant)
        self.hello = self._producer.hear(time.monotonic() + self.settings.limit)

    def end(self) -> None:
        """End the producer."""
        if self._producer is not None:
            self._producer.end()
            self._producer = None

    def lacks(self, workload: Workload) -> str:
        """Return what the contestant says instead of a figure, or nothing."""
        for need in (workload.name, *workload.needs):
            if need in self.hello["missing"]:
                return str(self.hello["missing"][need])
        return ""

    def measure(self, workload: Workload) -> Sample:
        """Measure once.

        Raises:
            BenchError: It hung, ended, or did something else than it should have.
        """
        self.arena.empty()
        if self._producer is None:
            self.start()
        act = {
            "add": self._add,
            "drain": self._drain,
            "round": self._round,
            "idle": self._idle,
            "paced": self._paced,
            "delayed": self._delayed,
            "flows": self._flows,
            "memory": self._memory,
        }[workload.kind]
        try:
            sample = act(workload, time.monotonic() + self.settings.limit)
        except BenchError:
            # Whatever it is busy with, the next workload gets a fresh one.
            self.end()
            raise
        if "rate" in sample:
            self.rates[self.contestant.name, workload.name] = sample["rate"]
        return sample

    # --- the kinds --------------------------------------------------------------------------

    def _add(self, workload: Workload, deadline: float) -> Sample:
        count = self._count(workload, self.contestant.add_rate)
        before = self.arena.read()
        answer = self.ask({"do": workload.how, "n": count, "job": workload.job, "warm": True}, deadline)
        after = self.arena.read()
        self._expect_held(count)
        return {
            "n": answer["n"],
            "rate": answer["n"] / answer["seconds"],
            "producer_us": answer["cpu"] / answer["n"] * 1e6,
            **_per_job(before, after, count),
        }

    def _drain(self, workload: Workload, deadline: float) -> Sample:
        count = self._count(workload, self.contestant.run_rate)
        self.ask({"do": "fill", "n": count, "job": workload.job}, deadline)
        self._expect_held(count)
        with self._working(workload) as (workers, tally):
            return self._watch(workload, count, 0, workers, tally, deadline)

    def _round(self, workload: Workload, deadline: float) -> Sample:
        count = self._count(workload, self.contestant.run_rate)
        with self._working(workload) as (workers, tally):
            ready = self._await_ready(workers, tally, deadline)
            self._tell({"do": "fill", "n": count, "job": workload.job})
            sample = self._watch(workload, count, ready, workers, tally, deadline)
            answer = self._hear(deadline)
        return {**sample, "producer_us": answer["cpu"] / answer["n"] * 1e6}

    def _flows(self, workload: Workload, deadline: float) -> Sample:
        flows = max(2, self._count(workload, self.contestant.run_rate) // (FLOW_CHILDREN + 1))
        with self._working(workload) as (workers, tally):
            ready = self._await_ready(workers, tally, deadline)
            self._tell({"do": "flows", "n": flows, "children": FLOW_CHILDREN})
            count = flows * (FLOW_CHILDREN + 1)
            sample = self._watch(workload, count, ready, workers, tally, deadline)
            self._hear(deadline)
        return sample

    def _idle(self, workload: Workload, deadline: float) -> Sample:
        gap = self.contestant.idle_gap
        count = max(60, int(self.settings.seconds * workload.share / gap))
        return self._latency(workload, {"do": "idle", "n": count, "gap": gap}, deadline)

    def _paced(self, workload: Workload, deadline: float) -> Sample:
        full = self.rates.get((self.contestant.name, "round"), self.contestant.run_rate / 2)
        rate = workload.rate or full / 2
        count = max(60, int(self.settings.seconds * workload.share * rate))
        return self._latency(workload, {"do": "pace", "n": count, "rate": rate}, deadline)

    def _latency(self, workload: Workload, command: dict[str, Any], deadline: float) -> Sample:
        count = command["n"]
        with self._working(workload) as (workers, tally):
            ready = self._await_ready(workers, tally, deadline)
            self._tell(command)
            sample = self._watch(workload, count, ready, workers, tally, deadline)
            self._hear(deadline)
            # Jobs that say who is ready carry no time, so what is noted is this workload's alone.
            delays = Reader(tally).delays_ms(skip=count // 10)
        if len(delays) != count - count // 10:
            raise BenchError(f"{len(delays)} delays of {count} jobs were noted")
        found = {name: percentile(delays, share) for name, share in _PERCENTILES.items()}
        # The jobs came at a given rate, so theirs says nothing about the contestant.
        return {**{key: value for key, value in sample.items() if key != "rate"}, **found}

    def _delayed(self, workload: Workload, deadline: float) -> Sample:
        count = self._count(workload, self.contestant.run_rate)
        adding = 2 * count / self.rates.get((self.contestant.name, "add-bulk"), self.contestant.add_rate)
        with self._working(workload) as (workers, tally):
            ready = self._await_ready(workers, tally, deadline)
            due = time.time() + adding + 0.5
            self.ask({"do": "fill", "n": count, "job": {"due": due}}, deadline)
            if (wait := due - time.time()) < 0:
                raise BenchError("adding took longer than the delay, so the jobs were not due together")
            time.sleep(wait)
            return self._watch(workload, count, ready, workers, tally, deadline, warm_up=0)

    def _memory(self, workload: Workload, deadline: float) -> Sample:
        # Scripts, connections and the library's own keys are there before; only jobs come.
        self.ask({"do": "fill", "n": 10}, deadline)
        self.arena.empty()
        before = self.arena.used_memory()
        self.ask({"do": "fill", "n": MEMORY_JOBS}, deadline)
        used = self.arena.used_memory() - before
        self._expect_held(MEMORY_JOBS)
        return {"n": MEMORY_JOBS, "bytes": used / MEMORY_JOBS}

    # --- their parts ------------------------------------------------------------------------

    def _watch(
        self,
        workload: Workload,
        count: int,
        already: int,
        workers: list[Program],
        tally: Path,
        deadline: float,
        warm_up: int | None = None,
    ) -> Sample:
        """Look on from the moment when the warm-up has run until the server holds no job."""
        reader = Reader(tally)
        runs = count * workload.runs_per_job
        if warm_up is None:
            warm_up = runs // 10
        seen = await_count(reader, already + warm_up, workers, deadline) if warm_up else already
        before = self.arena.read(workers)
        await_count(reader, already + runs, workers, deadline)
        self._await_empty()
        after = self.arena.read(workers)
        if (ran := reader.count()) != already + runs:
            raise BenchError(f"{ran - already} runs of {count} jobs, where {runs} were expected")
        self._expect_kept(already + count)
        measured = (already + runs - seen) / workload.runs_per_job
        if measured <= 0:
            raise BenchError(f"all {count} jobs had run before the measuring began")
        by_process = sorted(reader.by_process().values(), reverse=True)
        return {
            "n": measured,
            "rate": measured / (after.at - before.at),
            "most_of_one": by_process[0] / sum(by_process),
            **_per_job(before, after, measured),
            "worker_us": (after.workers - before.workers) / measured * 1e6,
        }

    def _await_empty(self) -> None:
        end = time.monotonic() + _END_SECONDS
        while held := self.arena.held(self.hello["pending"]):
            if time.monotonic() > end:
                raise BenchError(f"all jobs have run, and the server still holds {held}")
            time.sleep(0.001)

    def _await_ready(self, workers: list[Program], tally: Path, deadline: float) -> int:
        """Let a few jobs through, so that all connections are made; return how many."""
        self.ask({"do": "one", "n": READY_JOBS}, deadline)
        ran = await_count(Reader(tally), READY_JOBS, workers, deadline)
        self._await_empty()
        return ran

    @contextlib.contextmanager
    def _working(self, workload: Workload) -> Generator[tuple[list[Program], Path]]:
        tally = self.arena.new_tally()
        workers = [
            self.arena.worker(
                self.contestant,
                tally,
                concurrency=self.settings.concurrency,
                threads=workload.threads,
                prioritized="priority" in workload.job,
            )
            for _ in range(workload.workers)
        ]
        try:
            yield workers, tally
        finally:
            for worker in workers:
                worker.end()

    def _count(self, workload: Workload, guess: float) -> int:
        # Jobs that are due together may have run before anybody looked; such a rate would fill the server for minutes.
        rate = min(self.rates.get((self.contestant.name, workload.name), guess), 20 * guess)
        return max(100, int(rate * self.settings.seconds * workload.share))

    def _expect_held(self, count: int) -> None:
        if (held := self.arena.held(self.hello["pending"])) != count:
            raise BenchError(f"{count} jobs were added, and the server holds {held}")

    def _expect_kept(self, count: int) -> None:
        if self.hello["kept"] and (kept := self.arena.held([self.hello["kept"]])) != count:
            raise BenchError(f"{count} jobs have run, and {kept} are completed")

    def ask(self, command: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Let the producer do something, and wait until it has."""
        self._tell(command)
        return self._hear(deadline)

    def _tell(self, command: dict[str, Any]) -> None:
        assert self._producer is not None
        self._producer.tell(command)

    def _hear(self, deadline: float) -> dict[str, Any]:
        assert self._producer is not None
        return self._producer.hear(deadline)


_PERCENTILES: Final = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def _per_job(before: Reading, after: Reading, count: float) -> Sample:
    return {
        "server_us": (after.server - before.server) / count * 1e6,
        "commands": (after.commands - before.commands) / count,
    }
