"""The keys of each script, without the queue's base, in the order of its header. A test holds the two together.

Scripts whose first key depends on the call (`reprocess_job`, `move_jobs_to_wait`) have the others here.
"""

from __future__ import annotations

from ..states import KEY_OF_STATE, STATES

_FETCH_TAIL = ("pc", "marker", "meta", "limiter", "events")
META = ("meta",)
ADD_JOB = (
    "id",
    "wait",
    "prioritized",
    "delayed",
    "active",
    "pc",
    "marker",
    "meta",
    "waiting-children",
    "events",
)
RELEASE_PARENTS = META
MOVE_TO_ACTIVE = ("wait", "active", "prioritized", "delayed", *_FETCH_TAIL)
MOVE_TO_FINISHED = (
    "wait",
    "active",
    "prioritized",
    "delayed",
    "completed",
    "failed",
    "stalled",
    *_FETCH_TAIL,
)
RETRY_JOB = ("wait", "active", "prioritized", "delayed", "stalled", "pc", "marker", "meta", "events")
MOVE_TO_DELAYED = ("active", "delayed", "stalled", "marker", "meta", "events")
MOVE_TO_WAIT = ("wait", "active", "prioritized", "stalled", "marker", "meta", "limiter", "events")
MOVE_STALLED_JOBS_TO_WAIT = (
    "stalled",
    "wait",
    "active",
    "stalled-check",
    "meta",
    "marker",
    "repeat",
    "events",
)
EXTEND_LOCKS = ("stalled",)
RECLAIM_LOCKS = ("stalled", "active")
ADOPT_JOBS = ("active",)
PROMOTE = ("delayed", "wait", "active", "prioritized", "pc", "marker", "meta", "events")
REPROCESS_JOB = ("wait", "active", "prioritized", "pc", "marker", "meta", "events")
PAUSE = ("meta", "marker", "wait", "paused", "prioritized", "delayed", "events")
HAND_ON_MARKER = ("wait", "active", "prioritized", "delayed", "marker", "meta")
UPDATE_PROGRESS = ("meta", "events")
MOVE_TO_WAITING_CHILDREN = ("active", "waiting-children", "stalled", "events")
CHANGE_DELAY = ("delayed", "marker", "meta", "events")
CHANGE_PRIORITY = ("wait", "active", "prioritized", "pc", "marker", "meta")
MOVE_JOBS_TO_WAIT = ("wait", "active", "marker", "meta", "events")
JOB_SCHEDULER = (
    "repeat",
    "id",
    "wait",
    "prioritized",
    "delayed",
    "active",
    "pc",
    "marker",
    "meta",
    "events",
)
FIND_IDLE = ("repeat", "wait", "prioritized", "delayed", "active")
REPAIR = (
    "wait",
    "active",
    "paused",
    "prioritized",
    "delayed",
    "waiting-children",
    "completed",
    "failed",
    "stalled",
    "marker",
)
# In the order of STATES, by which the answer is read.
GET_COUNTS = tuple(KEY_OF_STATE[state] for state in STATES)
GET_STATE = (
    "completed",
    "failed",
    "delayed",
    "prioritized",
    "active",
    "wait",
    "paused",
    "waiting-children",
)
