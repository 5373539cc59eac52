"""The options of a job: what users write, what stands in Redis, and what a worker reads back.

Users write Python's spelling and durations; Redis holds BullMQ's compact names and milliseconds, as
ordinary JSON without nulls. Unknown options are refused on the way in and kept on the way out, since
a newer Node client may have written them.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, cast

from ._shown import shown
from .backoff import Backoff, Custom, Duration, Exponential, Fixed, milliseconds
from .codec import MAX_SAFE_INTEGER, dumps, loads
from .errors import ConfigurationError, SerializationError
from .keys import check_job_id

if TYPE_CHECKING:
    from .job import Job

__all__ = [
    "HIGHEST_PRIORITY",
    "Deduplication",
    "Durability",
    "JobOptions",
    "KeepJobs",
    "KeepRule",
    "Parent",
    "PreparedOptions",
    "StoredOptions",
    "Telemetry",
    "expanded",
    "prepare",
]

HIGHEST_PRIORITY: Final = 2_097_151
"""The largest priority number, which runs last."""

Durability = Literal["replicated", "fsynced"]
"""How certain it has to be, before `add` returns, that the job outlives a crash."""

_MAX_DATE_MS: Final = 2**53 // 4096
"""Due times beyond this have no exact score; it lies in 2039."""


@dataclass(frozen=True, slots=True)
class KeepJobs:
    """How many finished jobs are kept.

    Args:
        count: The newest so many.
        age: Those that ended within this time.
        limit: How many are removed by age at a time, so that no call takes long.
    """

    count: int | None = None
    age: Duration | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Deduplication:
    """What adding does while another job of the same deduplication id is there.

    With an id alone, further jobs are dropped until the first has ended. What is added then is answered
    with the job that stands for it.

    Args:
        id: What the jobs have in common.
        ttl: Jobs are dropped for this time only, whether or not the first has ended. 0 is no time of its own, as None
            is: BullMQ reads it so too.
        extend: Each dropped job lets `ttl` begin anew.
        replace: A job that is still delayed makes way for the newer one.
        reschedule: A job that is still delayed takes over the delay of the dropped one.
        keep_last_if_active: While the first is running, the last of the dropped ones is kept for after it.
    """

    id: str
    ttl: Duration | None = None
    extend: bool = False
    replace: bool = False
    reschedule: bool = False
    keep_last_if_active: bool = False

    def stored(self) -> dict[str, Any]:
        """Return the form that stands in the job's options.

        Raises:
            ConfigurationError: There is no id, or one of the others cannot be.
        """
        if not isinstance(self.id, str) or not self.id:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"deduplication needs an id that is text and not empty, got {shown(self.id)}"
            )
        stored: dict[str, Any] = {"id": self.id}
        if self.ttl is not None:
            stored["ttl"] = milliseconds(self.ttl, "deduplication ttl")
        for stored_name, name in (
            ("extend", "extend"),
            ("replace", "replace"),
            ("reschedule", "reschedule"),
            ("keepLastIfActive", "keep_last_if_active"),
        ):
            if _check_flag(f"deduplication.{name}", getattr(self, name))[1]:
                stored[stored_name] = True
        return stored


@dataclass(frozen=True, slots=True)
class Parent:
    """A job that waits for this one.

    Attributes:
        id: Of the parent.
        queue: Its queue's qualified name, `<prefix>:<queue>`.
    """

    id: str
    queue: str

    @property
    def key(self) -> str:
        """The key of the parent's record."""
        return f"{self.queue}:{self.id}"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """A trace that a job belongs to. It stays with the job through retries, and with a scheduler's further runs.

    Workers with telemetry go on with it, in Python and Node; a processor finds it in `Job.telemetry`. A queue with
    telemetry gives its jobs the trace of the code that adds them; this is for another one, or none.

    Args:
        metadata: The context as text, for OpenTelemetry a JSON object with `traceparent`.
        omit_context: The job takes no trace along; its attempts begin one.
    """

    metadata: str | None = None
    omit_context: bool = False


