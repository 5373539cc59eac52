"""The frame of the state machine: two modelled queues beside real ones, and what must be true after each move."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, TypeVar

import redis
from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.differential.bench import START_MS, BenchClock
from toril import Connection, FlowProducer, Job, Queue, Worker
from toril._loops.running import Running
from toril.errors import ConnectionLostError, JobNotFoundError, JobNotInStateError, LockLostError
from toril.fsck import Keyspace, violations
from toril.scripts import FinishedJob

from .compare import read, seen, told
from .ledger import Ledger
from .model import Model, ModelJob
from .parts import MODES
from .proxy import Loss, Proxy

__all__ = ["LOCK_MS", "Bench", "Frame", "Place"]

T = TypeVar("T")
LOCK_MS: Final = 3_600_000
_OURS_NO_MORE: Final = (LockLostError, JobNotFoundError, JobNotInStateError)
_UNTIMED: Final = {dedup_id for dedup_id, mode in MODES.items() if not mode.lasts}


class Bench:
    """A server, a queue on it whose clock is turned, and a proxy between them."""

    def __init__(self, runner: asyncio.Runner, url: str, prefix: str, *, has_faults: bool) -> None:
        self.runner = runner
        self.url = url
        self.prefix = prefix
        self.has_faults = has_faults
        self.client = redis.Redis.from_url(url, decode_responses=True, encoding_errors="backslashreplace")
        address = self.client.connection_pool.connection_kwargs
        self.proxy = Proxy(address["host"], address["port"])
        port = runner.run(self.proxy.start())
        self.connection = Connection(f"redis://127.0.0.1:{port}")
        self.clock = BenchClock()
        self.connection.clock = self.clock
        self.steps = self.moves = self.examples = 0
        self.look: Callable[[Queue], Awaitable[None]] | None = None

    def close(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.run(self.proxy.stop())
        self.client.close()


class Place:
    """A queue, its model, and a worker's view of it.

    Attributes:
        claims: Job -> the job as the worker that holds its lock has it.
        losers: Jobs as workers have them whose locks have run out.
        ends: What the worker has decided, and not yet written.
    """

    def __init__(self, bench: Bench, name: str, prefix: str, queues: list[Model]) -> None:
        self.queue = Queue(name, connection=bench.connection, prefix=prefix)
        self.base = self.queue.keys.base
        self.model = Model(START_MS, queues)
        self.ledger = Ledger()
        self.claims: dict[str, Job[Any]] = {}
        self.losers: list[Job[Any]] = []
        self.ends: list[FinishedJob] = []
        self.before: dict[str, Any] = {}
        self.running = bench.runner.run(self._new_running())
        # So that no generated id is in both queues.
        bench.client.set(f"{self.base}id", 1000 * len(queues))

    async def _new_running(self) -> Running:
        """The part of a worker that decides what becomes of a failed attempt."""

        async def nothing(job: Job[Any]) -> None: ...

        settings = Worker(self.queue, nothing, lock_duration=LOCK_MS / 1000)._settings
        return Running(
            self.queue, settings, None, lambda _, end: self.ends.append(end), lambda _: None, lambda _: None,
            lambda *_: None,
        )  # fmt: skip


class Frame(RuleBasedStateMachine):
    """Each rule makes a move on the model and on the queue. After each, both must hold the same."""

    bench: ClassVar[Bench]
    _numbers: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        bench = self.bench
        self.prefix = f"{bench.prefix}:{next(self._numbers)}"
        bench.clock.at_ms = START_MS
        queues: list[Model] = []
        self.near = Place(bench, "q", self.prefix, queues)
        self.far = Place(bench, "r", f"{self.prefix}:far", queues)
        self.here = self.near
        self.flows = FlowProducer(connection=bench.connection, prefix=self.prefix)
        self.ids = itertools.count(1)
        bench.examples += 1

    @property
    def queue(self) -> Queue:
        return self.here.queue

    @property
    def model(self) -> Model:
        return self.here.model

    @property
    def base(self) -> str:
        return self.here.base

    @property
    def ledger(self) -> Ledger:
        return self.here.ledger

    # --- calls, and what goes wrong with them ---

    def do(self, call: Callable[[], Awaitable[T]], fault: str = "", *, may_repeat: bool = True) -> T | None:
        """Make a call, and again if its answer is lost, as its caller would.

        A refusal of the second try says that the first was heard: None.
        """
        bench = self.bench
        repeats = bench.has_faults and fault == "repeat" and may_repeat
        if bench.has_faults:
            if fault == "forgotten":
                bench.client.script_flush()
            elif fault in ("question", "answer"):
                loss: Loss = "question" if fault == "question" else "answer"
                bench.proxy.loses = loss
        try:
            answer = self.run_now(call)
        except ConnectionLostError:
            with suppress(*_OURS_NO_MORE):
                return self.run_now(call)
            return None
        if repeats:
            with suppress(*_OURS_NO_MORE):
                self.run_now(call)
        return answer

    def run_now(self, call: Callable[[], Awaitable[T]]) -> T:
        async def within() -> T:
            async with asyncio.timeout(30):
                return await call()

        return self.bench.runner.run(within())

    def pick(self, index: int, *states: str) -> ModelJob | None:
        found = [job for job in self.model.jobs.values() if not states or job.state in states]
        return found[index % len(found)] if found else None

    def held(self, index: int) -> tuple[ModelJob, Job[Any]] | None:
        """An active job whose lock a worker holds."""
        found = [job for job in self.model.jobs.values() if job.state == "active" and job.token]
        if not found:
            return None
        job = found[index % len(found)]
        return job, self.here.claims[job.id]

    def real(self, job: ModelJob) -> Job[Any]:
        return self.bench.runner.run(self.queue.get_job_or_raise(job.id))

    def space(self) -> Keyspace:
        """All keys of both queues."""
        return read(self.bench.client, f"{self.prefix}:")

    # --- what must be true ---

    @invariant()
    def nothing_is_wrong(self) -> None:
        # A loss that nothing has met is not left for the next move.
        self.bench.proxy.loses = None
        self.bench.steps += 1
        has_moved = False
        space = self.space()
        for place in (self.near, self.far):
            state = told(place.model)
            self.judge(place, space, state)
            has_moved = has_moved or state != place.before
            place.before = copy.deepcopy(state)
        self.bench.moves += has_moved

    def judge(self, place: Place, space: Keyspace, state: dict[str, Any], *, at_rest: bool = False) -> None:
        own = {key: entry for key, entry in space.items() if key.startswith(place.base)}
        found = violations(space, place.base, place.model.now_ms, at_rest=at_rest)
        assert [str(one) for one in found] == []
        place.ledger.judge_deduplication(own, place.base, _UNTIMED)
        place.ledger.judge_metrics(own, place.base)
        assert seen(own, place.base) == state

    # --- the end of an example ---

    def teardown(self) -> None:
        """A healthy worker ends everything that there is; then nothing is locked, and nothing stays behind."""
        self.bench.proxy.loses = None
        try:
            self._look()
            for place in (self.near, self.far):
                self.here = place
                self.open_for_good()
            for _ in range(60):
                for place in (self.near, self.far):
                    self.here = place
                    self.work()
                if all(job.state in ("completed", "failed") for job in self.all_jobs()):
                    break
            self._judge_the_end()
        finally:
            for key in self.bench.client.scan_iter(f"{self.prefix}:*", count=1000):
                self.bench.client.delete(key)
            for place in (self.near, self.far):
                place.running.close()

    def open_for_good(self) -> None:
        """Let go of all that keeps jobs from running, and of job schedulers."""
        raise TypeError("the machine with the moves has it")

    def work(self) -> None:
        """Run what can be run here."""
        raise TypeError("the machine with the moves has it")

    def at_last(self) -> None:
        """Free what only time frees, and check stalled jobs once more."""
        raise TypeError("the machine with the moves has it")

    def all_jobs(self) -> list[ModelJob]:
        return [job for queue in self.model.queues for job in queue.jobs.values()]

    def _look(self) -> None:
        if self.bench.look is not None:
            for place in (self.near, self.far):
                self.run_now(lambda place=place: self.bench.look(place.queue))  # type: ignore[misc]

    def _judge_the_end(self) -> None:
        left = {job.id: job.state for job in self.all_jobs() if job.state not in ("completed", "failed")}
        assert left == {}
        for place in (self.near, self.far):
            self.here = place
            self.at_last()
            space = self.space()
            self.judge(place, space, told(place.model), at_rest=True)
            kinds = {key.removeprefix(place.base).partition(":")[0] for key in space}
            assert not kinds & {"de", "dn"}, "I21: a deduplication id is left"
        self._look()
        for place in (self.near, self.far):
            self.run_now(place.queue.obliterate)
        assert self.space() == {}, "I10"
