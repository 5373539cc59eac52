"""Hello world, the worker: wait for jobs and run them, until Ctrl-C.

Run it: `python examples/hello/worker.py`
"""

import asyncio

from toril import Job, Queue, Worker

emails = Queue("emails")


@emails.processor("send-email")
async def send_email(to: str, subject: str) -> str:
    await asyncio.sleep(0.1)  # as slow as a mail server
    return f"{subject!r} sent to {to}"


worker = Worker(emails)


@worker.on("ready")
def ready() -> None:
    print("waiting for jobs; Ctrl-C to stop")


@worker.on("active")
def active(job: Job) -> None:
    print(f"job {job.id} active: {job.name}")


@worker.on("completed")
def completed(job: Job, return_value: str) -> None:
    print(f"job {job.id} completed: {return_value}")


if __name__ == "__main__":
    asyncio.run(worker.run())
