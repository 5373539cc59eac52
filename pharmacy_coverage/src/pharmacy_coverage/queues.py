"""The queues of this process. Processors are registered on them in the `jobs.py` of each subject."""

from toril import Queue

from .settings import process_settings

__all__ = ["checks", "mail", "notify", "reports"]

_settings = process_settings()

notify = Queue("notify", connection=_settings.toril_url, prefix=_settings.queue_prefix)
"""An event becomes deliveries."""

mail = Queue("mail", connection=_settings.toril_url, prefix=_settings.queue_prefix)
"""One job, one message to one person. Apart, because mail servers are slow and have bad days."""

checks = Queue("checks", connection=_settings.toril_url, prefix=_settings.queue_prefix)
"""Somebody is looking at "Checking…"."""

reports = Queue("reports", connection=_settings.toril_url, prefix=_settings.queue_prefix)
"""Heavy, and never in a hurry."""
