"""The names of a queue's keys. Nothing here talks to a server."""

from __future__ import annotations

import base64
import shlex
from dataclasses import dataclass
from functools import cached_property

from .errors import ConfigurationError

__all__ = ["QueueKeys", "check_job_id", "check_name", "client_name"]

_MAX_NAME_BYTES = 256
# A record under one of these would stand where the queue keeps something else.
_SUFFIXES = frozenset(
    {
        "active",
        "completed",
        "delay",
        "delayed",
        "events",
        "failed",
        "id",
        "limiter",
        "marker",
        "meta",
        "paused",
        "pc",
        "prioritized",
        "priority",
        "repeat",
        "stalled",
        "stalled-check",
        "wait",
        "waiting-children",
        "metrics:completed:data",
        "metrics:failed:data",
    }
)


@dataclass(frozen=True)
class QueueKeys:
    """Keys of one queue: `<prefix>:<queue>:<suffix>`.

    Raises:
        ConfigurationError: The name is empty, too long, or holds `:` or a control character.
    """

    prefix: str
    queue: str

    def __post_init__(self) -> None:
        check_name("queue name", self.queue)
        if ":" in self.queue:
            raise ConfigurationError(
                f"queue name {self.queue!r} holds ':', which separates the parts of a key; "
                "use another character, or put the namespace into `prefix`"
            )
        check_name("prefix", self.prefix)

    @cached_property
    def base(self) -> str:
        """The beginning of every key, with its trailing colon."""
        return f"{self.prefix}:{self.queue}:"

    @property
    def qualified_name(self) -> str:
        """`<prefix>:<queue>`, by which flows name a queue."""
        return f"{self.prefix}:{self.queue}"

    def command(self, verb: str, *job_ids: str) -> str:
        """Return the command line about the queue, or a job, for messages: `toril why emails 42`."""
        prefix = [] if self.prefix == "bull" else ["--prefix", self.prefix]
        return f"toril {verb} {shlex.join([self.queue, *job_ids, *prefix])}"

    def key(self, suffix: str) -> str:
        """Return the key with this suffix, e.g. `wait`."""
        return self.base + suffix

    def job(self, job_id: str) -> str:
        """Return the key of a job's record."""
        try:
            return self.base + job_id
        except TypeError:
            raise ConfigurationError(f"a job's id is text, not {type(job_id).__name__}") from None


def client_name(keys: QueueKeys, worker_name: str | None = None, *, suffix: str = "") -> str:
    """Return the connection name by which Node's `getWorkers` finds a worker.

    `<prefix>:<base64 of the queue>`, then `:w:<name>` for a named worker; `suffix` is `:qe` for a
    listener of events.
    """
    encoded = base64.b64encode(keys.queue.encode()).decode()
    named = f":w:{worker_name}" if worker_name else suffix
    return f"{keys.prefix}:{encoded}{named}"


def check_job_id(job_id: str) -> None:
    """Refuse a custom id that BullMQ refuses, or that could be taken for a generated one.

    Raises:
        ConfigurationError: The id is an integer, `0`, begins with `0:`, has colons other than two, or is the
            name of one of the queue's own keys.
    """
    check_name("job_id", job_id)
    if job_id.removeprefix("-").isdecimal() and job_id.isascii() and str(int(job_id)) == job_id:
        raise ConfigurationError(
            f"job_id {job_id!r} is an integer, which is how generated ids look; add a letter, e.g. 'order-{job_id}'"
        )
    if job_id.startswith("0:"):
        raise ConfigurationError(f"job_id {job_id!r} begins with '0:', which marks an old wake-up marker")
    if ":" in job_id and job_id.count(":") != 2:
        raise ConfigurationError(
            f"job_id {job_id!r} holds ':', which separates the parts of a key; use '-' or '.'"
        )
    if job_id in _SUFFIXES:
        raise ConfigurationError(
            f"job_id {job_id!r} is the name of one of the queue's own keys; add something, e.g. 'order-{job_id}'"
        )


def check_name(what: str, value: str) -> None:
    """Refuse a part of a key that is no text, empty, longer than 256 bytes, or holds what no key should.

    Raises:
        ConfigurationError: It begins with `what`.
    """
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{what} must be text, got {type(value).__name__}")
    if not value:
        raise ConfigurationError(f"{what} must not be empty")
    if len(value.encode("utf-8", "surrogatepass")) > _MAX_NAME_BYTES:
        raise ConfigurationError(f"{what} is longer than {_MAX_NAME_BYTES} bytes")
    if not _is_utf8(value):
        raise ConfigurationError(f"{what} {value!r} holds half of a surrogate pair, which UTF-8 cannot hold")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ConfigurationError(f"{what} {value!r} holds a control character")


def _is_utf8(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
