"""Retries: two attempts fail, the third succeeds; another job says at once that no attempt ever will.

Run it: `TORIL_URL=embedded:// python examples/retry.py`
"""

import asyncio

from toril import Exponential, Job, JobFailedError, Queue, UnrecoverableError, Worker

emails = Queue("emails-with-retries")


@emails.processor("send-email", attempts=4, backoff=Exponential(base=0.2))
async def send_email(job: Job, to: str) -> str:
    if "@" not in to:
        raise UnrecoverableError(f"{to!r} is no address")
    if job.attempts_started < 3:
        raise ConnectionError("the mail server is away")
    return f"sent to {to} by attempt {job.attempts_started}"


worker = Worker(emails)


@worker.on("retried")
def retried(job: Job, error: Exception, delay_ms: int) -> None:
    print(f"attempt {job.attempts_made} failed: {error}; the next one in {delay_ms} ms")


async def main() -> None:
    async with emails, worker:
        job = await send_email.add(to="umair@example.com")
        print(await job.result(timeout=10))

        hopeless = await send_email.add(to="umair")
        try:
            await hopeless.result(timeout=10)
        except JobFailedError as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
