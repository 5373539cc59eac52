"""What only the holder of a job may do, through faults that it can recover from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ._loops.patience import Patience
from .errors import ConnectionLostError, LockLostError, ServerRefusedError

if TYPE_CHECKING:
    from .job import Job

__all__ = ["insist", "under_lock"]

# Seconds for which a processor's writes are tried again; a worker consumes again within 5 s of the server's return.
_PERSISTENCE: Final = 8.0

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


async def insist(job: Job[Any], what: str, write: Callable[[], Awaitable[None]]) -> None:
    """Write something that may be written twice, through faults of the connection that last a few seconds.

    Only under a lock: without one, a second try could undo what somebody else has written in between.
    """
    patience = Patience(f"job {job.id!r} in queue {job.queue.name!r}: writing its {what}")
    until = time.monotonic() + _PERSISTENCE
    while True:
        try:
            await under_lock(job, write)
        except (ConnectionLostError, ServerRefusedError) as error:
            # A server that has just come back may refuse for a while, as when it loads its data.
            is_lost = patience.failures > 0 or isinstance(error, ConnectionLostError)
            if not job.token or not is_lost or time.monotonic() > until:
                raise
            await asyncio.sleep(patience.failed(error))
        else:
            patience.worked()
            return
