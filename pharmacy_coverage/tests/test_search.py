"""Searching: from the cache, fresh within a second, and without it when it is gone."""

import asyncio
from collections import Counter
from typing import Any

from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from pharmacy_coverage.outbox.relay import Relay
from pharmacy_coverage.people.models import Actor
from pharmacy_coverage.services import Services
from pharmacy_coverage.shifts.schemas import ShiftFilter

from .support import Platform, eventually, results, sign_in


class Counting(CommandListener):
    """Counts the queries that carry the search's comment, and everything by command and collection."""

    def __init__(self) -> None:
        self.searches = 0
        self.commands: Counter[str] = Counter()

    def started(self, event: CommandStartedEvent) -> None:
        self.searches += event.command.get("comment") == "search"
        self.commands[f"{event.command_name} {event.command.get(event.command_name)}"] += 1

    def succeeded(self, event: CommandSucceededEvent) -> None: ...

    def failed(self, event: CommandFailedEvent) -> None: ...


def next_two_weeks(shift: Any) -> ShiftFilter:
    return ShiftFilter(None, shift.local_date, shift.local_date, 0)


async def test_a_hundred_pharmacists_cost_one_query(platform: Platform) -> None:
    """A hundred search over HTTP at the same moment: MongoDB sees one search per region, and later ones none."""
    people = await platform.many_pharmacists(100)
    shift = await platform.post()
    counting = Counting()
    async with platform.browser(listeners=[counting]) as browser:
        cookies = [await cookie_of(browser, person) for person in people]
        browser.cookies.clear()

        async def search(cookie: str) -> str:
            return results(await browser.get("/shifts?region=CA-ON", headers={"cookie": cookie}))

        pages = await asyncio.gather(*(search(cookie) for cookie in cookies))
        assert all(shift.id in page for page in pages)
        assert counting.searches == 1
        await asyncio.gather(*(search(cookie) for cookie in cookies))
        assert counting.searches == 1


async def test_two_processes_share_the_cache(platform: Platform) -> None:
    """What one process has loaded, another finds."""
    shift = await platform.post()
    counting = Counting()
    async with Services(platform.settings, listeners=[counting]) as one, Services(platform.settings) as two:
        await two.search.find(["CA-ON"], next_two_weeks(shift))
        found = await one.search.find(["CA-ON"], next_two_weeks(shift))
    assert found.outcomes == {"CA-ON": "hit"}
    assert [card.id for card in found.cards] == [shift.id]
    assert counting.searches == 0


async def test_changes_show_at_once(platform: Platform) -> None:
    """A posted shift, an application and a confirm are in the very next search of another process."""
    shift = await platform.post()
    async with Services(platform.settings) as other:

        async def seen() -> dict[str, int]:
            return {c.id: c.live for c in (await other.search.find(["CA-ON"], next_two_weeks(shift))).cards}

        assert await seen() == {shift.id: 0}
        second = await platform.post()
        assert await seen() == {shift.id: 0, second.id: 0}
        application_id = await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
        assert await seen() == {shift.id: 1, second.id: 0}
        await platform.services.applications.confirm(platform.mira, application_id)
        assert await seen() == {second.id: 0}


async def test_the_relay_shows_what_the_api_could_not(platform: Platform, relay: Relay) -> None:
    """The process died after the commit, before it could tell the cache: the outbox entry does."""
    shift = await platform.post()
    await platform.services.search.find(["CA-ON"], next_two_weeks(shift))
    stale = await platform.cache_redis.get(f"{platform.settings.cache_prefix}:gen:CA-ON")
    await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
    await platform.cache_redis.set(f"{platform.settings.cache_prefix}:gen:CA-ON", stale)
    assert (await platform.services.search.find(["CA-ON"], next_two_weeks(shift))).cards[0].live == 0

    await relay.publish_due()

    assert (await platform.services.search.find(["CA-ON"], next_two_weeks(shift))).cards[0].live == 1
    assert {entry["state"] for entry in await platform.owed("search.changed")} == {"done"}


async def test_regions_do_not_disturb_each_other(platform: Platform) -> None:
    """A change in Ontario leaves Manitoba's pages where they are."""
    ontario, manitoba = await platform.post(), await platform.post(by=platform.owen)
    wanted = next_two_weeks(ontario)
    await platform.services.search.find(["CA-ON", "CA-MB"], wanted)
    await platform.services.applications.apply(platform.pharmacist(), ontario.id, "")

    found = await platform.services.search.find(["CA-ON", "CA-MB"], wanted)

    assert found.outcomes == {"CA-ON": "miss", "CA-MB": "hit"}
    assert {card.id for card in found.cards} == {ontario.id, manitoba.id}


async def test_without_the_cache(platform: Platform) -> None:
    """Killed: searches are right, and still share their queries; back again, it is used again."""
    shift = await platform.post()
    counting = Counting()
    async with Services(platform.settings, listeners=[counting]) as services:
        wanted = next_two_weeks(shift)
        await services.search.find(["CA-ON"], wanted)
        platform.cache_server.kill()
        found = await asyncio.gather(*(services.search.find(["CA-ON"], wanted) for _ in range(100)))
        assert {card.id for result in found for card in result.cards} == {shift.id}
        assert counting.searches <= 10

        # Changes go on without it, and are seen.
        await platform.services.applications.apply(platform.pharmacist(), shift.id, "")
        assert (await services.search.find(["CA-ON"], wanted)).cards[0].live == 1

        platform.cache_server.start()

        async def is_back() -> bool:
            return (await services.search.find(["CA-ON"], wanted)).outcomes == {"CA-ON": "hit"}

        await eventually(is_back, "pages come from the cache again")
        assert (await services.search.find(["CA-ON"], wanted)).cards[0].live == 1


async def test_a_page_that_makes_no_sense(platform: Platform) -> None:
    """Nonsense in the cache is nobody's error page."""
    shift = await platform.post()
    wanted = next_two_weeks(shift)
    await platform.services.search.find(["CA-ON"], wanted)
    for key in await platform.cache_redis.keys(f"{platform.settings.cache_prefix}:s:*"):
        await platform.cache_redis.set(key, "not a page")
    assert len((await platform.services.search.find(["CA-ON"], wanted)).cards) == 1


async def test_filters(platform: Platform) -> None:
    """Region, days and rate; one's licences bound what is shown."""
    cheap, dear = await platform.post(2, rate="50"), await platform.post(3, rate="80")
    manitoba = await platform.post(2, by=platform.owen, rate="70")
    async with platform.browser(platform.pharmacist()) as dana:
        everything = results(await dana.get("/shifts"))
        assert all(shift.id in everything for shift in (cheap, dear, manitoba))
        well_paid = results(await dana.get("/shifts?rate=65"))
        assert cheap.id not in well_paid
        assert dear.id in well_paid
        later = results(await dana.get(f"/shifts?from={dear.local_date}"))
        assert cheap.id not in later
        assert dear.id in later
        assert manitoba.id not in results(await dana.get("/shifts?region=CA-ON"))
        for nonsense in (
            "?from=x&to=y&rate=z&region=<",
            "?from=9999-12-31",
            "?rate=99999999",
            "?region=US-NY",
        ):
            results(await dana.get(f"/shifts{nonsense}"))
    async with platform.browser(platform.pharmacist("amir")) as amir:
        assert manitoba.id not in results(await amir.get("/shifts"))
        assert manitoba.id not in results(await amir.get("/shifts?region=CA-MB"))


async def cookie_of(browser: Any, person: Actor) -> str:
    browser.cookies.clear()
    await sign_in(browser, person)
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
