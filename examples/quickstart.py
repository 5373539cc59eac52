"""Typed jobs in one file: a queue, a function that runs its jobs, a producer and a worker.

Run it: `TORIL_URL=embedded:// python examples/quickstart.py`
"""

import asyncio

from toril import Exponential, Queue, Worker

emails = Queue("emails")


@emails.processor("application-received", attempts=5, backoff=Exponential(base=2, jitter=0.5), timeout=30)
async def application_received(pharmacist: str, shift: int) -> str:
    await asyncio.sleep(0.1)  # as slow as a mail server
    return f"the manager knows that {pharmacist} wants shift {shift}"


async def main() -> None:
    async with emails, Worker(emails, concurrency=10):
        job = await application_received.add(pharmacist="Umair", shift=42)
        print(f"job {job.id} added")
        print(await job.result(timeout=10))


if __name__ == "__main__":
    asyncio.run(main())
