"""The words of written programs: a function for each move, with the arguments that matter."""

from __future__ import annotations

from typing import Any

from .bench import Step

Json = Any


def add(name: str = "a", data: Json = None, **options: Json) -> Step:
    return "add", {"name": name, "data": {} if data is None else data, "options": options}


def bulk(*options: dict[str, Json]) -> Step:
    return "add_bulk", {"jobs": [(f"j{index}", {"i": index}, each) for index, each in enumerate(options)]}


def take(token: str = "t1", worker: str = "plain") -> Step:
    return "take", {"token": token, "worker": worker}


def take_many(want: int, token: str = "t1", worker: str = "plain") -> Step:
    return "take_many", {"want": want, "token": token, "worker": worker}


def complete(
    job: str, token: str = "t1", value: Json = None, *, fetch: bool = False, worker: str = "plain"
) -> Step:
    return "complete", {"job": job, "token": token, "value": value, "fetch": fetch, "worker": worker}


def fail(
    job: str, token: str = "t1", error: str = "boom", *, unrecoverable: bool = False, worker: str = "plain"
) -> Step:
    return "fail", {
        "job": job, "token": token, "error": error, "unrecoverable": unrecoverable, "worker": worker
    }  # fmt: skip


def finish_many(want: int, *ends: dict[str, Json], worker: str = "plain") -> Step:
    return "finish_many", {"ends": list(ends), "want": want, "worker": worker}


def done(job: str, token: str = "t1", value: Json = None) -> dict[str, Json]:
    return {"job": job, "token": token, "value": value}


def failed(job: str, token: str = "t1", error: str = "boom") -> dict[str, Json]:
    return {"job": job, "token": token, "error": error}


def delay(job: str, until: int, token: str = "t1") -> Step:
    return "delay", {"job": job, "token": token, "until": until}


def give_back(job: str, token: str = "t1") -> Step:
    return "give_back", {"job": job, "token": token}


def extend(*held: tuple[str, str]) -> Step:
    return "extend_locks", {"jobs": [job for job, _ in held], "tokens": [token for _, token in held]}


def stalled(worker: str = "plain") -> Step:
    return "stalled", {"worker": worker}


def promote(job: str) -> Step:
    return "promote", {"job": job}


def retry(job: str, state: str = "failed", **resets: bool) -> Step:
    return "retry", {"job": job, "state": state, **resets}


def progress(job: str, value: Json) -> Step:
    return "progress", {"job": job, "value": value}


def log(job: str, row: str) -> Step:
    return "log", {"job": job, "row": row}


def update_data(job: str, data: Json) -> Step:
    return "update_data", {"job": job, "data": data}


def state(job: str) -> Step:
    return "state", {"job": job}


def jobs(*states: str, start: int = 0, end: int = -1, ascending: bool = False) -> Step:
    return "jobs", {"states": list(states), "start": start, "end": end, "ascending": ascending}


def logs(job: str, start: int = 0, end: int = -1, *, ascending: bool = True) -> Step:
    return "logs", {"job": job, "start": start, "end": end, "ascending": ascending}


def metrics(state: str = "completed") -> Step:
    return "metrics", {"state": state}


def job(job: str) -> Step:
    return "job", {"job": job}


def time_passes(ms: int) -> Step:
    return "time_passes", {"ms": ms}


def lock_runs_out(job: str) -> Step:
    return "lock_runs_out", {"job": job}


def limit_concurrency(most: int) -> Step:
    return "limit_concurrency", {"most": most}


PAUSE: Step = ("pause", {})
RESUME: Step = ("resume", {})
INTERVAL_PASSES: Step = ("interval_passes", {})
OLD_VERSION_PAUSES: Step = ("old_version_pauses", {})
MARKER_IS_POPPED: Step = ("marker_is_popped", {})

FIXED = {"type": "fixed", "delay": 1000}
EXPONENTIAL = {"type": "exponential", "delay": 1000}
RICH: Json = {"text": 'blå/\\"\n', "list": [], "null": None, "number": 1.5, "nested": {"a": [1, {"b": True}]}}


# --- changing, removing, many at once ---


def change_delay(job: str, ms: int) -> Step:
    return "change_delay", {"job": job, "ms": ms}


def change_priority(job: str, priority: int, *, lifo: bool = False) -> Step:
    return "change_priority", {"job": job, "priority": priority, "lifo": lifo}


def clear_logs(job: str, keep: int = 0) -> Step:
    return "clear_logs", {"job": job, "keep": keep}


def remove(job: str, *, children: bool = True, queue: str = "q") -> Step:
    return "remove", {"job": job, "children": children, "queue": queue}


def drain(*, delayed: bool = False, queue: str = "q") -> Step:
    return "drain", {"delayed": delayed, "queue": queue}


def clean(state: str, grace_ms: int = 0, limit: int = 0, *, queue: str = "q") -> Step:
    return "clean", {"state": state, "grace_ms": grace_ms, "limit": limit, "queue": queue}


def obliterate(*, force: bool = False, queue: str = "q") -> Step:
    return "obliterate", {"force": force, "queue": queue}


def retry_jobs(state: str = "failed", count: int = 1000) -> Step:
    return "retry_jobs", {"state": state, "count": count}


def promote_jobs(count: int = 1000) -> Step:
    return "promote_jobs", {"count": count}


REMOVE_ORPHANS: Step = ("remove_orphans", {})


# --- limits ---


def limit(most: int, ms: int = 60_000) -> Step:
    return "limit", {"most": most, "ms": ms}


def rate_limit(ms: int = 60_000) -> Step:
    return "rate_limit", {"ms": ms}


UNLIMIT: Step = ("unlimit", {})
WINDOW_ENDS: Step = ("window_ends", {})


# --- deduplication ---


def dedup(id: str = "d", **how: Json) -> dict[str, Json]:
    """Return the options of a deduplicated job."""
    return {"deduplication": {"id": id, **how}}


def owner(id: str = "d") -> Step:
    return "deduplication_owner", {"id": id}


def free(id: str = "d") -> Step:
    return "free_deduplication", {"id": id}


def free_own(job: str) -> Step:
    return "free_own_deduplication", {"job": job}


def runs_out(id: str = "d") -> Step:
    return "deduplication_runs_out", {"id": id}


def vanishes(job: str) -> Step:
    return "record_vanishes", {"job": job}


# --- flows ---


def node(id: str, *children: Json, queue: str = "q", **options: Json) -> Json:
    """Return a job of a flow; with children it waits for them."""
    made: dict[str, Json] = {"queue": queue, "id": id, "options": options}
    return {**made, "children": list(children)} if children else made


def flow(*trees: Json) -> Step:
    return "add_flows", {"flows": list(trees)}


def wait_for_children(job: str, token: str = "t1", child: tuple[str, str] | None = None) -> Step:
    return "wait_for_children", {"job": job, "token": token, "child": child}


def remove_unprocessed_children(job: str) -> Step:
    return "remove_unprocessed_children", {"job": job}


def cut_from_parent(job: str, *, queue: str = "q") -> Step:
    return "cut_from_parent", {"job": job, "queue": queue}


def children(job: str) -> Step:
    return "children", {"job": job}


def at(queue: str, step: Step) -> Step:
    """Return the step in another queue."""
    return step[0], {**step[1], "queue": queue}
