"""The pages: who may see what, what is refused and how, and that none needs a script."""

import re
from datetime import timedelta

import pytest

from pharmacy_coverage import clock
from pharmacy_coverage.main import create_app
from pharmacy_coverage.people.models import Actor
from pharmacy_coverage.security import BODY_LIMIT
from pharmacy_coverage.seed import PASSWORD, STAFF, seed

from .support import Platform, utc


async def test_sign_in_with_a_password(platform: Platform) -> None:
    """The right password opens a session in a cookie that scripts cannot read; the wrong one says nothing more."""
    async with platform.browser() as browser:
        wrong = await browser.post(
            "/sign-in", data={"email": "mira@harbour-street.example", "password": "no"}
        )
        unknown = await browser.post("/sign-in", data={"email": "nobody@x.example", "password": "no"})
        assert wrong.status_code == unknown.status_code == 422
        assert "do not fit together" in wrong.text
        assert "do not fit together" in unknown.text
        right = await browser.post(
            "/sign-in", data={"email": " Mira@Harbour-Street.example", "password": PASSWORD}
        )
        assert right.headers["location"] == "/pharmacy"
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=lax" in cookie.lower()
        # What stands in the database opens nothing.
        token = cookie.split("=", 1)[1].split(";")[0]
        assert await platform.documents("sessions", {"_id": token}) == []

        assert (await browser.get("/pharmacy")).status_code == 200
        await browser.post("/sign-out")
        browser.cookies.set("pc_session", token)
        assert (await browser.get("/pharmacy")).status_code == 303


async def test_a_wiped_redis_signs_nobody_out(platform: Platform) -> None:
    """Sessions live in MongoDB."""
    async with platform.browser(platform.mira) as browser:
        await platform.queue_redis.flushall()
        await platform.cache_redis.flushall()
        assert (await browser.get("/pharmacy")).status_code == 200


async def test_demo_accounts_are_for_development(platform: Platform) -> None:
    """In production nobody is listed, and nobody walks in."""
    settings = platform.settings.model_copy(update={"environment": "production"})
    paths = {getattr(route, "path", "") for route in create_app(settings).routes}
    async with platform.browser() as browser:
        assert "Mira Castellan" in (await browser.get("/sign-in")).text
    production = Platform(settings, platform.queue_redis, platform.cache_redis)
    async with production.browser() as browser:
        assert (await browser.post("/sign-in/demo", data={"user_id": "usr_mira"})).status_code in (404, 405)
        page = await browser.get("/sign-in")
        assert "Mira Castellan" not in page.text
        assert PASSWORD not in page.text
        assert "strict-transport-security" in page.headers
    assert "/sign-in/demo" not in paths


@pytest.mark.parametrize(
    "next_path", ["//evil.example", "/\\evil.example", "https://evil.example", "/%0d%0ax\r\n", "x"]
)
async def test_no_open_redirect(platform: Platform, next_path: str) -> None:
    """After signing in one stays here."""
    async with platform.browser() as browser:
        answer = await browser.post("/sign-in/demo", data={"user_id": "usr_mira", "next": next_path})
        assert answer.headers["location"] == "/pharmacy"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "none"}, 303),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://testserver"}, 303),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
    ],
)
async def test_forms_of_other_sites(platform: Platform, headers: dict[str, str], status: int) -> None:
    """Only our own pages may change anything."""
    async with platform.browser(platform.mira) as browser:
        del browser.headers["origin"]
        answer = await browser.post("/pharmacy/reports/2026-11-01", headers=headers)
        assert answer.status_code == status
        assert len(await platform.owed("report.due")) == (1 if status == 303 else 0)


async def test_every_page_for_every_role(platform: Platform) -> None:
    """Each page answers whom it is for, refuses the others, and holds neither inline script nor inline style."""
    await seed(platform.services)
    shift = (await platform.documents("shifts", {"pharmacy_id": "phm_harbour", "counts.live": {"$gt": 1}}))[
        0
    ]["_id"]
    elsewhere = (await platform.documents("shifts", {"pharmacy_id": "phm_prairie"}))[0]["_id"]
    await platform.services.reports.make("phm_harbour", clock.now().date(), None)
    allowed = {
        "/shifts": "pharmacist",
        "/applications": "pharmacist",
        f"/shifts/{shift}": "pharmacist manager",
        f"/shifts/{elsewhere}": "pharmacist",
        "/pharmacy": "manager",
        "/pharmacy/shifts/new": "manager",
        "/pharmacy/reports": "manager",
        f"/pharmacy/reports/{clock.now().date()}": "manager",
        "/operations": "operator",
    }
    for actor in (platform.pharmacist(), platform.mira, Actor.from_document(STAFF[2])):
        async with platform.browser(actor) as browser:
            for path, roles in allowed.items():
                page = await browser.get(path)
                assert page.status_code == (200 if actor.role in roles else 403) or (
                    page.status_code == 404 and actor.role not in roles
                ), (path, actor.role, page.status_code)
                assert not re.search(
                    r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page.text
                ), path
                policy = page.headers["content-security-policy"]
                assert "unsafe" not in policy
                assert "default-src 'none'" in policy
                assert page.headers["cache-control"] == "no-store"
                assert page.headers["x-content-type-options"] == "nosniff"
                assert page.text.count("<h1") == 1
                # Every control has a label of its own.
                for control in re.findall(
                    r'<(?:input(?![^>]*type="hidden")|select|textarea)[^>]*>', page.text
                ):
                    found = re.search(r'id="([\w-]+)"', control)
                    assert found is not None, control
                    assert f'for="{found[1]}"' in page.text
    async with platform.browser() as nobody:
        for path in allowed:
            answer = await nobody.get(path)
            assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/sign-in")


