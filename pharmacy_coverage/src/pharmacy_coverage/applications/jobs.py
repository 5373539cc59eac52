"""Checks that run after the answer has been given: does an application fit its pharmacist's other shifts?"""

from toril import Job

from ..outbox.consume import consume
from ..queues import checks
from ..services import current

__all__ = ["calendar_changed", "check_fit"]


@checks.processor("check-fit", timeout=30)
async def check_fit(application_id: str, job: Job[str]) -> str:
    """Turn "Checking…" into a verdict."""
    services = current()
    return await consume(
        services.outbox, job.id, lambda entry: services.applications.check(application_id, entry)
    )


@checks.processor("calendar-changed", timeout=30)
async def calendar_changed(pharmacist_id: str, rev: int, job: Job[str]) -> str:
    """Check a pharmacist's other applications again, now that they have one booking more."""
    services = current()
    return await consume(
        services.outbox, job.id, lambda entry: services.applications.check_all(pharmacist_id, entry)
    )
