"""How large things may be: what a producer adds, what a processor leaves behind, what others have stored.

A job carries a reference, not a document. A limit keeps one mistake from filling the server, from holding
it up for everybody, or from taking a worker's memory. Depth and the lengths of names have no knob: 64 levels
and 256 bytes are what every client of a shared queue can count on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from ._shown import shown
from .errors import ConfigurationError, TooLargeError

__all__ = ["DEFAULT_LIMITS", "MAX_NAME_BYTES", "Limits", "check_count", "check_job_name", "check_size"]

MAX_NAME_BYTES: Final = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest sizes, in bytes of the stored text, and counts.

    Args:
        data: What `add` takes as data; a job's `size_limit` replaces it.
        stored_data: The data of a job that a worker runs, whoever has added it. A larger one fails unread.
        return_value: What a processor returns; a larger one fails the attempt.
        progress: What `update_progress` takes.
        log_row: One row of a job's log; a longer one is cut.
        log_rows: How many of the newest rows of a job's log are kept, where its `keep_logs` does not say.
        options: A job's options as they are stored.
        jobs: How many jobs one `add_bulk`, or one flow, may add.
    """

    data: int = 1024 * 1024
    stored_data: int = 16 * 1024 * 1024
    return_value: int = 1024 * 1024
    progress: int = 64 * 1024
    log_row: int = 8 * 1024
    log_rows: int = 1000
    options: int = 64 * 1024
    jobs: int = 100_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(
                    f"Limits: {field.name} must be a whole number, at least 1; got {shown(value)}"
                )


DEFAULT_LIMITS: Final = Limits()


def check_size(text: str, most: int, what: str, option: str) -> None:
    """Refuse a text that has more than `most` bytes in UTF-8.

    Args:
        text: What would be stored, or was found.
        most: The limit.
        what: How an error calls it; it names the job or the queue.
        option: What raises the limit.

    Raises:
        TooLargeError: With both sizes, and never with the text.
    """
    # No character takes more than four bytes, so most texts need no counting.
    if len(text) * 4 <= most:
        return
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > most:
        raise TooLargeError(
            f"{what} has {size:,} bytes, more than {option}={most:,}; store it elsewhere and pass its key"
        )


def check_job_name(name: str, where: str) -> None:
    """Refuse a job's name that is no text, empty, longer than 256 bytes, or nothing that UTF-8 can hold.

    Raises:
        ConfigurationError: It begins with `where`.
    """
    if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{where}: a job's name is text and not empty")
    if len(name) <= MAX_NAME_BYTES and name.isascii():
        return
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{where}: a job's name holds half of a surrogate pair, which UTF-8 cannot hold"
        ) from None
    if size > MAX_NAME_BYTES:
        raise ConfigurationError(
            f"{where}: a job's name has {size:,} bytes, more than {MAX_NAME_BYTES}; what differs from job to job "
            "belongs into its data"
        )


def check_count(count: int, most: int, what: str) -> None:
    """Refuse a list of jobs that is too long for one call.

    Raises:
        TooLargeError: Nothing of it was added.
    """
    if count > most:
        raise TooLargeError(f"{what} has {count:,} jobs, more than Limits.jobs={most:,}; add it in parts")
