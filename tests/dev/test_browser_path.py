"""The product's main path as people walk it: in two browsers, from signing in to a confirmed shift.

Set SCREENSHOTS to a directory to keep the pictures; those in `docs/images` are made so.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.testing import Running, running
from tests.browser import Browser, browser, needs_browser

pytestmark = [needs_browser, pytest.mark.xdist_group("dev-browser")]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("browser") / "run") as runner:
        yield runner


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[[], Browser]]:
    """Open a browser of its own for each person; all are closed at the end."""
    from contextlib import ExitStack

    pictures = Path(os.environ.get("SCREENSHOTS", tmp_path / "pictures")).resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(
            browser(tmp_path / f"profile-{len(os.listdir(tmp_path))}", pictures)
        )


def mails(runner: Running, to: str, *, after: int, containing: str, seconds: int = 20) -> dict[str, Any]:
    """Wait for a mail."""
    url = f"{runner.description['mail']}/api/messages?to={to}&after={after}"
    for wait in (0, *[1] * seconds):
        with urllib.request.urlopen(f"{url}&wait={wait}", timeout=30) as response:
            for mail in json.loads(response.read())["messages"]:
                if containing in mail["subject"]:
                    found: dict[str, Any] = mail
                    return found
    raise AssertionError(f"no mail to {to} about {containing!r} within {seconds} s:\n{runner.output}")


def newest_mail(runner: Running) -> int:
    with urllib.request.urlopen(f"{runner.description['mail']}/api/messages", timeout=30) as response:
        version: int = json.loads(response.read())["version"]
        return version


def test_a_pharmacist_applies_and_a_manager_confirms(
    runner: Running, open_browser: Callable[[], Browser]
) -> None:
    """Search, application, verdict, mail, confirmation: each appears without anybody reloading a page."""
    platform, catcher = runner.description["platform"], runner.description["mail"]
    amir, mira = open_browser(), open_browser()
    before = newest_mail(runner)

    amir.driver.get(platform)
    amir.find("h1", "Every shift covered")
    amir.picture("sign-in")
    amir.type("#email", "amir@relief.example")
    amir.type("#password", "relief-demo-2026")
    amir.click("form.panel button", "Sign in")
    amir.find("h1", "Find shifts")
    amir.find(".card", "Harbour Street Pharmacy")
    amir.picture("search")
    shift = amir.find("a.card-link", "at $75")
    address = shift.get_attribute("href") or ""
    shift.click()
    amir.find("h1", "Harbour Street Pharmacy")

    # The manager looks at the shift already, and will not touch the page until the applicant is there.
    mira.driver.get(platform)
    mira.click("button.person", "Mira Castellan")
    mira.find("h1", "Harbour Street Pharmacy")
    mira.driver.get(address)
    mira.find("#applicants", "Nobody has applied yet")

    amir.type("#message", "I opened this store for six months in 2024 and know the system.")
    amir.click("button", "Apply for this shift")
    amir.find(".notice", "Your application is with the pharmacy")
    amir.find("#mine .pill", "Fits")
    amir.picture("application")

    mira.find("#applicants h3", "Amir Haddad")
    mira.find("#applicants .pill", "Fits")
    mail = mails(runner, "mira@harbour-street.example", after=before, containing="Amir Haddad applied for")
    reader = open_browser()
    reader.driver.get(catcher)
    reader.find(".mails .subject", mail["subject"])
    reader.picture("mail")
    reader.driver.get(f"{catcher}/messages/{mail['id']}")
    link = reader.find("pre a").get_attribute("href") or ""
    assert link.startswith(platform)
    assert address in link

    mira.click("#applicants button", "Confirm Amir Haddad")
    mira.find("#applicants h2", "Covered by Amir Haddad")
    amir.find("#mine .pill", "Confirmed")
    mails(runner, "amir@relief.example", after=before, containing="You are booked")
    assert [*amir.complaints(), *mira.complaints(), *reader.complaints()] == []


def test_a_manager_compares_applicants(runner: Running, open_browser: Callable[[], Browser]) -> None:
    """The schedule leads to everybody who applied, each with a verdict and a button."""
    mira = open_browser()
    mira.driver.get(runner.description["platform"])
    mira.click("button.person", "Mira Castellan")
    mira.click("a.row-link", "3 applicants")
    mira.find("#applicants h2", "3 applicants")
    mira.wait_until_gone("#applicants .pill", "Checking")
    for name in ("Amir Haddad", "Mei Lin", "Dana Kim"):
        mira.find("#applicants button", f"Confirm {name}")
    mira.picture("applicants")
    assert mira.complaints() == []


def test_a_new_mail_appears_on_the_open_page(runner: Running, open_browser: Callable[[], Browser]) -> None:
    """The mail catcher's list needs no reload."""
    reader, claire = open_browser(), open_browser()
    reader.driver.get(runner.description["mail"])
    reader.find("h1")
    claire.driver.get(runner.description["platform"])
    claire.click("button.person", "Claire Tremblay")
    claire.click("a.card-link", "at $84")
    claire.click("button", "Apply for this shift")
    reader.find(".mails .subject", "Claire Tremblay applied for")
    assert reader.complaints() == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_no_page_keeps_anybody_out(
    runner: Running, open_browser: Callable[[], Browser], width: int, scheme: str
) -> None:
    """Contrast, labels, headings, landmarks: axe-core finds nothing, and nothing is wider than the window."""
    platform, catcher = runner.description["platform"], runner.description["mail"]
    reader = open_browser()
    reader.look_as(width, scheme)
    found: list[str] = []

    def look(path: str, selector: str = "h1", text: str = "") -> None:
        reader.driver.get(path if path.startswith("http") else platform + path)
        reader.find(selector, text)
        found.extend(reader.barriers())

    def sign_in(person: str) -> None:
        reader.driver.delete_all_cookies()
        look("/sign-in")
        reader.click("button.person", person)
        reader.find("form.who")

    look("/sign-in")
    reader.click("form.panel button", "Sign in")
    reader.find(".error")
    found += reader.barriers()
    look("/nowhere", "h1", "There is nothing here")

    sign_in("Dana Kim")
    look("/shifts", ".card")
    shift = reader.find("a.card-link").get_attribute("href") or ""
    look(shift)
    look("/shifts?rate=80&region=CA-MB", ".empty")
    look("/applications", ".card")
    look("/pharmacy", "h1")

    sign_in("Mira Castellan")
    look("/pharmacy", ".schedule")
    look(reader.find("a.row-link", "applicant").get_attribute("href") or "", "#applicants")
    look("/pharmacy/shifts/new", "#rate")
    reader.driver.execute_script("document.querySelector('#rate').value = 'much'")
    reader.click("form.panel button", "Post the shift")
    reader.find("#rate-error")
    found += reader.barriers()
    look("/pharmacy/reports", "tbody a")
    look(reader.find("tbody a").get_attribute("href") or "", ".tiles")

    sign_in("Sam Okonedo")
    look("/operations", "table")
    look(catcher, ".mails a")
    look(reader.find(".mails a").get_attribute("href") or "", "pre")
    assert found == []
