"""Hello world, the producer: add one job and leave. It knows the queue's name, not the worker's code.

Run it: `python examples/hello/producer.py [address]`
"""

import asyncio
import sys

from toril import Queue


async def main(address: str) -> None:
    async with Queue("emails") as emails:
        job = await emails.add("send-email", {"to": address, "subject": "Hello world"})
        print(f"job {job.id} added")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["umair@example.com"]))
