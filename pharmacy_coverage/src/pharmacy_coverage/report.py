"""The daily report by hand: `python -m pharmacy_coverage.report --date 2027-03-14 [--pharmacy phm_…]`.

It is owed through the outbox and made by a worker, like the one of the morning; then it is printed.
Exit code 0: printed. 1: nobody made it in time, and it stays owed. 2: the question makes no sense.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import date, timedelta

from . import clock
from .errors import NotFound
from .outbox.models import Entry
from .pharmacies.models import Pharmacy
from .reports.models import Report
from .services import Services
from .settings import process_settings
from .wording import money

__all__ = ["main"]


async def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pharmacy_coverage.report", description=__doc__)
    parser.add_argument("--date", type=date.fromisoformat, help="local day; yesterday, unless it is given")
    parser.add_argument("--pharmacy", help="its id; all of them, unless it is given")
    parser.add_argument(
        "--wait", type=float, default=30, metavar="SECONDS", help="how long to wait for a worker"
    )
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    options = parser.parse_args(arguments)

    async with Services(process_settings()) as services:
        await services.prepare()
        try:
            pharmacies = (
                [await services.pharmacies.get(options.pharmacy)]
                if options.pharmacy
                else await services.pharmacies.all()
            )
        except NotFound:
            print(f"There is no pharmacy {options.pharmacy}.", file=sys.stderr)
            return 2
        wanted: list[tuple[Pharmacy, date, str]] = []
        for pharmacy in pharmacies:
            today = clock.local_date(clock.now(), pharmacy.tz)
            day = options.date or today - timedelta(days=1)
            wanted.append((pharmacy, day, await services.reports.request(pharmacy, day)))
        missing = 0
        for pharmacy, day, key in wanted:
            entry = await _made(services, key, options.wait)
            if entry is None or entry.state != "done":
                missing += 1
                print(
                    f"{pharmacy.name}, {day}: not made within {options.wait:g} s. It stays owed: "
                    "look whether relay and workers run.",
                    file=sys.stderr,
                )
                continue
            _print(await services.reports.get(pharmacy.id, day.isoformat()), options.json)
        return 1 if missing else 0


async def _made(services: Services, key: str, within: float) -> Entry | None:
    deadline = asyncio.get_running_loop().time() + within
    while True:
        entry = await services.outbox.by_key(key)
        if entry is not None and entry.state in ("done", "dead", "held"):
            return entry
        if asyncio.get_running_loop().time() > deadline:
            return entry
        await asyncio.sleep(0.1)


def _print(report: Report, as_json: bool) -> None:
    figures = report.figures
    if as_json:
        document = {"pharmacy_id": report.pharmacy_id, "date": str(report.day), **figures.document()}
        print(json.dumps(document, default=str))
        return
    rows = [
        ("Covered", f"{figures.filled} of {figures.shifts}"),
        ("Paid time", clock.hours_text(figures.paid_minutes)),
        ("Cost", money(figures.cost_cents)),
        ("Posted that day", str(figures.posted)),
        ("Applications", str(figures.applications)),
        ("Confirmed", str(figures.confirmed)),
        ("Next 14 days", f"{figures.ahead_filled} covered, {len(figures.holes)} open"),
    ]
    print(f"{report.pharmacy_name}, {report.day:%A %-d %B %Y}")
    for label, value in rows:
        print(f"  {label:<16} {value}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
