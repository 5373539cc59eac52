"""The daily report of a pharmacy."""

from datetime import date

from toril import Job

from ..outbox.consume import consume
from ..queues import reports
from ..services import current

__all__ = ["daily_report"]


@reports.processor("daily-report", timeout=120)
async def daily_report(pharmacy_id: str, date: str, job: Job[str]) -> str:
    """Count a local day of a pharmacy and owe the result to its managers by mail."""
    services = current()
    day = _day(date)
    return await consume(
        services.outbox, job.id, lambda entry: services.reports.make(pharmacy_id, day, entry)
    )


def _day(text: str) -> date:
    return date.fromisoformat(text)