class JobOptions(TypedDict, total=False):
    """What `add` takes beside name and data. Durations are `timedelta` or seconds."""

    job_id: str
    """An id of your own; adding it twice adds it once. Not an integer, and without `:`."""
    delay: Duration
    """Not before this time has passed."""
    priority: int
    """1 runs first, 2,097,151 last. 0, the default, runs before all of them."""
    durability: Durability
    """Wait until a replica has the job (`replicated`), or the disk (`fsynced`, with `appendfsync always`)."""
    attempts: int
    """How often the job is tried in all."""
    backoff: Backoff | Duration
    """How long to wait between attempts; a duration is a `Fixed` one."""
    lifo: bool
    """Run before the jobs that are waiting now."""
    timestamp: int
    """When the job was made, in epoch milliseconds; delays count from here."""
    keep_logs: int
    """How many of the newest log rows are kept."""
    stack_trace_limit: int
    """How many of the newest stack traces are kept."""
    size_limit: int
    """The most bytes that the data may have as JSON."""
    remove_on_complete: bool | int | KeepJobs
    """True removes the job when it completes, a number keeps so many of the queue's."""
    remove_on_fail: bool | int | KeepJobs
    """The same for jobs that fail for good."""
    deduplication: Deduplication
    """Drop the job, or another, while there is one of the same deduplication id."""
    parent: Parent | Job[Any]
    """The job that waits for this one."""
    telemetry: Telemetry
    """The trace that the job belongs to."""
    fail_parent_on_failure: bool
    """When the job fails for good, its parent fails too, and so on upwards."""
    continue_parent_on_failure: bool
    """When the job fails for good, its parent runs at once, whatever else it waits for."""
    ignore_dependency_on_failure: bool
    """When the job fails for good, its parent waits for it no longer, and can read why it failed."""
    remove_dependency_on_failure: bool
    """When the job fails for good, its parent waits for it no longer."""


@dataclass(frozen=True, slots=True)
class KeepRule:
    """How the finish script is told what to keep.

    Attributes:
        count: -1 keeps all, 0 keeps not even this job, empty says nothing.
        age: Seconds, or empty.
        limit: How many to remove by age.
    """

    count: str = "-1"
    age: str = ""
    limit: str = "1000"


@dataclass(frozen=True, slots=True)
class PreparedOptions:
    """Options that have been checked, ready to be stored."""

    stored: str = '{"attempts":0}'
    job_id: str = ""
    delay_ms: int = 0
    priority: int = 0
    lifo: bool = False
    timestamp: int | None = None
    size_limit: int | None = None
    durability: str | None = None
    extras: Mapping[str, Any] | None = None


_NO_OPTIONS: Final = PreparedOptions()


