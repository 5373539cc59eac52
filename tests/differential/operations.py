"""The moves that two clients are compared in: one table, each move once for Node and once for toril.

A move takes the same arguments on both sides, in Node's words, and answers in a form that can be compared. Who wants
to compare more adds a row to `OPERATIONS`; written and random programs are made of its names.

toril's side goes through `Queue` and `Job`, and through the parts of `Worker` that decide what becomes of a job; only
the worker's loops are left out, since a program says itself who fetches when.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from typing import Any, Final, cast

import redis

from tests.interop.node import UNDEFINED, NodeError, NodeFlows, NodeQueue, NodeWorker
from toril import (
    Deduplication,
    Exponential,
    Fixed,
    FlowJob,
    FlowProducer,
    Job,
    JobOptions,
    KeepJobs,
    NewJob,
    Parent,
    Queue,
    UnrecoverableError,
)
from toril._loops.claims import Claim, Settings
from toril._loops.running import Running
from toril.clock import Clock
from toril.codec import dumps
from toril.errors import (
    FailedChildrenError,
    JobNotFoundError,
    JobNotInStateError,
    LockLostError,
    ParentNotFoundError,
    ParentTakenError,
    PendingChildrenError,
    QueueNotEmptyError,
    SchedulerJobError,
    refusal,
)
from toril.job_scheduler import plan_next_run
from toril.keys import QueueKeys
from toril.scripts import Fetch, FinishedJob

__all__ = [
    "LOCK_MS",
    "OPERATIONS",
    "WORKERS",
    "NodeSide",
    "Operation",
    "TorilSide",
    "TorilWorker",
    "refusal_of",
]

Json = Any
LOCK_MS: Final = 30_000

WORKERS: Final[dict[str, dict[str, Json]]] = {
    "plain": {},
    "named": {
        "name": "w-1",
        "removeOnComplete": {"count": 2},
        "removeOnFail": {"age": 5},
        "maxStalledCount": 0,
        "maxStartedAttempts": 3,
        "metrics": {"maxDataPoints": 4},
    },
    "limited": {"limiter": {"max": 2, "duration": 60_000}},
}
"""The workers that moves are made for, with the options that change what a move leaves."""


@dataclass(slots=True)
class NodeSide:
    """The reference client's queue, and a worker of each kind that moves jobs when told to."""

    keys: QueueKeys
    client: redis.Redis
    queue: NodeQueue
    workers: dict[str, NodeWorker]
    flows: NodeFlows

    async def ask(self, command: str, worker: str, **args: Json) -> Json:
        node = self.queue.node
        return await node.ask(command, worker=self.workers[worker].handle, **args)


@dataclass(slots=True)
class TorilSide:
    """toril's queue, and the deciding part of a worker of each kind."""

    keys: QueueKeys
    client: redis.Redis
    clock: Clock
    queue: Queue
    flows: FlowProducer
    workers: dict[str, TorilWorker] = field(default_factory=dict[str, "TorilWorker"])


class TorilWorker:
    """What a worker knows and decides, without its loops: ends of jobs pile up until they are sent."""

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self.settings = settings
        self.running = Running(queue, settings, None, self._ended, self._dropped, lambda _: None, self._tell)
        self.ends: list[FinishedJob] = []
        self.is_refused = False

    def _ended(self, claim: Claim, end: FinishedJob) -> None:
        self.ends.append(end)

    def _dropped(self, claim: Claim) -> None: ...

    def _limited(self, ms: int) -> None: ...

    def _tell(self, event: str, *args: object) -> None:
        self.is_refused = self.is_refused or event == "lock_lost"

    def fetch(self, want: int, token: str) -> Fetch:
        return Fetch(want, token, self.settings.lock_ms, self.settings.name, self.settings.limiter)

    def take_ends(self) -> list[FinishedJob]:
        ends, self.ends = self.ends, []
        return ends


