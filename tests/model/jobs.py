"""The moves that add jobs and run them: each on a real queue and on its model, in either of two queues."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from toril import Deduplication, FlowJob, Job, JobOptions, KeepJobs, Parent
from toril._loops.claims import Claim
from toril.errors import TransitionError, UnrecoverableError, refusal
from toril.job_scheduler import plan_next_run
from toril.scripts import Fetch, FinishedJob

from .compare import PART_MS
from .machine import LOCK_MS, Frame
from .model import ModelJob, Policy
from .parts import METRICS_POINTS, MODES, run_id

__all__ = ["FAULT", "INDEX", "WINDOW_S", "JobMoves"]

_POLICIES: Final[dict[Policy, JobOptions]] = {
    "": {},
    "fail": {"fail_parent_on_failure": True},
    "continue": {"continue_parent_on_failure": True},
    "ignore": {"ignore_dependency_on_failure": True},
    "remove": {"remove_dependency_on_failure": True},
}
WINDOW_S: Final = 3600
FAULT = st.sampled_from(["", "", "", "question", "answer", "forgotten", "repeat"])
"""What goes wrong with a call: its question or its answer is lost, the server has forgotten all scripts, or it comes
twice. A machine without faults takes no notice."""
INDEX = st.integers(0, 20)


class JobMoves(Frame):
    """Adds jobs, runs them, loses them."""

    # --- adding ---

    @initialize(
        policies=st.lists(st.sampled_from(list(_POLICIES)), min_size=1, max_size=2), most=st.integers(0, 3)
    )
    def begin(self, policies: list[Policy], most: int) -> None:
        """Not with an empty queue, where most moves find nothing to move."""
        self.add_flow(policies, 0, None, 1, "")
        for delay, priority, attempts in ((0, 0, 2), (0, 1, 1), (5, 0, 1), (0, 0, 3)):
            self.add(delay, priority, False, attempts, 0, None, None, False, "")
        self.fetch(most, None, "")

    @rule()
    def go_to_the_other_queue(self) -> None:
        self.here = self.far if self.here is self.near else self.near

    @rule(
        delay=st.sampled_from([0, 0, 5, 1000]), priority=st.sampled_from([0, 0, 1, 2]), lifo=st.booleans(),
        attempts=st.integers(1, 3), backoff=st.sampled_from([0, 500]), keep=st.sampled_from([None, None, 0, 1, 2]),
        keep_s=st.sampled_from([None, 1]), is_named=st.booleans(), fault=FAULT,
    )  # fmt: skip
    def add(
        self, delay: int, priority: int, lifo: bool, attempts: int, backoff: int, keep: int | None,
        keep_s: int | None, is_named: bool, fault: str,
    ) -> None:  # fmt: skip
        options: JobOptions = {
            "delay": delay / 1000, "priority": priority, "lifo": lifo, "attempts": attempts, "backoff": backoff / 1000,
        }  # fmt: skip
        if is_named:
            options["job_id"] = f"j{next(self.ids)}"
        if keep is not None or keep_s is not None:
            options["remove_on_complete"] = options["remove_on_fail"] = KeepJobs(count=keep, age=keep_s)
        job = self.do(lambda: self.queue.add("job", {}, **options), fault, may_repeat=is_named)
        assert job is not None
        self.model.add(
            ModelJob(
                job.id, priority=priority, lifo=lifo, attempts=attempts, backoff_ms=backoff, keep=keep,
                keep_ms=None if keep_s is None else keep_s * 1000,
            ),
            delay,
        )  # fmt: skip
        if delay:
            self.ledger.due[job.id] = self.model.now_ms + delay
        elif lifo and not priority:
            self._is_next(job.id)
        else:
            self.ledger.joined(job.id, priority)

    def _is_next(self, job_id: str) -> None:
        """It came to the front of the line, so nothing of its priority is before it."""
        if self.model.jobs[job_id].priority == 0:
            assert self.bench.client.lindex(f"{self.base}wait", -1) == job_id, "I14"
        else:
            # Before all others but those that were handed back, too, which stand by their ids.
            scores: Any = self.bench.client.zrange(f"{self.base}prioritized", 0, -1, withscores=True)
            own = dict(scores)[job_id]
            equal = [
                score
                for one, score in scores
                if self.model.jobs[one].priority == self.model.jobs[job_id].priority
            ]
            assert min(equal) == own, "I14"

    @rule(dedup=st.sampled_from(list(MODES)), delay=st.sampled_from([0, 1000]), fault=FAULT)
    def add_deduplicated(self, dedup: str, delay: int, fault: str) -> None:
        mode = MODES[dedup]
        options: JobOptions = {
            "job_id": f"j{next(self.ids)}", "delay": delay / 1000,
            "deduplication": Deduplication(
                dedup, 2 * PART_MS / 1000 if mode.lasts else None, mode.extends, mode.replaces,
                keep_last_if_active=mode.keeps_last,
            ),
        }  # fmt: skip
        # Under an id that exists, a repeated add is the same job's; only one that was replaced stays away.
        job = self.do(lambda: self.queue.add("job", {}, **options), fault, may_repeat=False)
        assert job is not None
        stands = self.model.add(ModelJob(options["job_id"], dedup=dedup), delay)
        assert job.id == stands
        if stands == options["job_id"] and delay:
            self.ledger.due[stands] = self.model.now_ms + delay

    @rule(
        dedup=st.sampled_from(list(MODES)), delay=st.sampled_from([0, 1000]),
        passes=st.sampled_from(["", "part", "part", "all"]), fault=FAULT,
    )  # fmt: skip
    def add_two_of_an_id(self, dedup: str, delay: int, passes: str, fault: str) -> None:
        self.add_deduplicated(dedup, delay, fault)
        if MODES[dedup].lasts and passes:
            self.ttl_passes(dedup, passes == "all")
        self.add_deduplicated(dedup, delay, fault)

    @rule(dedup=st.sampled_from([name for name, mode in MODES.items() if mode.lasts]), is_over=st.booleans())
    def ttl_passes(self, dedup: str, is_over: bool) -> None:
        """As much of it as leaves a part, or all: the server's time cannot be turned."""
        if dedup in self.model.owners and is_over:
            self.bench.client.delete(f"{self.base}de:{dedup}")
            del self.model.owners[dedup]
        elif dedup in self.model.owners:
            self.bench.client.pexpire(f"{self.base}de:{dedup}", PART_MS // 2)
            self.model.owners[dedup].ttl = "part"

    @rule(index=INDEX, fault=FAULT)
    def add_again(self, index: int, fault: str) -> None:
        job = self.pick(index)
        if job is not None and job.id.startswith("j") and not job.parent:
            self.do(lambda: self.queue.add("job", {"other": 1}, job_id=job.id), fault)

    @rule(
        policies=st.lists(st.sampled_from(list(_POLICIES)), min_size=1, max_size=3),
        priority=st.sampled_from([0, 1]),
        keep=st.sampled_from([None, None, 0]),
        far=st.integers(0, 3),
        fault=FAULT,
    )
    def add_flow(self, policies: list[Policy], priority: int, keep: int | None, far: int, fault: str) -> None:
        """The first children are in the other queue, which has another prefix, too."""
        parent = f"p{next(self.ids)}"
        kept: JobOptions = {} if keep is None else {"remove_on_complete": True, "remove_on_fail": True}
        there = self.far if self.here is self.near else self.near
        places = [there if n < far else self.here for n in range(len(policies))]
        children = [
            FlowJob(
                "job", place.queue.name, None, {**_POLICIES[policy], **kept, "job_id": f"{parent}-{number}"},
                prefix=place.queue.keys.prefix,
            )
            for number, (place, policy) in enumerate(zip(places, policies, strict=True))
        ]  # fmt: skip
        here = self.queue
        tree = FlowJob(
            "job", here.name, None, {"job_id": parent, "priority": priority}, children, here.keys.prefix
        )
        self.do(lambda: self.flows.add(tree), fault)
        self.model.add_flow(
            ModelJob(parent, priority=priority),
            [
                (place.model, ModelJob(f"{parent}-{n}", policy=policy, keep=keep))
                for n, (place, policy) in enumerate(zip(places, policies, strict=True))
            ],
        )
        for n, place in enumerate(places):
            place.ledger.joined(f"{parent}-{n}", 0)

    # --- running ---

    @rule(most=st.integers(1, 3), rate=st.sampled_from([None, None, 1, 3]), fault=FAULT)
    def fetch(self, most: int, rate: int | None, fault: str) -> None:
        """A worker, which may have a rate limit of its own, takes what there is."""
        token = f"t{next(self.ids)}"
        fetch = Fetch(most, token, LOCK_MS, limit=None if rate is None else (rate, WINDOW_S * 1000))
        is_second = False

        async def call() -> list[tuple[str, dict[str, str]]]:
            nonlocal is_second
            if is_second:
                # What a worker does after a lost answer: the jobs that hold its token are its own. There may be none,
                # and then it fetches as if nothing had been.
                found = await self.queue.scripts.adopt_jobs(token)
                if found:
                    # The newest is at the left of `active`.
                    started = self.bench.client.lrange(f"{self.base}active", 0, -1)
                    return sorted(found, key=lambda job: -started.index(job[0]))
            is_second = True
            return (await self.queue.scripts.move_to_active(self.queue.clock.now_ms(), fetch)).jobs

        taken = self.do(call, fault, may_repeat=False)
        assert taken is not None
        self._start([job_id for job_id, _ in taken], token, most, rate)

    def _start(self, ids: list[str], token: str, most: int, rate: int | None) -> None:
        """These have been fetched: plan what follows a scheduler's job, and fail what is doomed."""
        expected = self.model.fetch(token, most, rate)
        self.ledger.started(
            ids, {job.id for job in expected if job.is_doomed}, self.model.now_ms,
            rate if self.model.rate is None else self.model.rate, self.model.concurrency, self.space(), self.base,
        )  # fmt: skip
        assert ids == [job.id for job in expected]
        for job in expected:
            self.here.claims[job.id] = real = Job(self.queue, job.id, self.real(job)._record, token)
            if job.scheduler:
                self.do(lambda real=real: plan_next_run(self.queue, real))  # type: ignore[misc]
                self.model.schedulers.plan_next_run(job)
                planned = self.bench.client.zscore(f"{self.base}repeat", job.scheduler)
                if planned is not None and not self.model.schedulers.is_pending(job):
                    assert planned >= self.model.now_ms, "I12"
                    self._put_off_run(job.scheduler)
            if job.is_doomed:
                self._fail(job, real, UnrecoverableError(real.deferred_failure or ""), "")

    def _put_off_run(self, scheduler: str) -> None:
        due = self.model.schedulers.planned[scheduler]
        self.ledger.due[run_id(scheduler, due)] = due

    @rule(
        most=st.integers(1, 3), fate=st.sampled_from(["complete", "complete", "fail", "hold", "give back"]),
        ms=st.sampled_from([0, 0, 1000]), fault=FAULT,
    )  # fmt: skip
    def run(self, most: int, fate: str, ms: int, fault: str) -> None:
        """Most moves need a job that has run, or runs; and some, that time has passed."""
        self.pass_time(ms)
        self.fetch(most, None, fault)
        if fate == "complete":
            self.complete(0, fault)
        elif fate == "fail":
            self.fail(0, False, fault)
        elif fate == "give back":
            self.give_back(0, fault)

    def pass_time(self, ms: int) -> None:
        for queue in self.model.queues:
            queue.now_ms += ms
        self.bench.clock.at_ms = self.model.now_ms

    @rule(index=INDEX, fault=FAULT)
    def complete(self, index: int, fault: str) -> None:
        held = self.held(index)
        if held is None or not held[0].can_complete:
            return
        job = held[0]
        self._finish(self._completed(job), fault)
        self.model.complete(job)
        self._judge_retention(job, "completed")

    def _judge_retention(self, job: ModelJob, how: str) -> None:
        oldest = None if job.keep_ms is None or job.keep == 0 else self.model.now_ms - job.keep_ms
        self.ledger.judge_retention(self.space(), self.base, how, job.keep, oldest)

    @rule(number=st.integers(1, 3), most=st.integers(0, 2))
    def complete_many_and_fetch(self, number: int, most: int) -> None:
        """As a busy worker does: several ends, and the next jobs, in one call."""
        active = [self.model.jobs[job_id] for job_id in reversed(self.model.active)]
        jobs = [job for job in active if job.token and job.can_complete][:number]
        if not jobs:
            return
        token, now_ms = f"t{next(self.ids)}", self.model.now_ms
        ends = [self._completed(job) for job in jobs]
        codes, fetched = self.run_now(
            lambda: self.queue.scripts.move_to_finished(
                now_ms, ends, Fetch(most, token, LOCK_MS), METRICS_POINTS
            )
        )
        assert codes == [0] * len(jobs)
        for job in jobs:
            self.model.complete(job)
        self._judge_retention(jobs[-1], "completed")
        self._start([job_id for job_id, _ in fetched.jobs], token, most, None)

    def _completed(self, job: ModelJob) -> FinishedJob:
        keep = self.here.claims[job.id].options.keep_completed
        return FinishedJob(
            job.id, job.token, "completed", '"done"', keep=keep or FinishedJob._field_defaults["keep"]
        )

    @rule(index=INDEX, is_for_good=st.booleans(), fault=FAULT)
    def fail(self, index: int, is_for_good: bool, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            error = UnrecoverableError("no") if is_for_good else ValueError("no")
            self._fail(*held, error, fault)

    def _fail(self, job: ModelJob, real: Job[Any], error: Exception, fault: str) -> None:
        if self.bench.has_faults and fault in ("question", "answer"):
            self.bench.proxy.loses = "question" if fault == "question" else "answer"
        self.run_now(lambda: self.here.running.fail(Claim(real, real.token), error))
        has_ended = bool(self.here.ends)
        for end in self.here.ends:
            self._finish(end, fault)
        self.here.ends.clear()
        self.model.fail(job, for_good=isinstance(error, UnrecoverableError))
        if has_ended:
            self._judge_retention(job, "failed")
        elif job.backoff_ms:
            self.ledger.due[job.id] = self.model.now_ms + job.backoff_ms

    def _finish(self, end: FinishedJob, fault: str) -> None:
        async def call() -> None:
            (code,), _ = await self.queue.scripts.move_to_finished(
                self.queue.clock.now_ms(), [end], Fetch(0, end.token, LOCK_MS), METRICS_POINTS
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
            self._is_next(held[0].id)

    @rule(index=INDEX, ms=st.sampled_from([0, 5, 1000]), fault=FAULT)
    def delay(self, index: int, ms: int, fault: str) -> None:
        held = self.held(index)
        if held is not None:
            self.do(lambda: held[1].move_to_delayed(ms / 1000), fault)
            self.model.delay(held[0], ms)
            self.ledger.due[held[0].id] = self.model.now_ms + ms

    @rule(index=INDEX, fault=FAULT)
    def wait_for_a_new_child(self, index: int, fault: str) -> None:
        """A job adds a child while it runs, and waits for it. Children of a scheduler's run are cut at their colons."""
        held = self.held(index)
        if held is None or ":" in held[0].id or held[0].unsuccessful:
            return
        job, real = held
        child = f"{job.id}-{next(self.ids)}"
        tree = FlowJob(
            "job", self.queue.name, None,
            {"job_id": child, "parent": Parent(job.id, self.base.removesuffix(":"))},
            prefix=self.queue.keys.prefix,
        )  # fmt: skip
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

    @rule(index=INDEX, checks=st.integers(0, 2), fault=FAULT)
    def worker_is_away(self, index: int, checks: int, fault: str) -> None:
        """For longer than its lock lasts, and perhaps until the job has been taken back."""
        losers = len(self.here.losers)
        self.worker_crashes(index, checks, fault)
        if len(self.here.losers) > losers:
            self.loser_comes_back(losers, fault)

    @rule(index=INDEX)
    def lock_runs_out(self, index: int) -> None:
        """Its worker has crashed, or hangs: the lock expires. What it writes is refused until it is back in time."""
        held = self.held(index)
        if held is not None:
            job, real = held
            self.bench.client.delete(f"{self.base}{job.id}:lock")
            job.token = ""
            self.here.losers.append(real)

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

    @precondition(lambda self: self.here.losers)
    @rule(index=INDEX, fault=FAULT)
    def loser_comes_back(self, index: int, fault: str) -> None:
        """It was only away: the job is its own again, if nothing has happened to it meanwhile."""
        loser = self.here.losers[index % len(self.here.losers)]
        job = self.model.jobs.get(loser.id)
        is_untouched = (
            job is not None
            and job.state == "active"
            and not job.token
            and self.real(job).start[2:] == loser.start[2:]
        )
        lost = self.do(lambda: self.queue.scripts.reclaim_locks(LOCK_MS, [loser.start]), fault)
        assert lost == ([] if is_untouched else [loser.id])
        if is_untouched:
            assert job is not None
            self.here.losers.remove(loser)
            self.here.claims[job.id] = loser
            job.token = loser.token
            self.model.suspects.discard(job.id)

    @precondition(lambda self: self.here.losers)
    @rule(index=INDEX)
    def loser_writes(self, index: int) -> None:
        """Whatever the worker of a lost job still tries is refused; the invariants see that nothing has changed."""
        loser = self.here.losers[index % len(self.here.losers)]
        for call in (
            lambda: loser.update_progress(99),
            lambda: loser.update_data({"late": 1}),
            lambda: loser.log("late"),
            lambda: loser.move_to_failed("late"),
            lambda: loser.move_to_completed("late"),
            loser.move_to_wait,
        ):
            try:
                self.run_now(call)
            except TransitionError:
                continue
            raise AssertionError(f"job {loser.id!r}: a lost job's worker was heard")
