"""The moves that two clients are compared in: one table, each move once for Node and once for toril.

A move takes the same arguments on both sides, in Node's words, and answers in a form that can be compared. Who wants
to compare more adds a row to `OPERATIONS`; written and random programs are made of its names.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import redis

from tests.interop.node import NodeError, NodeQueue, NodeWorker

from toril.backoff import Exponential, Fixed, wait_ms
from toril.codec import dumps, loads
from toril.errors import JobNotFoundError, JobNotInStateError, LockLostError, refusal
from toril.keys import QueueKeys
from toril.options import KeepJobs, KeepRule, StoredOptions, keep_rule, prepare
from toril.scripts import Fetch, FinishedJob, NewRecord, Scripts

__all__ = ["OPERATIONS", "WORKERS", "NodeSide", "Operation", "TorilSide", "refusal_of"]

Json = Any
LOCK_MS: Final = 30_000

WORKERS: Final[dict[str, dict[str, Json]]] = {
    "plain": {},
    "named": {
        "name": "w-1",
        "removeOnComplete": {"count": 2},
        "removeOnFail": {"age": 5},
        "maxStalledCount": 0,
    },
}
"""The workers that moves are made for, with the options that change what a move leaves."""


@dataclass(slots=True)
class NodeSide:
    """The reference client's queue, and a worker of each kind that moves jobs when told to."""

    keys: QueueKeys
    client: redis.Redis
    queue: NodeQueue
    workers: dict[str, NodeWorker]

    async def ask(self, command: str, worker: str, **args: Json) -> Json:
        node = self.queue.node
        return await node.ask(command, worker=self.workers[worker].handle, **args)


@dataclass(slots=True)
class TorilSide:
    """toril's scripts on a queue, told what time it is."""

    keys: QueueKeys
    client: redis.Redis
    scripts: Scripts
    now_ms: int = 0

    def record(self, job_id: str) -> dict[str, str]:
        """Read a job, as every move of the reference client on a job begins."""
        record = self.record_if_any(job_id)
        if not record:
            raise JobNotFoundError(job_id)
        return record

    def record_if_any(self, job_id: str) -> dict[str, str]:
        return cast("dict[str, str]", self.client.hgetall(self.keys.job(job_id)))


