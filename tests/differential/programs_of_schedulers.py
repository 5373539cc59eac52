"""Programs about job schedulers: intervals, patterns, limits, upserts at any time, runs that fail or stall."""

from __future__ import annotations

from typing import Any

from .bench import ITS, START_MS, Pick, Step

__all__ = ["PROGRAMS", "RICH"]

Json = Any
MINUTE = 60_000


def upsert(id: str = "s", template: dict[str, Json] | None = None, **repeat: Json) -> Step:
    return "upsert_scheduler", {"id": id, "repeat": repeat, "template": template or {}}


def cron(pattern: str, id: str = "s", template: dict[str, Json] | None = None, **repeat: Json) -> Step:
    return upsert(id, template, pattern=pattern, **{"tz": "UTC", **repeat})


def start(token: str = "t1") -> Step:
    return "take", {"token": token}


def done(job: str | Pick, token: str = ITS) -> Step:
    return "complete", {"job": job, "token": token, "value": None, "fetch": False}


def failed(job: str | Pick, token: str = ITS) -> Step:
    return "fail", {"job": job, "token": token, "error": "boom"}


def later(ms: int) -> Step:
    return "time_passes", {"ms": ms}


def remove(id: str = "s") -> Step:
    return "remove_scheduler", {"id": id}


RUNNING = Pick(("active",))
GET: Step = ("scheduler", {"id": "s"})
LIST: Step = ("schedulers", {"start": 0, "end": -1, "ascending": False})
RICH: dict[str, Json] = {
    "name": "ping",
    "data": {"a": [1, "å/"]},
    "opts": {
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 500},
        "priority": 4,
        "removeOnComplete": {"count": 2},
        "removeOnFail": 5,
        "keepLogs": 3,
        "stackTraceLimit": 1,
    },
}