def prepare(options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> PreparedOptions:
    """Check options and put them into the stored form.

    Args:
        options: What the caller gave.
        defaults: What holds for options that the caller did not give.

    Raises:
        ConfigurationError: An option is unknown, has the wrong type or is out of range.
    """
    if options and not isinstance(options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"options must be a mapping of names to values, got {shown(options)}")
    if defaults:
        options = {**defaults, **(options or {})}
    if not options:
        return _NO_OPTIONS
    raw: dict[str, Any] = {"attempts": 0}
    durability = None
    for name, value in options.items():
        check = _CHECKS.get(name)
        if check is None:
            raise ConfigurationError(_unknown(name))
        stored_name, stored_value = check(name, value)
        if stored_name == "durability":
            # For the producer alone; nobody reads it from the record.
            durability = stored_value
        elif isinstance(stored_value, Telemetry):
            # One option of ours is two of BullMQ's.
            raw |= {"tm": stored_value.metadata} if stored_value.metadata is not None else {}
            raw |= {"omc": True} if stored_value.omit_context else {}
        elif stored_value is not None:
            raw[stored_name] = stored_value
    return PreparedOptions(
        stored=dumps(raw, "options"),
        job_id=raw.get("jobId", ""),
        delay_ms=raw.get("delay", 0),
        priority=raw.get("priority", 0),
        lifo=raw.get("lifo", False),
        timestamp=raw.get("timestamp"),
        size_limit=raw.get("sizeLimit"),
        durability=durability,
        extras=_extras(raw),
    )


def _extras(raw: dict[str, Any]) -> dict[str, Any] | None:
    """What the script has to know beside the stored text: links to other jobs."""
    policies = [name for name in _POLICIES if raw.get(name)]
    if len(policies) > 1:
        options = ", ".join(_POLICIES[name] for name in policies)
        raise ConfigurationError(f"a job has one policy for its failure, not {options}")
    parent, deduplication = raw.get("parent"), raw.get("de")
    if parent and deduplication:
        raise ConfigurationError(
            "deduplication and parent cannot be combined: who would the parent wait for?"
        )
    if parent:
        # Whoever ends the job reads the policy from this link.
        link = {"id": parent["id"], "queueKey": parent["queue"], **dict.fromkeys(policies, True)}
        return {"parent_key": f"{parent['queue']}:{parent['id']}", "parent": dumps(link)}
    if deduplication:
        return {"deduplication": deduplication}
    return None


def _unknown(name: object) -> str:
    known = sorted(_CHECKS)
    near = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else []
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    return f"unknown job option {shown(name)}; {hint}"


def _integer(
    stored_name: str, low: int, high: int = MAX_SAFE_INTEGER
) -> Callable[[str, Any], tuple[str, Any]]:
    def check(name: str, value: Any) -> tuple[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigurationError(f"{name} must be an integer, got {type(value).__name__}")
        if not low <= value <= high:
            raise ConfigurationError(f"{name} must be between {low} and {high}, got {shown(value)}")
        return stored_name, value

    return check


def _check_delay(name: str, value: Any) -> tuple[str, Any]:
    return name, milliseconds(value, name)


def _check_flag(name: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {type(value).__name__}")
    return name, value


def _check_job_id(_: str, value: Any) -> tuple[str, Any]:
    if value == "" or value is None:
        return "jobId", None
    check_job_id(value)
    return "jobId", value


def _check_backoff(name: str, value: Any) -> tuple[str, Any]:
    if isinstance(value, (Fixed, Exponential, Custom)):
        return name, value.stored()
    return name, Fixed(value).stored()


def _check_keep(name: str, value: Any) -> tuple[str, Any]:
    stored_name = {"remove_on_complete": "removeOnComplete", "remove_on_fail": "removeOnFail"}[name]
    return stored_name, stored_keep(name, value)


def stored_keep(name: str, value: Any) -> bool | int | dict[str, Any]:
    """Return the stored form of a retention option.

    Raises:
        ConfigurationError: It is none of a boolean, a number of jobs, and `KeepJobs`.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not 0 <= value <= MAX_SAFE_INTEGER:
            raise ConfigurationError(
                f"{name} must be between 0 and {MAX_SAFE_INTEGER}, got {shown(value)}; False keeps all"
            )
        return value
    if isinstance(value, KeepJobs):
        stored: dict[str, Any] = {}
        if value.count is not None:
            _integer("count", 0)(f"{name}.count", value.count)
            stored["count"] = value.count
        if value.age is not None:
            # The one duration that BullMQ stores in seconds.
            stored["age"] = -(-milliseconds(value.age, f"{name}.age") // 1000)
        if value.limit is not None:
            _integer("limit", 1)(f"{name}.limit", value.limit)
            stored["limit"] = value.limit
        if stored.keys() <= {"limit"}:
            raise ConfigurationError(f"{name}: KeepJobs needs a count or an age; False keeps all")
        return stored
    raise ConfigurationError(
        f"{name} must be True, False, a number of jobs or KeepJobs(...), got {type(value).__name__}"
    )


def _flag(stored_name: str) -> Callable[[str, Any], tuple[str, Any]]:
    def check(name: str, value: Any) -> tuple[str, Any]:
        return stored_name, _check_flag(name, value)[1] or None

    return check


def _check_deduplication(name: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, Deduplication):
        raise ConfigurationError(f"{name} must be Deduplication(...), got {type(value).__name__}")
    return "de", value.stored()


def _check_telemetry(name: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, Telemetry):
        raise ConfigurationError(f"{name} must be Telemetry(...), got {type(value).__name__}")
    if value.metadata is not None and not isinstance(value.metadata, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{name}.metadata must be text, got {type(value.metadata).__name__}")
    _check_flag(f"{name}.omit_context", value.omit_context)
    return name, value


def _check_parent(name: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, Parent):
        # A job; its module needs this one, so it is known by what it has.
        try:
            value = Parent(value.id, value.queue.qualified_name)
        except AttributeError:
            raise ConfigurationError(
                f"{name} must be a Job or Parent(...), got {type(value).__name__}"
            ) from None
    return name, {"id": value.id, "queue": value.queue}


def _check_durability(name: str, value: Any) -> tuple[str, Any]:
    if value is not None and value not in DURABILITIES:
        raise ConfigurationError(
            f"{name} must be one of {', '.join(map(repr, DURABILITIES))}, got {shown(value)}"
        )
    return name, value


DURABILITIES: Final = ("replicated", "fsynced")
_POLICIES: Final = {
    "fpof": "fail_parent_on_failure",
    "cpof": "continue_parent_on_failure",
    "idof": "ignore_dependency_on_failure",
    "rdof": "remove_dependency_on_failure",
}

_CHECKS: Final[dict[str, Callable[[str, Any], tuple[str, Any]]]] = {
    "job_id": _check_job_id,
    "delay": _check_delay,
    "durability": _check_durability,
    "priority": _integer("priority", 0, HIGHEST_PRIORITY),
    "attempts": _integer("attempts", 0),
    "backoff": _check_backoff,
    "lifo": _check_flag,
    "timestamp": _integer("timestamp", 1_000_000_000_000, _MAX_DATE_MS),
    "keep_logs": _integer("kl", 0),
    "stack_trace_limit": _integer("stackTraceLimit", 0),
    "size_limit": _integer("sizeLimit", 0),
    "remove_on_complete": _check_keep,
    "remove_on_fail": _check_keep,
    "deduplication": _check_deduplication,
    "parent": _check_parent,
    "telemetry": _check_telemetry,
    **{option: _flag(stored_name) for stored_name, option in _POLICIES.items()},
}


@dataclass(frozen=True, slots=True)
class StoredOptions:
    """A job's options as a worker reads them; whoever stored them.

    Attributes:
        raw: Everything that stands in Redis, under BullMQ's names.
        attempts: How often the job is tried; 0 and 1 both mean once.
        backoff: An object with `type` and `delay` in milliseconds, a bare number of milliseconds, or None.
        lifo: Whether it runs before the jobs that wait.
        keep_completed: What its completion removes; None leaves it to the worker.
        keep_failed: Likewise for its failure.
        stack_trace_limit: How many stack traces are kept; None keeps all.
        keep_logs: How many log rows are kept; None leaves it to who writes them.
    """

    raw: Mapping[str, Any]
    attempts: int
    backoff: object
    lifo: bool
    keep_completed: KeepRule | None
    keep_failed: KeepRule | None
    stack_trace_limit: int | None
    keep_logs: int | None

    @staticmethod
    def parse(text: str) -> StoredOptions:
        """Read the stored text. Jobs of one kind share it, so reading is remembered.

        Raises:
            SerializationError: The text is not a JSON object.
        """
        return _parse(text) if len(text) < 2048 else _parse.__wrapped__(text)


@lru_cache(maxsize=512)
def _parse(text: str) -> StoredOptions:
    raw = loads(text or "{}", "options")
    if not isinstance(raw, dict):
        raise SerializationError("options: stored text is not a JSON object")
    fields = cast("dict[str, Any]", raw)
    return StoredOptions(
        raw=fields,
        attempts=_count(fields.get("attempts")) or 0,
        backoff=fields.get("backoff"),
        lifo=bool(fields.get("lifo")),
        keep_completed=keep_rule(fields.get("removeOnComplete")),
        keep_failed=keep_rule(fields.get("removeOnFail")),
        stack_trace_limit=_count(fields.get("stackTraceLimit")),
        keep_logs=_count(fields.get("kl", fields.get("keepLogs"))),
    )


_LONG_NAMES: Final = {
    "de": "deduplication",
    "fpof": "failParentOnFailure",
    "cpof": "continueParentOnFailure",
    "idof": "ignoreDependencyOnFailure",
    "rdof": "removeDependencyOnFailure",
    "kl": "keepLogs",
}


def expanded(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored options under the names by which BullMQ's users know them."""
    named = {_LONG_NAMES.get(name, name): value for name, value in raw.items()}
    telemetry = {
        long: named.pop(name) for name, long in (("tm", "metadata"), ("omc", "omitContext")) if name in named
    }
    if telemetry:
        named["telemetry"] = telemetry
    if isinstance(named.get("backoff"), (int, float)):
        named["backoff"] = {"type": "fixed", "delay": named["backoff"]}
    return {**named, "attempts": named.get("attempts", 0)}


def keep_rule(stored: object) -> KeepRule | None:
    """Return the rule that a stored retention option stands for; None where it says nothing."""
    if stored is None:
        return None
    if isinstance(stored, bool):
        return KeepRule(count="0" if stored else "-1")
    if isinstance(stored, (int, float)):
        return KeepRule(count=str(int(stored)))
    if isinstance(stored, dict):
        fields = cast("dict[str, Any]", stored)
        count, age, limit = (_count(fields.get(name)) for name in ("count", "age", "limit"))
        return KeepRule(
            count="" if count is None else str(count),
            age="" if age is None else str(age),
            limit="1000" if limit is None else str(limit),
        )
    return None


def _count(value: object) -> int | None:
    """A whole number from foreign data; anything else counts as absent."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if abs(value) < 2**53 else None
