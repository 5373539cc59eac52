"""Telling people, and sending them mail."""

from toril import DelayedError, Job

from ..outbox.consume import consume
from ..queues import mail, notify
from ..services import current
from .service import DeliverLater

__all__ = ["application_submitted", "deliver", "shift_filled"]


@notify.processor("application-submitted", timeout=30)
async def application_submitted(application_id: str, job: Job[str]) -> str:
    """Owe mail to the managers of the pharmacy at which somebody applied."""
    services = current()
    return await consume(
        services.outbox, job.id, lambda entry: services.mail.announce_application(application_id, entry)
    )


@notify.processor("shift-filled", timeout=30)
async def shift_filled(shift_id: str, job: Job[str]) -> str:
    """Owe mail to everyone who applied for a shift that is now covered."""
    services = current()
    return await consume(
        services.outbox, job.id, lambda entry: services.mail.announce_filled(shift_id, entry)
    )


@mail.processor("deliver", timeout=120)
async def deliver(delivery_id: str, job: Job[str]) -> str:
    """Send one message.

    A mail server that is away costs no attempt: the job is put off, and tried again when it may be back.
    """
    services = current()
    try:
        return await consume(services.outbox, job.id, lambda entry: services.mail.deliver(delivery_id, entry))
    except DeliverLater as later:
        raise DelayedError(later.until) from later