Move = Callable[..., Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One move, for each side. Arguments come by name; see the functions."""

    node: Move
    toril: Move


# --- adding ---

NewJobs = list[tuple[str, Json, dict[str, Json]]]


async def node_add(side: NodeSide, name: str, data: Json, options: dict[str, Json]) -> Json:
    return (await side.queue.add(name, _payload(data), **_placed(side, options)))["id"]


async def toril_add(side: TorilSide, name: str, data: Json, options: dict[str, Json]) -> Json:
    return (await side.queue.add(name, data, **_spelt(side, options))).id


async def node_add_bulk(side: NodeSide, jobs: NewJobs) -> Json:
    bulk = [
        {"name": name, "data": _payload(data), "opts": _placed(side, options)} for name, data, options in jobs
    ]
    return [job["id"] for job in await side.queue.call("addBulk", bulk)]


async def toril_add_bulk(side: TorilSide, jobs: NewJobs) -> Json:
    bulk = [NewJob(name, data, _spelt(side, options)) for name, data, options in jobs]
    return [job.id for job in await side.queue.add_bulk(bulk)]


def _payload(data: Json) -> Json:
    """toril's None is no payload, which in Node is undefined and not null."""
    return UNDEFINED if data is None else data


def _placed(side: NodeSide, options: dict[str, Json]) -> dict[str, Json]:
    """Programs name a parent's queue without the prefix, which differs from side to side."""
    if "parent" not in options:
        return options
    parent = options["parent"]
    return {**options, "parent": {"id": parent["id"], "queue": f"{side.keys.prefix}:{parent['queue']}"}}


_SPELLING: Final = {
    "jobId": "job_id",
    "keepLogs": "keep_logs",
    "stackTraceLimit": "stack_trace_limit",
    "sizeLimit": "size_limit",
    "removeOnComplete": "remove_on_complete",
    "removeOnFail": "remove_on_fail",
    "failParentOnFailure": "fail_parent_on_failure",
    "continueParentOnFailure": "continue_parent_on_failure",
    "ignoreDependencyOnFailure": "ignore_dependency_on_failure",
    "removeDependencyOnFailure": "remove_dependency_on_failure",
    "keepLastIfActive": "keep_last_if_active",
}


def _spelt(side: TorilSide, options: dict[str, Json]) -> JobOptions:
    """Return options of Node's as a user of toril writes them."""

    def value_of(key: str, value: Json) -> Json:
        match key, value:
            case "delay", _:
                return value / 1000
            case "backoff", {"type": "fixed", "delay": delay}:
                return Fixed(delay / 1000)
            case "backoff", {"type": "exponential", "delay": delay}:
                return Exponential(delay / 1000)
            case "backoff", _:
                return value / 1000
            case (("removeOnComplete" | "removeOnFail"), dict()):
                return KeepJobs(**cast("dict[str, int]", value))
            case "deduplication", dict():
                told = cast("dict[str, Json]", value)
                spelt = {_SPELLING.get(name, name): part for name, part in told.items()}
                if "ttl" in spelt:
                    spelt["ttl"] /= 1000
                return Deduplication(**spelt)
            case "parent", {"id": str(parent_id), "queue": str(queue)}:
                return Parent(parent_id, f"{side.keys.prefix}:{queue}")
            case _:
                return value

    return cast(JobOptions, {_SPELLING.get(key, key): value_of(key, value) for key, value in options.items()})


# --- running ---


async def node_take(side: NodeSide, token: str, worker: str = "plain") -> Json:
    return _seen_by_node(await side.ask("take", worker, token=token))


async def toril_take(side: TorilSide, token: str, worker: str = "plain") -> Json:
    taken = await toril_take_many(side, token, 1, worker)
    return taken[0] if taken else None


async def node_take_many(side: NodeSide, token: str, want: int, worker: str = "plain") -> Json:
    """Single fetches, one after another until one comes back empty."""
    taken: list[Json] = []
    while len(taken) < want:
        job = await node_take(side, token, worker)
        if job is None:
            break
        taken.append(job)
    return taken


async def toril_take_many(side: TorilSide, token: str, want: int, worker: str = "plain") -> Json:
    fetch = side.workers[worker].fetch(want, token)
    fetched = await side.queue.scripts.move_to_active(side.clock.now_ms(), fetch)
    return await _taken_by_toril(side, fetched.jobs)


async def node_complete(
    side: NodeSide, job: str, token: str, value: Json, fetch: bool, worker: str = "plain"
) -> Json:
    end = {"job": job, "token": token, "value": value}
    return await node_finish_many(side, [end], int(fetch), worker)


async def toril_complete(
    side: TorilSide, job: str, token: str, value: Json, fetch: bool, worker: str = "plain"
) -> Json:
    end = {"job": job, "token": token, "value": value}
    return await toril_finish_many(side, [end], int(fetch), worker)


async def node_fail(
    side: NodeSide, job: str, token: str, error: str, unrecoverable: bool = False, worker: str = "plain"
) -> Json:
    """An attempt fails: the job runs again now, later, or never."""
    try:
        told = _told(_error(error, unrecoverable))
        await side.ask("fail", worker, jobId=job, token=token, error=told)
    except NodeError as refused:
        refusal_of(refused)
        return "refused"
    return None


async def toril_fail(
    side: TorilSide, job: str, token: str, error: str, unrecoverable: bool = False, worker: str = "plain"
) -> Json:
    actor = side.workers[worker]
    actor.is_refused = False
    await actor.running.fail(_claim(side, job, token), _error(error, unrecoverable))
    ends = actor.take_ends()
    if ends:
        codes, _ = await side.queue.scripts.move_to_finished(
            side.clock.now_ms(), ends, actor.fetch(0, token), actor.settings.metrics_points
        )
        actor.is_refused = codes != [0]
    return "refused" if actor.is_refused else None


async def node_finish_many(
    side: NodeSide, ends: list[dict[str, Json]], want: int, worker: str = "plain"
) -> Json:
    """Finishes one after another, the last of which fetches; then single fetches until one comes back empty.

    Where the last is refused, Node has not fetched, and its worker's next move is a fetch.
    """
    codes: list[Json] = []
    taken: list[Json] = []
    for index, end in enumerate(ends):
        fetch = want > 0 and index == len(ends) - 1
        job, token = end["job"], end["token"]
        try:
            if "error" in end:
                told = _told(_error(end["error"], True))
                fetched = await side.ask("fail", worker, jobId=job, token=token, error=told, fetchNext=fetch)
            else:
                fetched = await side.ask(
                    "complete", worker, jobId=job, token=token, value=end["value"], fetchNext=fetch
                )
            codes.append(0)
        except NodeError as error:
            codes.append(refusal_of(error))
            fetched = await side.ask("take", worker, token=token) if fetch else None
        if fetched:
            taken.append(_seen_by_node(fetched))
            taken += await node_take_many(side, token, want - 1, worker)
    return codes, taken


async def toril_finish_many(
    side: TorilSide, ends: list[dict[str, Json]], want: int, worker: str = "plain"
) -> Json:
    actor = side.workers[worker]
    for end in ends:
        claim = _claim(side, end["job"], end["token"])
        if "error" in end:
            await actor.running.fail(claim, _error(end["error"], True))
        else:
            actor.running._complete(claim, dumps(end["value"]))
    codes, fetched = await side.queue.scripts.move_to_finished(
        side.clock.now_ms(),
        actor.take_ends(),
        actor.fetch(want, ends[-1]["token"]),
        actor.settings.metrics_points,
    )
    refusals = [code and refusal_of(refusal(code, "")) for code in codes]
    return refusals, await _taken_by_toril(side, fetched.jobs)


async def node_delay(side: NodeSide, job: str, token: str, until: int, worker: str = "plain") -> Json:
    await side.ask("delay", worker, jobId=job, token=token, until=until)


async def toril_delay(side: TorilSide, job: str, token: str, until: int, worker: str = "plain") -> Json:
    now_ms = side.clock.now_ms()
    await side.queue.scripts.move_to_delayed(now_ms, job, token, max(0, until - now_ms), counts=False)


async def node_wait_for_children(
    side: NodeSide, job: str, token: str, child: tuple[str, str] | None = None
) -> Json:
    """True where the job now waits for its children, or for the `child` (queue, id)."""
    named = child and {"queue": f"{side.keys.prefix}:{child[0]}", "id": child[1]}
    return await side.ask("wait-for-children", "plain", jobId=job, token=token, child=named)


async def toril_wait_for_children(
    side: TorilSide, job: str, token: str, child: tuple[str, str] | None = None
) -> Json:
    key = f"{side.keys.prefix}:{child[0]}:{child[1]}" if child else ""
    return await side.queue.scripts.move_to_waiting_children(side.clock.now_ms(), job, token, key)


async def node_give_back(side: NodeSide, job: str, token: str) -> Json:
    # How long a rate limit still lasts; the server's clock runs on.
    return await side.ask("give-back", "plain", jobId=job, token=token) > 0


async def toril_give_back(side: TorilSide, job: str, token: str) -> Json:
    return await side.queue.scripts.move_to_wait(job, token) > 0


async def node_extend_locks(side: NodeSide, jobs: list[str], tokens: list[str]) -> Json:
    return await side.ask("extend-locks", "plain", jobIds=jobs, tokens=tokens, duration=LOCK_MS)


async def toril_extend_locks(side: TorilSide, jobs: list[str], tokens: list[str]) -> Json:
    return await side.queue.scripts.extend_locks(LOCK_MS, zip(jobs, tokens, strict=True))


async def node_stalled(side: NodeSide, worker: str = "plain") -> Json:
    return await side.ask("stalled", worker)


async def toril_stalled(side: TorilSide, worker: str = "plain") -> Json:
    settings = side.workers[worker].settings
    return await side.queue.scripts.move_stalled_jobs_to_wait(
        side.clock.now_ms(), settings.max_stalled, settings.stalled_ms
    )


def _error(text: str, unrecoverable: bool) -> Exception:
    return UnrecoverableError(text) if unrecoverable else ValueError(text)


def _told(error: Exception) -> dict[str, Json]:
    """Return the same error for Node to raise; its stack is the text that toril stores."""
    return {
        "message": str(error),
        "stack": "".join(traceback.format_exception(error)),
        "unrecoverable": isinstance(error, UnrecoverableError),
    }


def _claim(side: TorilSide, job_id: str, token: str) -> Claim:
    record = cast("dict[str, str]", side.client.hgetall(side.keys.job(job_id)))
    return Claim(Job(side.queue, job_id, record, token), token)


def _seen_by_node(job: Json) -> Json:
    return job and (job["id"], job["name"], job["data"])


async def _taken_by_toril(side: TorilSide, jobs: Iterable[tuple[str, dict[str, str]]]) -> Json:
    """Node plans a scheduler's next run as it takes a job; toril's worker does so before the processor runs."""
    found = [Job[Json](side.queue, job_id, record) for job_id, record in jobs]
    for job in found:
        await plan_next_run(side.queue, job)
    return [(job.id, job.name, job.data) for job in found]


# --- changing ---


async def node_promote(side: NodeSide, job: str) -> Json:
    await side.queue.on_job(job, "promote")


async def toril_promote(side: TorilSide, job: str) -> Json:
    await (await side.queue.get_job_or_raise(job)).promote()


async def node_retry(
    side: NodeSide, job: str, state: str, reset_made: bool = False, reset_started: bool = False
) -> Json:
    resets = {"resetAttemptsMade": reset_made, "resetAttemptsStarted": reset_started}
    await side.queue.on_job(job, "retry", state, resets)


async def toril_retry(
    side: TorilSide, job: str, state: Json, reset_made: bool = False, reset_started: bool = False
) -> Json:
    await (await side.queue.get_job_or_raise(job)).retry(
        state, reset_attempts_made=reset_made, reset_attempts_started=reset_started
    )


async def node_progress(side: NodeSide, job: str, value: Json) -> Json:
    await side.queue.on_job(job, "updateProgress", value)


async def toril_progress(side: TorilSide, job: str, value: Json) -> Json:
    await (await side.queue.get_job_or_raise(job)).update_progress(value)


async def node_log(side: NodeSide, job: str, row: str) -> Json:
    return await side.queue.on_job(job, "log", row)


async def toril_log(side: TorilSide, job: str, row: str) -> Json:
    return await (await side.queue.get_job_or_raise(job)).log(row)


async def node_update_data(side: NodeSide, job: str, data: Json) -> Json:
    await side.queue.on_job(job, "updateData", data)


async def toril_update_data(side: TorilSide, job: str, data: Json) -> Json:
    await (await side.queue.get_job_or_raise(job)).update_data(data)


async def node_change_delay(side: NodeSide, job: str, ms: int) -> Json:
    await side.queue.on_job(job, "changeDelay", ms)


async def toril_change_delay(side: TorilSide, job: str, ms: int) -> Json:
    await (await side.queue.get_job_or_raise(job)).change_delay(ms / 1000)


async def node_change_priority(side: NodeSide, job: str, priority: int, lifo: bool = False) -> Json:
    await side.queue.on_job(job, "changePriority", {"priority": priority, "lifo": lifo})


async def toril_change_priority(side: TorilSide, job: str, priority: int, lifo: bool = False) -> Json:
    await (await side.queue.get_job_or_raise(job)).change_priority(priority, lifo=lifo)


async def node_clear_logs(side: NodeSide, job: str, keep: int) -> Json:
    await side.queue.on_job(job, "clearLogs", keep)


async def toril_clear_logs(side: TorilSide, job: str, keep: int) -> Json:
    await (await side.queue.get_job_or_raise(job)).clear_logs(keep)


# --- removing, and moving many ---


async def node_remove(side: NodeSide, job: str, children: bool = True) -> Json:
    return bool(await side.queue.call("remove", job, {"removeChildren": children}))


async def toril_remove(side: TorilSide, job: str, children: bool = True) -> Json:
    return await side.queue.remove(job, remove_children=children)


async def node_drain(side: NodeSide, delayed: bool) -> Json:
    await side.queue.call("drain", delayed)


async def toril_drain(side: TorilSide, delayed: bool) -> Json:
    await side.queue.drain(delayed=delayed)


async def node_clean(side: NodeSide, state: str, grace_ms: int, limit: int) -> Json:
    # The order of the answer is free.
    return sorted(await side.queue.call("clean", grace_ms, limit, state))


async def toril_clean(side: TorilSide, state: Json, grace_ms: int, limit: int) -> Json:
    return sorted(await side.queue.clean(grace_ms / 1000, limit, state))


async def node_obliterate(side: NodeSide, force: bool) -> Json:
    await side.queue.call("obliterate", {"force": force})
    # Node forgets it, toril does not.
    side.client.delete(side.keys.key("limiter"))


async def toril_obliterate(side: TorilSide, force: bool) -> Json:
    await side.queue.obliterate(force=force)


async def node_retry_jobs(side: NodeSide, state: str, count: int = 1000) -> Json:
    await side.queue.call("retryJobs", {"state": state, "count": count})


async def toril_retry_jobs(side: TorilSide, state: Json, count: int = 1000) -> Json:
    await side.queue.retry_jobs(state, count=count)


async def node_promote_jobs(side: NodeSide, count: int = 1000) -> Json:
    await side.queue.call("promoteJobs", {"count": count})


async def toril_promote_jobs(side: TorilSide, count: int = 1000) -> Json:
    await side.queue.promote_jobs(count=count)


async def node_remove_orphans(side: NodeSide) -> Json:
    return await side.queue.call("removeOrphanedJobs")


async def toril_remove_orphans(side: TorilSide) -> Json:
    return await side.queue.remove_orphaned_jobs()


# --- deduplication ---


async def node_free_deduplication(side: NodeSide, id: str) -> Json:
    return bool(await side.queue.call("removeDeduplicationKey", id))


async def toril_free_deduplication(side: TorilSide, id: str) -> Json:
    return await side.queue.remove_deduplication_key(id)


async def node_free_own_deduplication(side: NodeSide, job: str) -> Json:
    return await side.queue.on_job(job, "removeDeduplicationKey")


async def toril_free_own_deduplication(side: TorilSide, job: str) -> Json:
    return await (await side.queue.get_job_or_raise(job)).remove_deduplication_key()


async def node_deduplication_owner(side: NodeSide, id: str) -> Json:
    return await side.queue.call("getDeduplicationJobId", id)


async def toril_deduplication_owner(side: TorilSide, id: str) -> Json:
    return await side.queue.get_deduplication_job_id(id)


# --- flows ---


async def node_add_flows(side: NodeSide, flows: list[Json]) -> Json:
    """Add trees of {"queue", "id", "options", "children"}; every id is given, since generated ones are random."""

    def tree(flow: Json) -> Json:
        made: dict[str, Json] = {
            "name": "job",
            "queueName": flow["queue"],
            "opts": {**_placed(side, flow.get("options", {})), "jobId": flow["id"]},
        }
        if "children" in flow:
            made["children"] = [tree(child) for child in flow["children"]]
        return made

    await side.flows.call("addBulk", [tree(flow) for flow in flows])


async def toril_add_flows(side: TorilSide, flows: list[Json]) -> Json:
    def tree(flow: Json) -> FlowJob:
        options = _spelt(side, {**flow.get("options", {}), "jobId": flow["id"]})
        children = [tree(child) for child in flow.get("children", ())]
        return FlowJob("job", flow["queue"], None, options, children)

    # toril tells of a child that could not be attached, Node does not; the keys are the same.
    with suppress(ParentTakenError):
        await side.flows.add_bulk([tree(flow) for flow in flows])


async def node_remove_unprocessed_children(side: NodeSide, job: str) -> Json:
    await side.queue.on_job(job, "removeUnprocessedChildren")


async def toril_remove_unprocessed_children(side: TorilSide, job: str) -> Json:
    await (await side.queue.get_job_or_raise(job)).remove_unprocessed_children()


async def node_cut_from_parent(side: NodeSide, job: str) -> Json:
    if side.client.exists(side.keys.job(job)) and not side.client.hexists(side.keys.job(job), "parentKey"):
        # Node misses the parent of a job that has none; toril says that there was nothing to cut.
        return False
    return await side.queue.on_job(job, "removeChildDependency")


async def toril_cut_from_parent(side: TorilSide, job: str) -> Json:
    return await (await side.queue.get_job_or_raise(job)).remove_child_dependency()


async def node_children(side: NodeSide, job: str) -> Json:
    counts = await side.queue.on_job(job, "getDependenciesCount")
    return [
        _short(side.keys, await side.queue.on_job(job, "getChildrenValues")),
        _short(side.keys, await side.queue.on_job(job, "getIgnoredChildrenFailures")),
        [counts[how] for how in ("processed", "unprocessed", "ignored", "failed")],
    ]


async def toril_children(side: TorilSide, job: str) -> Json:
    found = await side.queue.get_job_or_raise(job)
    return [
        _short(side.keys, await found.get_children_values()),
        _short(side.keys, await found.get_ignored_children_failures()),
        list(astuple(await found.get_dependencies_count())),
    ]


def _short(keys: QueueKeys, by_key: dict[str, Json]) -> Json:
    return sorted((key.removeprefix(f"{keys.prefix}:"), value) for key, value in by_key.items())


# --- limits ---


async def node_rate_limit(side: NodeSide, ms: int) -> Json:
    await side.queue.call("rateLimit", ms)


async def toril_rate_limit(side: TorilSide, ms: int) -> Json:
    await side.queue.rate_limit(ms / 1000)


async def node_limit(side: NodeSide, most: int, ms: int) -> Json:
    await side.queue.call("setGlobalRateLimit", most, ms)


async def toril_limit(side: TorilSide, most: int, ms: int) -> Json:
    await side.queue.set_global_rate_limit(most, ms / 1000)


async def node_unlimit(side: NodeSide) -> Json:
    await side.queue.call("removeGlobalRateLimit")


async def toril_unlimit(side: TorilSide) -> Json:
    await side.queue.remove_global_rate_limit()


async def node_limit_concurrency(side: NodeSide, most: int) -> Json:
    await side.queue.call("setGlobalConcurrency", most)


async def toril_limit_concurrency(side: TorilSide, most: int) -> Json:
    await side.queue.set_global_concurrency(most)


async def node_unlimit_concurrency(side: NodeSide) -> Json:
    await side.queue.call("removeGlobalConcurrency")


async def toril_unlimit_concurrency(side: TorilSide) -> Json:
    await side.queue.remove_global_concurrency()


async def node_is_maxed(side: NodeSide) -> Json:
    return await side.queue.call("isMaxed")


async def toril_is_maxed(side: TorilSide) -> Json:
    return await side.queue.is_maxed()


async def node_counts_per_priority(side: NodeSide, priorities: list[int]) -> Json:
    found = await side.queue.call("getCountsPerPriority", priorities)
    return sorted((int(priority), count) for priority, count in found.items())


async def toril_counts_per_priority(side: TorilSide, priorities: list[int]) -> Json:
    return sorted((await side.queue.get_counts_per_priority(priorities)).items())


async def node_pause(side: NodeSide) -> Json:
    await side.queue.call("pause")


async def toril_pause(side: TorilSide) -> Json:
    await side.queue.pause()


async def node_resume(side: NodeSide) -> Json:
    await side.queue.call("resume")


async def toril_resume(side: TorilSide) -> Json:
    await side.queue.resume()


# --- reading ---


async def node_state(side: NodeSide, job: str) -> Json:
    return await side.queue.call("getJobState", job)


async def toril_state(side: TorilSide, job: str) -> Json:
    return await side.queue.get_job_state(job)


async def node_counts(side: NodeSide) -> Json:
    return sorted((await side.queue.call("getJobCounts")).items())


async def toril_counts(side: TorilSide) -> Json:
    return sorted((await side.queue.get_job_counts()).items())


async def node_jobs(side: NodeSide, states: list[Json], start: int, end: int, ascending: bool) -> Json:
    return [job["id"] for job in await side.queue.call("getJobs", states, start, end, ascending)]


async def toril_jobs(side: TorilSide, states: list[Json], start: int, end: int, ascending: bool) -> Json:
    return [job.id for job in await side.queue.get_jobs(states, start, end, ascending=ascending)]


async def node_logs(side: NodeSide, job: str, start: int, end: int, ascending: bool) -> Json:
    found = await side.queue.call("getJobLogs", job, start, end, ascending)
    return found["logs"], found["count"]


async def toril_logs(side: TorilSide, job: str, start: int, end: int, ascending: bool) -> Json:
    found = await side.queue.get_job_logs(job, start, end, ascending=ascending)
    return found.logs, found.count


async def node_is_paused(side: NodeSide) -> Json:
    return await side.queue.call("isPaused")


async def toril_is_paused(side: TorilSide) -> Json:
    return await side.queue.is_paused()


async def node_metrics(side: NodeSide, state: str) -> Json:
    found = await side.queue.call("getMetrics", state)
    return found["meta"]["count"], found["data"]


async def toril_metrics(side: TorilSide, state: Json) -> Json:
    found = await side.queue.get_metrics(state)
    return found.count, found.data


async def node_job(side: NodeSide, job: str) -> Json:
    """Every property that both clients give a job, in one order."""
    read = await side.queue.job(job)
    if read is None:
        return None
    return [
        read["id"], read["name"], read["data"], read["timestamp"], read["delay"], read["priority"],
        read["attemptsMade"], read["attemptsStarted"], read["stalledCounter"], read["progress"],
        read["returnvalue"], read.get("failedReason"), read["stacktrace"], read.get("processedOn"),
        read.get("finishedOn"), read.get("processedBy"), read["opts"]["attempts"], read["opts"].get("backoff"),
    ]  # fmt: skip


async def toril_job(side: TorilSide, job: str) -> Json:
    read = await side.queue.get_job(job)
    if read is None:
        return None
    # Node reads a stored null as the progress of a job that has not reported any.
    progress = 0 if read.progress is None else read.progress
    return [
        read.id, read.name, read.data, read.timestamp, read.delay, read.priority,
        read.attempts_made, read.attempts_started, read.stalled_counter, progress,
        read.return_value, read.failed_reason, read.stacktrace, read.processed_on,
        read.finished_on, read.processed_by, read.options.attempts, read.options.backoff,
    ]  # fmt: skip


# --- what happens to both: the same bare command on either side ---


def _command(*command: str) -> Operation:
    """Return an operation that sends a command to either side's keys.

    Parts in braces are arguments; what follows `key ` is a key's suffix.
    """

    async def send(side: NodeSide | TorilSide, **args: Json) -> None:
        filled = [part.format(**args) for part in command]
        parts = [side.keys.key(part[4:]) if part.startswith("key ") else part for part in filled]
        client: Any = side.client
        client.execute_command(*parts)

    return Operation(send, send)


OPERATIONS: Final[dict[str, Operation]] = {
    "add": Operation(node_add, toril_add),
    "add_bulk": Operation(node_add_bulk, toril_add_bulk),
    "take": Operation(node_take, toril_take),
    "take_many": Operation(node_take_many, toril_take_many),
    "complete": Operation(node_complete, toril_complete),
    "fail": Operation(node_fail, toril_fail),
    "finish_many": Operation(node_finish_many, toril_finish_many),
    "delay": Operation(node_delay, toril_delay),
    "give_back": Operation(node_give_back, toril_give_back),
    "extend_locks": Operation(node_extend_locks, toril_extend_locks),
    "stalled": Operation(node_stalled, toril_stalled),
    "promote": Operation(node_promote, toril_promote),
    "retry": Operation(node_retry, toril_retry),
    "progress": Operation(node_progress, toril_progress),
    "log": Operation(node_log, toril_log),
    "update_data": Operation(node_update_data, toril_update_data),
    "pause": Operation(node_pause, toril_pause),
    "resume": Operation(node_resume, toril_resume),
    "state": Operation(node_state, toril_state),
    "counts": Operation(node_counts, toril_counts),
    "jobs": Operation(node_jobs, toril_jobs),
    "logs": Operation(node_logs, toril_logs),
    "is_paused": Operation(node_is_paused, toril_is_paused),
    "metrics": Operation(node_metrics, toril_metrics),
    "job": Operation(node_job, toril_job),
    "lock_runs_out": _command("DEL", "key {job}:lock"),
    "interval_passes": _command("DEL", "key stalled-check"),
    "old_version_pauses": _command("RENAME", "key wait", "key paused"),
    "marker_is_popped": _command("ZPOPMIN", "key marker"),
    "limit_concurrency": Operation(node_limit_concurrency, toril_limit_concurrency),
    "unlimit_concurrency": Operation(node_unlimit_concurrency, toril_unlimit_concurrency),
    "is_maxed": Operation(node_is_maxed, toril_is_maxed),
    "counts_per_priority": Operation(node_counts_per_priority, toril_counts_per_priority),
    "limit": Operation(node_limit, toril_limit),
    "unlimit": Operation(node_unlimit, toril_unlimit),
    "rate_limit": Operation(node_rate_limit, toril_rate_limit),
    "window_ends": _command("DEL", "key limiter"),
    "change_delay": Operation(node_change_delay, toril_change_delay),
    "change_priority": Operation(node_change_priority, toril_change_priority),
    "clear_logs": Operation(node_clear_logs, toril_clear_logs),
    "remove": Operation(node_remove, toril_remove),
    "drain": Operation(node_drain, toril_drain),
    "clean": Operation(node_clean, toril_clean),
    "obliterate": Operation(node_obliterate, toril_obliterate),
    "retry_jobs": Operation(node_retry_jobs, toril_retry_jobs),
    "promote_jobs": Operation(node_promote_jobs, toril_promote_jobs),
    "remove_orphans": Operation(node_remove_orphans, toril_remove_orphans),
    "free_deduplication": Operation(node_free_deduplication, toril_free_deduplication),
    "free_own_deduplication": Operation(node_free_own_deduplication, toril_free_own_deduplication),
    "deduplication_owner": Operation(node_deduplication_owner, toril_deduplication_owner),
    "deduplication_runs_out": _command("DEL", "key de:{id}"),
    "record_vanishes": _command("DEL", "key {job}"),
    "add_flows": Operation(node_add_flows, toril_add_flows),
    "wait_for_children": Operation(node_wait_for_children, toril_wait_for_children),
    "remove_unprocessed_children": Operation(
        node_remove_unprocessed_children, toril_remove_unprocessed_children
    ),
    "cut_from_parent": Operation(node_cut_from_parent, toril_cut_from_parent),
    "children": Operation(node_children, toril_children),
}


# --- refusals ---

_MESSAGES: Final = {
    r"^(Missing key for job|no job )": "no such job",
    r"^(Missing lock for job|Lock mismatch for job)": "lock lost",
    r"is not in the .* state": "not in that state",
    r"has pending dependencies": "children pending",
    r"has at least one failed child": "children failed",
    r"^Missing key for parent job": "no such parent",
    r"^The parent job .* cannot be replaced": "another's child",
    r"active jobs": "jobs are active",
    r"belongs to a job scheduler": "a scheduler's next run",
}


def refusal_of(error: Exception) -> str:
    """Say in one form why either side refused a move.

    Raises:
        Exception: The error itself, if it is no refusal.
    """
    match error:
        case NodeError():
            for pattern, why in _MESSAGES.items():
                if re.search(pattern, error.message):
                    return why
        case JobNotFoundError():
            return "no such job"
        case LockLostError():
            return "lock lost"
        case JobNotInStateError():
            return "not in that state"
        case PendingChildrenError():
            return "children pending"
        case FailedChildrenError():
            return "children failed"
        case ParentNotFoundError():
            return "no such parent"
        case ParentTakenError():
            return "another's child"
        case SchedulerJobError():
            return "a scheduler's next run"
        case QueueNotEmptyError():
            return "jobs are active"
        case redis.ResponseError():
            return str(error)
        case _:
            pass
    raise error
