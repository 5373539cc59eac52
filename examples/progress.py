"""Progress and events: a job tells how far it is, and anybody who listens to the queue hears it.

Run it: `TORIL_URL=embedded:// python examples/progress.py`
"""

import asyncio

from toril import Job, Queue, QueueEvents, Worker

reports = Queue("reports")


@reports.processor("daily-report")
async def daily_report(job: Job, pharmacy: str, pages: int) -> str:
    for page in range(1, pages + 1):
        await asyncio.sleep(0.05)  # the work
        await job.log(f"page {page} written")
        await job.update_progress(100 * page // pages)
    return f"report-{pharmacy}.pdf"


async def main() -> None:
    # The listener could be another program, on another host, or one in Node.js.
    async with reports, QueueEvents("reports") as events, Worker(reports):
        job = await daily_report.add(pharmacy="central", pages=4)
        async for event in events:
            if event.job_id == job.id:
                print(event.name, "" if event.value is None else event.value)
                if event.name in ("completed", "failed"):
                    break
        for row in (await reports.get_job_logs(job.id)).logs:
            print("log:", row)


if __name__ == "__main__":
    asyncio.run(main())