PROGRAMS: dict[str, list[Step]] = {
    "an interval": [upsert(every=MINUTE), GET, start(), GET, done(RUNNING), later(MINUTE), start(), LIST],
    "an interval with an offset": [
        upsert(every=MINUTE, offset=5000), GET, later(MINUTE), start(), later(MINUTE), start(), GET,
    ],
    "an interval with a start": [upsert(every=MINUTE, startDate=START_MS + 90_000), later(90_000), start(), GET],
    "an interval with a start in the past": [upsert(every=MINUTE, startDate=START_MS - 90_500), start(), GET],
    "an interval with a start and an offset": [
        upsert(every=MINUTE, startDate=START_MS + 90_000, offset=7000), later(90_000), start(), GET,
    ],
    "an interval with everything": [upsert(template=RICH, every=MINUTE, limit=3), GET, start(), done(RUNNING), GET],
    "an odd interval": [upsert(every=777), start(), later(778), start(), later(10_000), start(), GET],
    "an interval whose runs are missed": [upsert(every=MINUTE), later(5 * MINUTE + 30_000), start(), GET, start()],
    "an interval that is exactly due": [upsert(every=MINUTE), start(), later(2 * MINUTE), start(), GET],
    "a limited interval": [
        upsert(every=1000, limit=2), start(), done(RUNNING), later(1000), start(), done(RUNNING), later(1000),
        start(), GET, LIST,
    ],
    "an interval with an end": [
        upsert(every=1000, endDate=START_MS + 1500), start(), later(1000), start(), later(1000), start(), GET,
    ],
    "the same interval again": [
        upsert(every=MINUTE), start(), later(10_000), upsert(every=MINUTE), GET, upsert(template=RICH, every=MINUTE),
        GET, later(50_000), start(),
    ],
    "another interval": [
        upsert(every=MINUTE), start(), later(10_000), upsert(every=2 * MINUTE), GET, start(), later(2 * MINUTE),
        start(),
    ],
    "the same interval while its job waits": [upsert(every=MINUTE), upsert(every=MINUTE), start(), GET],
    "another interval while its job waits": [upsert(every=MINUTE), later(500), upsert(every=1000), start(), GET],
    "an interval while its job waits by priority": [
        upsert(template=RICH, every=MINUTE), upsert(template=RICH, every=MINUTE), start(), GET,
    ],
    "an interval while its first job runs": [
        upsert(every=MINUTE), start(), upsert(every=MINUTE), done(RUNNING), upsert(every=MINUTE), GET,
    ],
    "an offset that changes": [
        upsert(every=MINUTE, offset=5000), upsert(every=MINUTE, offset=9000), GET, upsert(every=MINUTE), GET,
    ],
    "cron": [cron("* * * * *"), GET, later(MINUTE), start(), GET, done(RUNNING), later(MINUTE), start(), LIST],
    "cron with seconds": [cron("*/7 * * * * *"), later(7000), start(), later(7000), start(), GET],
    "cron with a zone": [cron("0 3 * * *", tz="America/New_York"), GET],
    "cron with everything": [cron("*/2 * * * *", template=RICH, limit=5), GET, later(2 * MINUTE), start(), GET],
    "cron at once": [cron("0 0 1 1 *", immediately=True), GET, start(), GET, done(RUNNING)],
    "cron with a start": [cron("* * * * *", startDate=START_MS + 10 * MINUTE), GET],
    "cron with an end": [
        cron("* * * * *", endDate=START_MS + 2 * MINUTE), later(MINUTE), start(), later(MINUTE), start(),
        later(MINUTE), start(), GET,
    ],
    "cron that ends before it begins": [cron("0 0 1 1 *", endDate=START_MS + 5000), LIST],
    "cron whose runs are missed": [cron("* * * * *"), later(10 * MINUTE), start(), GET, start()],
    "limited cron": [cron("* * * * * *", limit=2), later(1000), start(), later(1000), start(), later(1000), start()],
    "the same cron again": [cron("* * * * *"), later(10), cron("* * * * *"), GET, later(MINUTE), start(), GET],
    "another cron": [cron("* * * * *"), cron("0 * * * *", template=RICH), GET, cron("* * * * * *"), GET],
    "another cron while its job runs": [
        cron("* * * * *"), later(MINUTE), start(), cron("0 * * * *"), GET, done(RUNNING), LIST,
    ],
    "cron at a time that it has a job for": [
        cron("0 0 1 1 *", immediately=True), start(), ("remove_scheduler", {"id": "s"}),
        cron("0 0 1 1 *", immediately=True), GET,
    ],
    "cron, then an interval": [cron("0 * * * *"), upsert(every=MINUTE), GET, start(), cron("0 * * * *"), GET],
    "an interval with an offset, then cron": [upsert(every=MINUTE, offset=5000), cron("0 * * * *"), GET],
    "an upsert that leaves fields out": [
        cron("* * * * *", template=RICH, limit=4, endDate=START_MS + 900 * MINUTE), cron("* * * * *"), GET,
    ],
    "a run that fails and is tried again": [
        upsert(template={"opts": {"attempts": 2}}, every=MINUTE), start(), failed(RUNNING), start(), done(RUNNING), GET,
    ],
    "a run that stalls": [
        upsert(every=MINUTE), start(), ("stalled", {}), ("lock_runs_out", {"job": RUNNING}), ("interval_passes", {}),
        ("stalled", {}), start("t2"), GET,
    ],
    "two schedulers": [upsert("a", every=MINUTE), cron("* * * * *", "b"), LIST, start(), later(MINUTE), start(), LIST],
    "lists of schedulers": [
        upsert("a", every=MINUTE, offset=1), upsert("b", every=MINUTE, offset=2), upsert("c", every=MINUTE, offset=3),
        ("schedulers", {"start": 0, "end": 1, "ascending": False}),
        ("schedulers", {"start": 1, "end": 2, "ascending": True}),
    ],
    "removing": [upsert(every=MINUTE), start(), remove(), GET, remove(), done(RUNNING), LIST],
    "removing while its job waits": [upsert(every=MINUTE), remove(), start(), GET],
    "removing what is not there": [remove()],
    "removing its pending job": [cron("* * * * *"), ("remove", {"job": Pick(("delayed",))})],
    "removing, and making again": [
        upsert(every=MINUTE), start(), remove(), later(1000), upsert(every=MINUTE), GET, start(), GET,
    ],
    "promoting its job": [
        cron("0 * * * *"), ("promote", {"job": Pick(("delayed",))}), GET, start(), GET, done(RUNNING),
    ],
    "promoting its interval's job": [
        upsert(every=MINUTE, offset=9), ("promote", {"job": Pick(("delayed",))}), start(), GET,
    ],
    "an upsert between promotion and start": [
        cron("0 * * * *"), ("promote", {"job": Pick(("delayed",))}), cron("0 * * * *"), GET,
    ],
    "a paused queue": [("pause", {}), cron("* * * * *"), cron("* * * * *"), ("resume", {}), later(MINUTE), start()],
    "a queue with as many jobs as it may have": [
        ("limit_concurrency", {"most": 1}), upsert(every=1000), start(), later(1000), start(), done(RUNNING), start(),
    ],
    "lifo": [upsert(template={"opts": {"lifo": True}}, every=MINUTE), ("add", {"name": "x", "data": {}, "options": {}}),
             start(), start(), GET],
    "an id with colons": [upsert("a:b", every=MINUTE), start(), later(MINUTE), start()],
    "an id that JSON escapes": [upsert('q"\\/å', every=MINUTE), start(), later(MINUTE), start(), LIST],
    "draining": [upsert(every=MINUTE), start(), ("drain", {"delayed": True}), GET],
    "obliterating": [upsert(every=MINUTE), cron("* * * * *", "c"), ("pause", {}), ("obliterate", {"force": True})],
}  # fmt: skip
