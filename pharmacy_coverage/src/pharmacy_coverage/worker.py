"""The worker processes: which queue is served with how many jobs at a time.

    toril worker pharmacy_coverage.worker:workers

They share nothing with the web application but MongoDB and Redis.
"""

from toril import Queue, Worker

from . import queues
from .applications import jobs as application_jobs
from .mail import jobs as mail_jobs
from .reports import jobs as report_jobs
from .settings import process_settings

__all__ = ["make_workers", "workers"]

# Importing them registers their processors.
PROCESSORS = (
    mail_jobs.application_submitted,
    mail_jobs.shift_filled,
    mail_jobs.deliver,
    application_jobs.check_fit,
    application_jobs.calendar_changed,
    report_jobs.daily_report,
)


def make_workers() -> list[Worker]:
    """One worker a queue. Where they run is for the caller to say."""
    return [
        _worker(queues.notify, concurrency=8),
        _worker(queues.mail, concurrency=10),
        _worker(queues.checks, concurrency=8),
        _worker(queues.reports, concurrency=2),
    ]


def _worker(queue: Queue, concurrency: int) -> Worker:
    settings = process_settings()
    return Worker(
        queue,
        concurrency=concurrency,
        lock_duration=settings.worker_lock_seconds,
        stalled_interval=settings.worker_stalled_seconds,
        # A rolling restart may take the same job away twice.
        max_stalled_count=3,
    )


workers = make_workers()
