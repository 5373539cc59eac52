"""What the type checkers accept, and the types that they find. `test_typing.py` runs them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from toril import Exponential, Job, KeepJobs, Queue, State, SyncJob

emails = Queue("emails")


@dataclass
class Receipt:
    number: int


@emails.processor("application-received", attempts=5, backoff=Exponential(base=2, jitter=0.5), timeout=30)
async def application_received(application_id: str, copies: int = 1) -> str:
    return application_id * copies


@emails.processor()
async def with_job(job: Job, application_id: str) -> Receipt:
    await job.update_progress(50)
    return Receipt(len(application_id))


@emails.processor()
async def with_optional_job(job: Job | None, application_id: str) -> None: ...


@emails.processor()
async def job_only(job: Job) -> int:
    return job.attempts_made


@emails.processor()
def in_a_thread(application_id: str) -> int:
    return len(application_id)


@emails.processor()
def in_a_thread_with_job(job: SyncJob, application_id: str) -> bool:
    job.update_progress(application_id)
    return True


@emails.processor()
def loose_values(options: dict[str, Any], tags: list[Any]) -> dict[str, Any]:
    return {**options, "tags": tags}


@emails.processor()
async def loose_first(payload: Any, copies: int) -> int:
    return copies


@emails.processor()
async def nothing() -> None: ...


async def adding() -> None:
    job = await application_received.add(application_id="42")
    assert_type(job, Job[str])
    assert_type(await job.result(timeout=timedelta(seconds=30)), str)
    assert_type(job.return_value, str | None)
    assert_type(await job.get_state(), State)
    assert_type(await application_received.add("42", 2), Job[str])
    assert_type(await application_received.options(delay=60, priority=2).add(application_id="42"), Job[str])
    assert_type(await application_received.options(delay=60).options(job_id="a").add("42"), Job[str])

    assert_type(await with_job.add(application_id="42"), Job[Receipt])
    assert_type(await (await with_job.add("42")).result(), Receipt)
    assert_type(await with_optional_job.add("42"), Job[None])
    assert_type(await job_only.add(), Job[int])
    assert_type(await in_a_thread.add("42"), Job[int])
    assert_type(await in_a_thread_with_job.add("42"), Job[bool])
    assert_type(await loose_values.add({"a": 1}, []), Job[dict[str, Any]])
    await loose_first.add(payload={"a": 1}, copies=2)
    assert_type(await nothing.add(), Job[None])

    assert_type(await emails.add("anything", {"a": [1]}, delay=timedelta(hours=1)), Job[Any])
    await emails.add("anything", remove_on_complete=KeepJobs(count=10), remove_on_fail=False, attempts=3)


def adding_without_asyncio() -> None:
    job = application_received.sync.add(application_id="42")
    assert_type(job, SyncJob[str])
    assert_type(job.result(timeout=30), str)
    assert_type(application_received.options(delay=1).sync.add("42"), SyncJob[str])
    assert_type(application_received.sync.options(delay=1).add("42"), SyncJob[str])
    assert_type(with_job.sync.add("42"), SyncJob[Receipt])
    assert_type(emails.sync.add("anything", {"a": 1}, priority=1), SyncJob[Any])
