"""What only the holder of a job may do, through faults that it can recover from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._insisting import PERSISTENCE, insist, while_it_is_lost
from .errors import LockLostError

if TYPE_CHECKING:
    from .job import Job

__all__ = ["under_lock", "write_surely"]

T = TypeVar("T")


async def under_lock(job: Job[Any], act: Callable[[], Awaitable[T]]) -> T:
    """Do something that needs the lock. One that has run out is taken again, as long as nobody else has taken the job.

    Raises:
        LockLostError: The job is another worker's, or soon will be.
    """
    try:
        return await act()
    except LockLostError:
        if not job.lock_ms or await job.queue.scripts.reclaim_locks(job.lock_ms, [job.start]):
            raise
        return await act()


async def write_surely(job: Job[Any], what: str, write: Callable[[], Awaitable[None]]) -> None:
    """Write something that may be written twice, through faults of the connection that last a few seconds.

    Only under a lock: without one, a second try could undo what somebody else has written in between.
    """
    if not job.token:
        await write()
        return
    where = f"job {job.id!r} in queue {job.queue.name!r}: writing its {what}"
    await insist(lambda _: under_lock(job, write), where, while_it_is_lost, seconds=PERSISTENCE)
