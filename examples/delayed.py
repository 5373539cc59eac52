"""Delayed jobs: one waits for its time, another is promoted before it.

Run it: `TORIL_URL=embedded:// python examples/delayed.py`
"""

import asyncio
import time
from datetime import timedelta

from toril import Queue, Worker

reminders = Queue("reminders")


@reminders.processor("remind")
async def remind(shift: int) -> str:
    return f"shift {shift} begins soon"


async def main() -> None:
    async with reminders, Worker(reminders):
        began = time.monotonic()
        soon = await remind.options(delay=1).add(shift=1)
        tomorrow = await remind.options(delay=timedelta(days=1)).add(shift=2)
        print(f"job {soon.id} {await soon.get_state()}, job {tomorrow.id} {await tomorrow.get_state()}")

        await tomorrow.promote()
        print(await tomorrow.result(timeout=10), "(promoted)")
        print(await soon.result(timeout=10), f"(after {time.monotonic() - began:.1f} s)")


if __name__ == "__main__":
    asyncio.run(main())
