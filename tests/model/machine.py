"""The moves that are made on a model and on a real queue, and what is compared after each of them."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.differential.bench import START_MS, BenchClock
from toril import (
    Connection,
    Deduplication,
    FlowJob,
    FlowProducer,
    Job,
    JobOptions,
    KeepJobs,
    Parent,
    Queue,
    Worker,
)
from toril._loops.claims import Claim, Settings
from toril._loops.running import Running
from toril.errors import (
    ConnectionLostError,
    JobNotFoundError,
    JobNotInStateError,
    LockLostError,
    TransitionError,
    UnrecoverableError,
    refusal,
)
from toril.fsck import Entry, Keyspace, violations
from toril.job_scheduler import plan_next_run
from toril.scripts import Fetch, FinishedJob

from .model import EVERY_MS, Model, ModelJob, Policy
from .proxy import Loss, Proxy

__all__ = ["Bench", "QueueMachine", "read"]

T = TypeVar("T")
_DUMP: Final = (Path(__file__).parents[1] / "differential" / "dump.lua").read_text()
_LOCK_MS: Final = 3_600_000
_POLICIES: Final[dict[Policy, JobOptions]] = {
    "": {},
    "fail": {"fail_parent_on_failure": True},
    "continue": {"continue_parent_on_failure": True},
    "ignore": {"ignore_dependency_on_failure": True},
    "remove": {"remove_dependency_on_failure": True},
}
_OURS_NO_MORE: Final = (LockLostError, JobNotFoundError, JobNotInStateError)


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
        self.finish: Callable[[Queue], Awaitable[None]] | None = None

    def close(self) -> None:
        self.runner.run(self.connection.close())
        self.runner.run(self.proxy.stop())
        self.client.close()


def read(client: redis.Redis, base: str) -> dict[str, Entry]:
    """Return all keys that begin with `base`, of one moment."""
    raw: Any = client.eval(_DUMP, 0, base, "0")
    space: dict[str, Entry] = {}
    for suffix, kind, ttl, content in raw:
        if suffix.startswith("toril:"):
            # Receipts of adds, which expire by themselves.
            continue
        match kind:
            case "hash":
                content = dict(zip(content[::2], content[1::2], strict=True))
            case "zset":
                content = dict(zip(content[::2], map(float, content[1::2]), strict=True))
            case "set":
                content = set(content)
            case "stream":
                content = [dict(zip(parts[::2], parts[1::2], strict=True)) for _, parts in content]
            case _:
                pass
        space[base + suffix] = Entry(kind, ttl, content)
    return space


FAULT = st.sampled_from(["", "", "", "question", "answer", "forgotten", "repeat"])
"""What goes wrong with a call: its question or its answer is lost, the server has forgotten all scripts, or it comes
twice. A machine without faults takes no notice."""
INDEX = st.integers(0, 20)


class QueueMachine(RuleBasedStateMachine):
    """Each rule makes a move on the model and on the queue. After each, both must hold the same."""

    bench: ClassVar[Bench]
    _numbers: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        bench = self.bench
        self.prefix = f"{bench.prefix}:{next(self._numbers)}"
        self.queue = Queue("q", connection=bench.connection, prefix=self.prefix)
        self.base = self.queue.keys.base
        self.flows = FlowProducer(connection=bench.connection, prefix=self.prefix)
        self.model = Model(START_MS)
        bench.clock.at_ms = START_MS
        self.ids = itertools.count(1)
        self.claims: dict[str, Job[Any]] = {}
        self.losers: list[Job[Any]] = []

        async def nothing(job: Job[Any]) -> None: ...

        self.ends: list[FinishedJob] = []
        settings = Worker(self.queue, nothing, lock_duration=_LOCK_MS / 1000)._settings
        self.running = self._run(lambda: self._new_running(settings))
        self.before: dict[str, Any] = {}
        bench.examples += 1

    async def _new_running(self, settings: Settings) -> Running:
        """The part of a worker that decides what becomes of a failed attempt."""
        return Running(
            self.queue, settings, None, lambda _, end: self.ends.append(end), lambda _: None, lambda _: None,
            lambda *_: None,
        )  # fmt: skip

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
            answer = self._run(call)
        except ConnectionLostError:
            with suppress(*_OURS_NO_MORE):
                return self._run(call)
            return None
        if repeats:
            with suppress(*_OURS_NO_MORE):
                self._run(call)
        return answer

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
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
        return job, self.claims[job.id]

    def real(self, job: ModelJob) -> Job[Any]:
        return self.bench.runner.run(self.queue.get_job_or_raise(job.id))

    # --- adding ---

    @initialize(
        policies=st.lists(st.sampled_from(list(_POLICIES)), min_size=1, max_size=2), most=st.integers(0, 3)
    )
    def begin(self, policies: list[Policy], most: int) -> None:
        """Not with an empty queue, where most moves find nothing to move."""
        self.add_flow(policies, 0, None, "")
        for delay, priority, attempts in ((0, 0, 2), (0, 1, 1), (5, 0, 1), (0, 0, 3)):
            self.add(delay, priority, False, attempts, 0, None, False, "")
        self.fetch(most, "")

    @rule(
        delay=st.sampled_from([0, 0, 5, 1000]), priority=st.sampled_from([0, 0, 1, 2]), lifo=st.booleans(),
        attempts=st.integers(1, 3), backoff=st.sampled_from([0, 500]), keep=st.sampled_from([None, None, 0, 1, 2]),
        is_named=st.booleans(), fault=FAULT,
    )  # fmt: skip
    def add(
        self, delay: int, priority: int, lifo: bool, attempts: int, backoff: int, keep: int | None,
        is_named: bool, fault: str,
    ) -> None:  # fmt: skip
        options: JobOptions = {
            "delay": delay / 1000, "priority": priority, "lifo": lifo, "attempts": attempts, "backoff": backoff / 1000,
        }  # fmt: skip
        if is_named:
            options["job_id"] = f"j{next(self.ids)}"
        if keep is not None:
            options["remove_on_complete"] = options["remove_on_fail"] = KeepJobs(count=keep)
        job = self.do(lambda: self.queue.add("job", {}, **options), fault, may_repeat=is_named)
        assert job is not None
        self.model.add(
            ModelJob(job.id, priority=priority, lifo=lifo, attempts=attempts, backoff_ms=backoff, keep=keep),
            delay,
        )

    @rule(replaces=st.booleans(), delay=st.sampled_from([0, 1000]), fault=FAULT)
    def add_deduplicated(self, replaces: bool, delay: int, fault: str) -> None:
        dedup = "replaced" if replaces else "simple"
        options: JobOptions = {
            "job_id": f"j{next(self.ids)}", "delay": delay / 1000,
            "deduplication": Deduplication(dedup, replace=replaces),
        }  # fmt: skip
        # Under an id that exists, a repeated add is the same job's; only one that was replaced stays away.
        job = self.do(lambda: self.queue.add("job", {}, **options), fault, may_repeat=False)
        assert job is not None
        stands = self.model.add(ModelJob(options["job_id"], dedup=dedup), delay, replaces=replaces)
        assert job.id == stands

    @rule(index=INDEX, fault=FAULT)
    def add_again(self, index: int, fault: str) -> None:
        job = self.pick(index)
        if job is not None and job.id.startswith("j") and not job.parent:
            self.do(lambda: self.queue.add("job", {"other": 1}, job_id=job.id), fault)

    @rule(
        policies=st.lists(st.sampled_from(list(_POLICIES)), min_size=1, max_size=3),
        priority=st.sampled_from([0, 1]),
        keep=st.sampled_from([None, None, 0]),
        fault=FAULT,
    )
    def add_flow(self, policies: list[Policy], priority: int, keep: int | None, fault: str) -> None:
        parent = f"p{next(self.ids)}"
        kept: JobOptions = {} if keep is None else {"remove_on_complete": True, "remove_on_fail": True}
        children = [
            FlowJob("job", "q", None, {**_POLICIES[policy], **kept, "job_id": f"{parent}-{number}"})
            for number, policy in enumerate(policies)
        ]
        tree = FlowJob("job", "q", None, {"job_id": parent, "priority": priority}, children)
        self.do(lambda: self.flows.add(tree), fault)
        self.model.add_flow(
            ModelJob(parent, priority=priority),
            [ModelJob(f"{parent}-{n}", policy=policy, keep=keep) for n, policy in enumerate(policies)],
        )

    # --- running ---

    @rule(most=st.integers(1, 3), fault=FAULT)
    def fetch(self, most: int, fault: str) -> None:
        token = f"t{next(self.ids)}"
        fetch = Fetch(most, token, _LOCK_MS)
        is_second = False

        async def call() -> list[tuple[str, dict[str, str]]]:
            nonlocal is_second
            if is_second:
                # What a worker does after a lost answer: the jobs that hold its token are its own. There may be none,
                # and then it fetches as if nothing had been.
                found = await self.queue.scripts.adopt_jobs(token)
                if found:
                    return found
            is_second = True
            return (await self.queue.scripts.move_to_active(self.queue.clock.now_ms(), fetch)).jobs

        taken = self.do(call, fault, may_repeat=False)
        expected = self.model.fetch(token, most)
        assert taken is not None
        assert sorted(job_id for job_id, _ in taken) == sorted(job.id for job in expected)
        for job in expected:
            self.claims[job.id] = real = Job(self.queue, job.id, self.real(job)._record, token)
            if job.scheduler:
                self.do(lambda real=real: plan_next_run(self.queue, real))  # type: ignore[misc]
                self.model.plan_next_run(job)
            if job.is_doomed:
                self._fail(job, real, UnrecoverableError(real.deferred_failure or ""), "")

    @rule(most=st.integers(1, 3), fate=st.sampled_from(["complete", "complete", "fail", "hold"]), fault=FAULT)
    def run(self, most: int, fate: str, fault: str) -> None:
        """Most moves need a job that has run, or runs."""
        self.fetch(most, fault)
        if fate == "complete":
            self.complete(0, fault)
        elif fate == "fail":
            self.fail(0, False, fault)

    @rule(index=INDEX, fault=FAULT)
    def complete(self, index: int, fault: str) -> None:
        held = self.held(index)
        if held is None or not held[0].can_complete:
            return
        job, real = held
        keep = real.options.keep_completed
        end = FinishedJob(
            job.id, job.token, "completed", '"done"', keep=keep or FinishedJob._field_defaults["keep"]
        )
        self._finish(end, fault)
        self.model.complete(job)

    @rule(index=INDEX, is_for_good=st.booleans(), fault=FAULT)
    def fail(self, index: int, is_for_good: bool, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            error = UnrecoverableError("no") if is_for_good else ValueError("no")
            self._fail(*held, error, fault)

    def _fail(self, job: ModelJob, real: Job[Any], error: Exception, fault: str) -> None:
        if self.bench.has_faults and fault in ("question", "answer"):
            self.bench.proxy.loses = "question" if fault == "question" else "answer"
        self._run(lambda: self.running.fail(Claim(real, real.token), error))
        for end in self.ends:
            self._finish(end, fault)
        self.ends.clear()
        self.model.fail(job, for_good=isinstance(error, UnrecoverableError))

    def _finish(self, end: FinishedJob, fault: str) -> None:
        async def call() -> None:
            (code,), _ = await self.queue.scripts.move_to_finished(
                self.queue.clock.now_ms(), [end], Fetch(0, end.token, _LOCK_MS)
            )
            if code < 0:
                raise refusal(code, end.job_id)

        self.do(call, fault)

    @rule(index=INDEX, fault=FAULT)
    def give_back(self, index: int, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            self.do(held[1].move_to_wait, fault)
            self.model.give_back(held[0])

    @rule(index=INDEX, ms=st.sampled_from([0, 5, 1000]), fault=FAULT)
    def delay(self, index: int, ms: int, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            self.do(lambda: held[1].move_to_delayed(ms / 1000), fault)
            self.model.delay(held[0], ms)

    @rule(index=INDEX, fault=FAULT)
    def wait_for_a_new_child(self, index: int, fault: str) -> None:
        """A job adds a child while it runs, and waits for it. Children of a scheduler's run are cut at their colons."""
        held = self.held(index)
        if held is None or ":" in held[0].id or held[0].unsuccessful:
            return
        job, real = held
        child = f"{job.id}-{next(self.ids)}"
        tree = FlowJob("job", "q", None, {"job_id": child, "parent": Parent(job.id, f"{self.prefix}:q")})
        self.do(lambda: self.flows.add(tree), fault)
        self.model.add(ModelJob(child, parent=job.id))
        self.do(real.move_to_waiting_children, fault)
        assert self.model.wait_for_children(job)

    @rule(index=INDEX, checks=st.integers(0, 2), fault=FAULT)
    def worker_crashes(self, index: int, checks: int, fault: str) -> None:
        """And is found out by the second check."""
        self.lock_runs_out(index)
        for _ in range(checks):
            self.check_stalled(fault)

    @rule(index=INDEX)
    def lock_runs_out(self, index: int) -> None:
        """Its worker has crashed, or hangs: the lock expires. What the worker writes later is refused."""
        held = self.held(index)
        if held is not None:
            job, real = held
            self.bench.client.delete(f"{self.base}{job.id}:lock")
            job.token = ""
            self.losers.append(real)

    @rule(fault=FAULT)
    def check_stalled(self, fault: str) -> None:
        self.bench.client.delete(f"{self.base}stalled-check")
        expected = self.model.stalled
        call = lambda: self.queue.scripts.move_stalled_jobs_to_wait(self.queue.clock.now_ms(), 1, 30_000)  # noqa: E731
        taken = self.do(call, fault)
        if set(taken or ()) != expected:
            # The answer of the first try was lost, and the second comes too soon after it; the order is in `wait`.
            assert self.bench.has_faults
            assert taken == []
            waiting = self.bench.client.lrange(f"{self.base}wait", 0, -1)
            taken = [job_id for job_id in waiting if job_id in expected]
        self.model.check_stalled(list(taken or ()))

    @precondition(lambda self: self.losers)
    @rule(index=INDEX)
    def loser_writes(self, index: int) -> None:
        """Whatever the worker of a lost job still tries is refused; the invariants see that nothing has changed."""
        loser = self.losers[index % len(self.losers)]
        for call in (
            lambda: loser.update_progress(99),
            lambda: loser.update_data({"late": 1}),
            lambda: loser.log("late"),
            lambda: loser.move_to_failed("late"),
            lambda: loser.move_to_completed("late"),
            loser.move_to_wait,
        ):
            try:
                self._run(call)
            except TransitionError:
                continue
            raise AssertionError(f"job {loser.id!r}: a lost job's worker was heard")

    # --- changing, removing ---

    @rule(index=INDEX, fault=FAULT)
    def promote(self, index: int, fault: str) -> None:
        job = self.pick(index, "delayed")
        if job is not None:
            self.do(self.real(job).promote, fault)
            self.model.promote(job)

    @rule(index=INDEX, fault=FAULT)
    def retry(self, index: int, fault: str) -> None:
        job = self.pick(index, "completed", "failed")
        if job is not None:
            real = self.real(job)
            self.do(lambda: real.retry(job.state), fault)  # type: ignore[arg-type]
            self.model.retry(job)

    @rule(index=INDEX, ms=st.sampled_from([1, 5, 2000]), fault=FAULT)
    def change_delay(self, index: int, ms: int, fault: str) -> None:
        job = self.pick(index, "delayed")
        if job is not None:
            real = self.real(job)
            self.do(lambda: real.change_delay(ms / 1000), fault)
            self.model.change_delay(job, ms)

    @rule(index=INDEX, priority=st.integers(0, 2), fault=FAULT)
    def change_priority(self, index: int, priority: int, fault: str) -> None:
        job = self.pick(index)
        if job is not None:
            real = self.real(job)
            self.do(lambda: real.change_priority(priority), fault)
            self.model.change_priority(job, priority)

    @rule(index=INDEX, value=st.integers(0, 3), fault=FAULT)
    def report_progress(self, index: int, value: int, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            self.do(lambda: held[1].update_progress(value), fault)
            held[0].progress = value

    @rule(index=INDEX, fault=FAULT)
    def remove(self, index: int, fault: str) -> None:
        job = self.pick(index)
        if job is None or self.model.is_pending(job):
            return
        is_removed = self.do(lambda: self.queue.remove(job.id), fault)
        assert is_removed == self.model.remove(job)

    @rule(is_paused=st.booleans(), most=st.sampled_from([None, None, 1, 3]), fault=FAULT)
    def close_or_open(self, is_paused: bool, most: int | None, fault: str) -> None:
        self.do(self.queue.pause if is_paused else self.queue.resume, fault)
        self.model.is_paused = is_paused
        if most is None:
            self.do(self.queue.remove_global_concurrency, fault)
        else:
            self.do(lambda: self.queue.set_global_concurrency(most), fault)
        self.model.concurrency = most

    @rule(fault=FAULT)
    def open(self, fault: str) -> None:
        self.do(self.queue.resume, fault)
        self.model.is_paused = False

    @rule(delayed=st.booleans(), fault=FAULT)
    def drain(self, delayed: bool, fault: str) -> None:
        self.do(lambda: self.queue.drain(delayed=delayed), fault)
        self.model.clear("waiting", *(["delayed"] if delayed else []), "prioritized")

    @rule(state=st.sampled_from(["completed", "failed"]), fault=FAULT)
    def clean(self, state: Any, fault: str) -> None:
        self.do(lambda: self.queue.clean(0, 0, state), fault)
        self.model.clear(state)

    # --- job schedulers, time ---

    @rule(fault=FAULT)
    def upsert_scheduler(self, fault: str) -> None:
        planned = self.model.schedulers.get("tick")
        pending = self.model.jobs.get(f"repeat:tick:{planned}")
        if planned is None or (
            pending is not None and pending.state in ("waiting", "delayed", "prioritized")
        ):
            self.do(lambda: self.queue.upsert_job_scheduler("tick", every=EVERY_MS / 1000), fault)
            self.model.upsert_scheduler("tick")

    @rule(fault=FAULT)
    def remove_scheduler(self, fault: str) -> None:
        self.do(lambda: self.queue.remove_job_scheduler("tick"), fault)
        self.model.remove_scheduler("tick")

    @rule(ms=st.sampled_from([1, 4, 500, 1000, EVERY_MS, 3 * EVERY_MS]))
    def time_passes(self, ms: int) -> None:
        self.model.now_ms += ms
        self.bench.clock.at_ms = self.model.now_ms

    # --- what must be true ---

    @invariant()
    def the_queue_holds_what_the_model_holds(self) -> None:
        # A loss that nothing has met is not left for the next move.
        self.bench.proxy.loses = None
        space = read(self.bench.client, self.base)
        assert seen(space, self.base) == told(self.model)
        self.bench.steps += 1
        state = told(self.model)
        self.bench.moves += state != self.before
        self.before = copy.deepcopy(state)

    @invariant()
    def no_invariant_is_broken(self) -> None:
        space = read(self.bench.client, self.base)
        assert [str(one) for one in violations(space, self.base, self.model.now_ms)] == []

    def teardown(self) -> None:
        """A healthy worker ends everything that there is; then nothing is locked, and nothing stays behind."""
        self.bench.proxy.loses = None
        try:
            self._end_everything()
        finally:
            for key in self.bench.client.scan_iter(f"{self.prefix}:*", count=1000):
                self.bench.client.delete(key)
            self.running.close()

    def _end_everything(self) -> None:
        self.remove_scheduler("")
        self.close_or_open(False, None, "")
        for _ in range(60):
            self.time_passes(3 * EVERY_MS)
            self.fetch(3, "")
            for job in [job for job in self.model.jobs.values() if job.state == "active" and not job.token]:
                self.check_stalled("")
                self.check_stalled("")
                assert job.state != "active"
            while (held := self.held(0)) is not None:
                if held[0].can_complete:
                    self.complete(0, "")
                else:
                    self.fail(0, True, "")
            # A child that has failed without a policy keeps its parent waiting until it is run again.
            for job in [job for job in self.model.jobs.values() if job.state == "waiting-children"]:
                for child in [self.model.jobs[child] for child in sorted(job.open)]:
                    if child.state == "failed":
                        self.retry([job.id for job in self.pickable("failed")].index(child.id), "")
        left = {
            job.id: job.state for job in self.model.jobs.values() if job.state not in ("completed", "failed")
        }
        assert left == {}
        self.check_stalled("")
        space = read(self.bench.client, self.base)
        assert seen(space, self.base) == told(self.model)
        assert [str(one) for one in violations(space, self.base, self.model.now_ms, at_rest=True)] == []
        if self.bench.finish is not None:
            self._run(lambda: self.bench.finish(self.queue))  # type: ignore[misc]
        self._run(lambda: self.queue.obliterate())
        assert read(self.bench.client, self.base) == {}

    def pickable(self, *states: str) -> list[ModelJob]:
        return [job for job in self.model.jobs.values() if job.state in ("completed", *states)]


# --- the same form for both ---


def seen(space: Keyspace, base: str) -> dict[str, Any]:
    """What stands in the server, as far as the model knows of it."""

    def content(suffix: str, nothing: Any) -> Any:
        return space[base + suffix].content if base + suffix in space else nothing

    def ids(job_id: str, part: str) -> list[str]:
        return sorted(key.removeprefix(base) for key in content(f"{job_id}:{part}", ()))

    jobs = {
        key.removeprefix(base): entry.content
        for key, entry in space.items()
        if entry.kind == "hash" and "timestamp" in entry.content
    }
    return {
        "wait": content("wait", []),
        "active": content("active", []),
        "prioritized": list(content("prioritized", {})),
        "delayed": [(job_id, int(score // 4096)) for job_id, score in content("delayed", {}).items()],
        "waiting-children": sorted(content("waiting-children", {})),
        "completed": list(content("completed", {})),
        "failed": list(content("failed", {})),
        "stalled": sorted(set(content("stalled", set())) & jobs.keys()),
        "owners": {
            key.removeprefix(f"{base}de:"): entry.content for key, entry in space.items() if ":de:" in key
        },
        "schedulers": {name: int(at) for name, at in content("repeat", {}).items()},
        "paused": "paused" in content("meta", {}),
        "jobs": {
            job_id: {
                "started": int(record.get("ats", 0)),
                "made": int(record.get("atm", 0)),
                "stalled": int(record.get("stc", 0)),
                "priority": int(record["priority"]),
                "doomed": "defa" in record,
                "progress": record.get("progress"),
                "late": "late" in record["data"] or f"{base}{job_id}:logs" in space,
                "token": content(f"{job_id}:lock", ""),
                "open": ids(job_id, "dependencies"),
                "processed": ids(job_id, "processed"),
                "ignored": ids(job_id, "failed"),
                "unsuccessful": ids(job_id, "unsuccessful"),
            }
            for job_id, record in jobs.items()
        },
    }


def told(model: Model) -> dict[str, Any]:
    """What the model says."""
    jobs = model.jobs.values()
    return {
        "wait": model.wait,
        "active": model.active,
        "prioritized": [job_id for _, _, job_id in sorted(model.prioritized)],
        "delayed": [(job_id, due) for due, _, job_id in sorted(model.delayed)],
        "waiting-children": sorted(job.id for job in jobs if job.state == "waiting-children"),
        "completed": model.in_order("completed"),
        "failed": model.in_order("failed"),
        "stalled": sorted(model.suspects & model.jobs.keys()),
        "owners": model.owners,
        "schedulers": model.schedulers,
        "paused": model.is_paused,
        "jobs": {
            job.id: {
                "started": job.started,
                "made": job.made,
                "stalled": job.stalled,
                "priority": job.priority,
                "doomed": job.is_doomed,
                "progress": None if job.progress is None else str(job.progress),
                "late": False,
                "token": job.token,
                "open": sorted(job.open),
                "processed": sorted(job.processed),
                "ignored": sorted(job.ignored),
                "unsuccessful": sorted(job.unsuccessful),
            }
            for job in jobs
        },
    }