async def test_text_from_people_stays_text(platform: Platform) -> None:
    """Whatever somebody writes is shown, and does nothing."""
    nasty = '<script>alert(1)</script>"><img src=x onerror=alert(1)>{{ 7*7 }}'
    shift = await platform.post()
    await platform.services.applications.apply(platform.pharmacist(), shift.id, nasty)
    for actor in (platform.pharmacist(), platform.mira):
        async with platform.browser(actor) as browser:
            page = (await browser.get(f"/shifts/{shift.id}")).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
        assert "<img" not in page
        assert "{{ 7*7 }}" in page


async def test_problems_for_programs(platform: Platform) -> None:
    """Who does not ask for a page gets an RFC 9457 problem; nothing tells more than it should."""
    shift = await platform.post()
    async with platform.browser(platform.pharmacist("clai")) as browser:
        browser.headers["accept"] = "application/json"
        await browser.post(f"/shifts/{shift.id}/applications")
        again = await browser.post(f"/shifts/{shift.id}/applications")
        assert again.status_code == 409
        assert again.headers["content-type"] == "application/problem+json"
        assert again.json()["type"] == "/problems/already-applied"
        assert (await browser.get("/shifts/shf_unknown")).json()["status"] == 404
        assert (await browser.get("/nowhere")).json()["type"] == "/problems/not-found"
        assert (await browser.put("/shifts")).status_code == 405
        assert (await browser.post("/pharmacy/shifts")).json()["needed"] == "pharmacy manager"
        big = await browser.post(f"/shifts/{shift.id}/applications", data={"message": "x" * (BODY_LIMIT + 1)})
        assert big.status_code == 413
        browser.cookies.clear()
        assert (await browser.get("/shifts")).json()["type"] == "/problems/not-authenticated"


async def test_refused_on_the_page(platform: Platform) -> None:
    """A person is told on the page where they were, with what they had written."""
    shift = await platform.post(9)
    async with platform.browser(platform.pharmacist("meil")) as browser:
        assert "You cannot apply for this one" in (await browser.get(f"/shifts/{shift.id}")).text
        answer = await browser.post(f"/shifts/{shift.id}/applications", data={"message": "please"})
        assert answer.status_code == 422
        assert "The licence for Ontario ends on" in answer.text


BASE = {"start": "09:00", "end": "17:00", "break_minutes": "30", "rate": "62.50"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"date": ""}, "Choose a date"),
        ({"date": "2026-13-40"}, "Enter a date"),
        ({"date": "2020-01-01"}, "in the past"),
        ({"date": "2199-01-01"}, "more than 400 days"),
        ({"start": "25:00"}, "Enter a time"),
        ({"end": "09:30"}, "between 1 and 16 hours"),
        ({"start": "09:00", "end": "08:00"}, "between 1 and 16 hours"),
        ({"break_minutes": "-5"}, "number of minutes"),
        ({"break_minutes": "240", "end": "12:00"}, "more than half"),
        ({"rate": "abc"}, "hourly rate"),
        ({"rate": "1e9"}, "hourly rate"),
        ({"date": "2027-03-14", "start": "02:30", "end": "10:00"}, "does not exist that day"),
        ({"date": "2027-11-07", "start": "01:30", "end": "09:30"}, "happens twice"),
    ],
)
async def test_shifts_that_cannot_be(platform: Platform, change: dict[str, str], words: str) -> None:
    """Each mistake is told at its field and in the summary; what was entered is kept, and nothing is stored."""
    day = (clock.now() + timedelta(days=3)).date().isoformat()
    async with platform.browser(platform.mira) as browser:
        answer = await browser.post("/pharmacy/shifts", data={**BASE, "date": day, "notes": "Kept", **change})
    assert answer.status_code == 422
    assert answer.text.count(words) == 2, "at the field and in the summary"
    assert 'role="alert"' in answer.text
    assert "<title>Error: " in answer.text
    assert "Kept" in answer.text
    assert await platform.documents("shifts") == []


async def test_a_night_shift_over_a_clock_change(platform: Platform) -> None:
    """22:00 to 06:00 is paid seven hours when the clocks go forward, nine when they go back."""
    forward = await platform.post(day=utc("2027-03-13").date(), start="22:00", end="06:00", rest="0")
    back = await platform.post(day=utc("2027-11-06").date(), start="22:00", end="06:00", rest="0")
    assert (forward.paid_minutes, back.paid_minutes) == (7 * 60, 9 * 60)


async def test_a_form_sent_twice_posts_one_shift(platform: Platform) -> None:
    """A double click is harmless; and nobody's form can take another pharmacy's shift."""
    day = (clock.now() + timedelta(days=3)).date().isoformat()
    form = {**BASE, "date": day, "shift_id": "shf_01J00000000000000000000000"}
    async with platform.browser(platform.mira) as mira, platform.browser(platform.owen) as owen:
        answers = [await mira.post("/pharmacy/shifts", data=form) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [303, 303]
        assert (await owen.post("/pharmacy/shifts", data=form)).status_code == 422
    assert len(await platform.documents("shifts")) == 1


async def test_health(platform: Platform) -> None:
    """Well; degraded, but serving, without the queues' Redis."""
    async with platform.browser() as browser:
        assert (await browser.get("/healthz")).json()["status"] == "ok"
        platform.queue_server.stop()
        answer = await browser.get("/healthz")
        assert (answer.status_code, answer.json()["degraded"]) == (200, ["queue"])
        operator = Actor.from_document(STAFF[2])
        await browser.post("/sign-in/demo", data={"user_id": operator.user_id})
        page = await browser.get("/operations")
        assert "does not answer" in page.text
