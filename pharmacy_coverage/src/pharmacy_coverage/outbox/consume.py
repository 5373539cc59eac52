"""What every processor does before its work: is it still owed?"""

from collections.abc import Awaitable, Callable

from toril import DelayedError

from .. import clock
from ..errors import TemporarilyUnavailable
from .repository import OutboxRepository

__all__ = ["consume"]


async def consume(outbox: OutboxRepository, job_id: str | None, work: Callable[[str], Awaitable[str]]) -> str:
    """Do what the entry behind a job owes, unless it is done, too late, or was never owed.

    Args:
        work: Called with the entry's id, which it marks done in the transaction of its effect.

    Raises:
        DelayedError: MongoDB cannot do it just now; the job is put off for a moment, uncounted.

    Returns:
        What happened, in a few words: the job's return value, for whoever looks at the queue.
    """
    entry = await outbox.by_job(job_id) if job_id else None
    if entry is None:
        return "orphan: nothing is owed under this id"
    if entry.state in ("done", "dead"):
        return f"{entry.state} already"
    if entry.deadline_at <= clock.now():
        await outbox.mark_dead(entry.id, "too late")
        return "too late"
    try:
        return await work(entry.id)
    except TemporarilyUnavailable as busy:
        # Nothing is wrong with the job, so it costs no attempt; the entry's deadline ends it. The usual cause is a
        # worker that was killed within a transaction: MongoDB keeps its documents locked until it gives that up.
        raise DelayedError(busy.retry_after) from busy