Move = Callable[..., Awaitable[Json]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One move, for each side. Arguments come by name; see the functions."""

    node: Move
    toril: Move


# --- adding ---


async def node_add(side: NodeSide, name: str, data: Json, options: dict[str, Json]) -> Json:
    return (await side.queue.add(name, data, **options))["id"]


async def toril_add(side: TorilSide, name: str, data: Json, options: dict[str, Json]) -> Json:
    return (await side.scripts.add_job([_new(side, name, data, options)]))[0]


async def node_add_bulk(side: NodeSide, jobs: list[tuple[str, Json, dict[str, Json]]]) -> Json:
    bulk = [{"name": name, "data": data, "opts": options} for name, data, options in jobs]
    return [job["id"] for job in await side.queue.call("addBulk", bulk)]


async def toril_add_bulk(side: TorilSide, jobs: list[tuple[str, Json, dict[str, Json]]]) -> Json:
    return await side.scripts.add_job([_new(side, *job) for job in jobs]) if jobs else []


def _new(side: TorilSide, name: str, data: Json, options: dict[str, Json]) -> NewRecord:
    prepared = prepare({_SPELLING.get(key, key): _spelt(key, value) for key, value in options.items()})
    return NewRecord(
        prepared.job_id,
        name,
        dumps(data),
        prepared.stored,
        prepared.timestamp or side.now_ms,
        prepared.delay_ms,
        prepared.priority,
        prepared.lifo,
    )


_SPELLING: Final = {
    "jobId": "job_id",
    "keepLogs": "keep_logs",
    "stackTraceLimit": "stack_trace_limit",
    "sizeLimit": "size_limit",
    "removeOnComplete": "remove_on_complete",
    "removeOnFail": "remove_on_fail",
}


def _spelt(key: str, value: Json) -> Json:
    """Return an option of Node's as a user of toril writes it."""
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
            return KeepJobs(**value)
        case _:
            return value


# --- running ---


async def node_take(side: NodeSide, token: str, worker: str = "plain") -> Json:
    job = await side.ask("take", worker, token=token)
    return job and (job["id"], job["name"], job["data"])


async def toril_take(side: TorilSide, token: str, worker: str = "plain") -> Json:
    fetched = await side.scripts.move_to_active(side.now_ms, _fetch(1, token, worker))
    return _seen(fetched.jobs)[0] if fetched.jobs else None


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
    return _seen((await side.scripts.move_to_active(side.now_ms, _fetch(want, token, worker))).jobs)


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
    told = {"message": error, "stack": _stack(error), "unrecoverable": unrecoverable}
    await side.ask("fail", worker, jobId=job, token=token, error=told)


async def toril_fail(
    side: TorilSide, job: str, token: str, error: str, unrecoverable: bool = False, worker: str = "plain"
) -> Json:
    """What a worker decides after a failure: run again now, later, or never."""
    record = side.record(job)
    options = StoredOptions.parse(record["opts"])
    made = int(record.get("atm", 0)) + 1
    if unrecoverable or made >= options.attempts:
        end = _failed(side, job, token, error, worker)
        codes, _ = await side.scripts.move_to_finished(side.now_ms, [end], _fetch(0, token, worker))
        if codes[0]:
            raise refusal(codes[0], job)
        return None
    wait = wait_ms(options.backoff, made)
    traces = _traces(record, options, error)
    if wait:
        await side.scripts.move_to_delayed(
            side.now_ms, job, token, wait, counts=True, failed_reason=error, stacktrace=traces
        )
    else:
        await side.scripts.retry_job(side.now_ms, job, token, error, traces, lifo=options.lifo)
    return None


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
                told = {"message": end["error"], "stack": _stack(end["error"]), "unrecoverable": True}
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
            taken.append((fetched["id"], fetched["name"], fetched["data"]))
            taken += await node_take_many(side, token, want - 1, worker)
    return codes, taken


async def toril_finish_many(
    side: TorilSide, ends: list[dict[str, Json]], want: int, worker: str = "plain"
) -> Json:
    finished: list[FinishedJob] = []
    for end in ends:
        job, token = end["job"], end["token"]
        if "error" in end:
            finished.append(_failed(side, job, token, end["error"], worker))
        else:
            finished.append(_completed(side, job, token, end["value"], worker))
    fetch = _fetch(want, ends[-1]["token"], worker)
    codes, fetched = await side.scripts.move_to_finished(side.now_ms, finished, fetch)
    return [code and refusal_of(refusal(code, "")) for code in codes], _seen(fetched.jobs)


def _completed(side: TorilSide, job: str, token: str, value: Json, worker: str) -> FinishedJob:
    options = StoredOptions.parse(side.record_if_any(job).get("opts", ""))
    keep = options.keep_completed or keep_rule(WORKERS[worker].get("removeOnComplete")) or KeepRule()
    return FinishedJob(job, token, "completed", dumps(value), "", options.attempts, keep)


def _failed(side: TorilSide, job: str, token: str, error: str, worker: str) -> FinishedJob:
    record = side.record_if_any(job)
    options = StoredOptions.parse(record.get("opts", ""))
    keep = options.keep_failed or keep_rule(WORKERS[worker].get("removeOnFail")) or KeepRule()
    return FinishedJob(job, token, "failed", error, _traces(record, options, error), options.attempts, keep)


def _fetch(want: int, token: str, worker: str) -> Fetch:
    return Fetch(want, token, LOCK_MS, WORKERS[worker].get("name", ""))


def _seen(jobs: list[tuple[str, dict[str, str]]]) -> list[Json]:
    return [(job_id, record["name"], loads(record["data"])) for job_id, record in jobs]


def _stack(error: str) -> str:
    return f"Error: {error}\n    at work (job.js:1:1)"


def _traces(record: dict[str, str], options: StoredOptions, error: str) -> str:
    traces = [*loads(record.get("stacktrace", "[]")), _stack(error)]
    limit = options.stack_trace_limit
    return dumps(traces if limit is None else traces[len(traces) - limit :] if limit else [])


async def node_delay(side: NodeSide, job: str, token: str, until: int, worker: str = "plain") -> Json:
    await side.ask("delay", worker, jobId=job, token=token, until=until)


async def toril_delay(side: TorilSide, job: str, token: str, until: int, worker: str = "plain") -> Json:
    side.record(job)
    await side.scripts.move_to_delayed(side.now_ms, job, token, max(0, until - side.now_ms), counts=False)


async def node_give_back(side: NodeSide, job: str, token: str) -> Json:
    return await side.ask("give-back", "plain", jobId=job, token=token)


async def toril_give_back(side: TorilSide, job: str, token: str) -> Json:
    return await side.scripts.move_to_wait(job, token)


async def node_extend_locks(side: NodeSide, jobs: list[str], tokens: list[str]) -> Json:
    return await side.ask("extend-locks", "plain", jobIds=jobs, tokens=tokens, duration=LOCK_MS)


async def toril_extend_locks(side: TorilSide, jobs: list[str], tokens: list[str]) -> Json:
    return await side.scripts.extend_locks(LOCK_MS, zip(jobs, tokens, strict=True))


async def node_stalled(side: NodeSide, worker: str = "plain") -> Json:
    return await side.ask("stalled", worker)


async def toril_stalled(side: TorilSide, worker: str = "plain") -> Json:
    most = WORKERS[worker].get("maxStalledCount", 1)
    return await side.scripts.move_stalled_jobs_to_wait(side.now_ms, most, 30_000)


# --- changing ---


async def node_promote(side: NodeSide, job: str) -> Json:
    await side.queue.on_job(job, "promote")


async def toril_promote(side: TorilSide, job: str) -> Json:
    side.record(job)
    await side.scripts.promote(job)


async def node_retry(
    side: NodeSide, job: str, state: str, reset_made: bool = False, reset_started: bool = False
) -> Json:
    resets = {"resetAttemptsMade": reset_made, "resetAttemptsStarted": reset_started}
    await side.queue.on_job(job, "retry", state, resets)


async def toril_retry(
    side: TorilSide, job: str, state: Json, reset_made: bool = False, reset_started: bool = False
) -> Json:
    options = StoredOptions.parse(side.record(job)["opts"])
    await side.scripts.reprocess_job(
        job,
        state,
        lifo=options.lifo,
        reset_attempts_made=reset_made,
        reset_attempts_started=reset_started,
    )


async def node_progress(side: NodeSide, job: str, value: Json) -> Json:
    await side.queue.call("updateJobProgress", job, value)


async def toril_progress(side: TorilSide, job: str, value: Json) -> Json:
    await side.scripts.update_progress(job, "", dumps(value))


async def node_log(side: NodeSide, job: str, row: str) -> Json:
    return await side.queue.on_job(job, "log", row)


async def toril_log(side: TorilSide, job: str, row: str) -> Json:
    options = StoredOptions.parse(side.record(job)["opts"])
    return await side.scripts.add_log(job, "", row, options.keep_logs)


async def node_update_data(side: NodeSide, job: str, data: Json) -> Json:
    await side.queue.on_job(job, "updateData", data)


async def toril_update_data(side: TorilSide, job: str, data: Json) -> Json:
    await side.scripts.update_data(job, "", dumps(data))


async def node_pause(side: NodeSide) -> Json:
    await side.queue.call("pause")


async def toril_pause(side: TorilSide) -> Json:
    await side.scripts.pause("pause")


async def node_resume(side: NodeSide) -> Json:
    await side.queue.call("resume")


async def toril_resume(side: TorilSide) -> Json:
    if await side.scripts.pause("resume"):
        while await side.scripts.pause("continue"):
            pass


# --- reading ---


async def node_state(side: NodeSide, job: str) -> Json:
    return await side.queue.call("getJobState", job)


async def toril_state(side: TorilSide, job: str) -> Json:
    return await side.scripts.get_state(job)


# --- what happens to both: the same bare command on either side ---


def _command(*command: str) -> Operation:
    """Return an operation that sends a command to either side's keys.

    Parts in braces are arguments; what follows `key ` is a key's suffix.
    """

    async def send(side: NodeSide | TorilSide, **args: Json) -> None:
        filled = [part.format(**args) for part in command]
        side.client.execute_command(
            *(
                side.keys.key(part.removeprefix("key ")) if part.startswith("key ") else part
                for part in filled
            )
        )

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
    "lock_runs_out": _command("DEL", "key {job}:lock"),
    "interval_passes": _command("DEL", "key stalled-check"),
    "old_version_pauses": _command("RENAME", "key wait", "key paused"),
    "marker_is_popped": _command("ZPOPMIN", "key marker"),
    "limit_concurrency": _command("HSET", "key meta", "concurrency", "{most}"),
}


# --- refusals ---

_MESSAGES: Final = {
    r"^(Missing key for job|no job )": "no such job",
    r"^(Missing lock for job|Lock mismatch for job)": "lock lost",
    r"is not in the .* state": "not in that state",
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
        case redis.ResponseError():
            return str(error)
        case _:
            pass
    raise error
