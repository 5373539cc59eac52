"""The product's main path as people walk it: in two browsers, from signing in to a confirmed shift.

Chromium and its driver come from the system (Debian: `chromium`, `chromium-driver`). Set SCREENSHOTS to a
directory to keep the pictures; those in `docs/images` are made so.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.testing import Running, running

selenium = pytest.importorskip("selenium", reason="selenium is not installed: make test installs it")

from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.wait import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None,
        reason="no Chromium with its driver: apt-get install chromium chromium-driver",
    ),
    pytest.mark.xdist_group("dev-browser"),
]


class Browser:
    """One person's browser."""

    def __init__(self, driver: Chrome, pictures: Path) -> None:
        self.driver = driver
        self._pictures = pictures

    def find(self, selector: str, text: str = "", seconds: float = 20) -> WebElement:
        """Wait for an element that contains a text; the page may bring it by itself."""

        what = f"{selector} with {text!r} at {self.driver.current_url}"
        waiting = WebDriverWait(self.driver, seconds, 0.05)
        found = waiting.until(lambda _: self._look(selector, text), f"no {what}")
        assert found is not None
        return found

    def wait_until_gone(self, selector: str, text: str, seconds: float = 20) -> None:
        waiting = WebDriverWait(self.driver, seconds, 0.05)
        waiting.until(lambda _: self._look(selector, text) is None, f"still {selector} with {text!r}")

    def _look(self, selector: str, text: str) -> WebElement | None:
        # In one step: the live parts of a page are replaced, and what was found may be gone when it is asked.
        found = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])]"
            ".find(e => e.checkVisibility() && e.innerText.includes(arguments[1]))",
            selector,
            text,
        )
        return found if isinstance(found, WebElement) else None

    def click(self, selector: str, text: str = "") -> None:
        self.find(selector, text).click()

    def type(self, selector: str, text: str) -> None:
        self.find(selector).send_keys(text)

    def picture(self, name: str) -> None:
        """Keep what the window shows."""
        # Wherever the last click left the pointer, no button is to look pressed or focused.
        self.driver.execute_script("document.activeElement?.blur(); window.scrollTo(0, 0)")
        self.driver.save_screenshot(str(self._pictures / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the console holds against the pages, such as a breach of their security policy."""
        log: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


@contextmanager
def browser(profile: Path, pictures: Path) -> Generator[Browser]:
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--force-device-scale-factor=1",
        "--hide-scrollbars",
        "--lang=en-CA",
        "--window-size=1240,860",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, ChromeService(DRIVER))
    try:
        driver.set_page_load_timeout(30)
        yield Browser(driver, pictures)
    finally:
        driver.quit()


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
