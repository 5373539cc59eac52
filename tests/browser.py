"""A headless Chromium for tests of pages, by the system's own driver (Debian: `chromium`, `chromium-driver`)."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="selenium is not installed: make test installs it")

from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

__all__ = ["Browser", "browser", "needs_browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
AXE = Path(__file__).parents[1] / "interop" / "node_modules" / "axe-core" / "axe.min.js"

needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no Chromium with its driver: apt-get install chromium chromium-driver",
)


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

    def look_as(self, width: int, scheme: str) -> None:
        """Be a window, or a telephone, of this width, for somebody who likes pages light or dark."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def barriers(self) -> list[str]:
        """What axe-core finds on the page that keeps people out, and whether it scrolls sideways."""
        if not AXE.exists():
            pytest.skip("axe-core is not installed: npm ci --prefix interop")
        self.driver.execute_script(AXE.read_text())
        found: list[str] = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(results => done("
            "results.violations.flatMap(rule => rule.nodes.map(node => `${rule.id}: ${node.target} (${rule.help})`))))"
        )
        page = "document.documentElement"
        if self.driver.execute_script(f"return {page}.scrollWidth > {page}.clientWidth"):
            found.append("it scrolls sideways")
        return [f"{self.driver.current_url}: {barrier}" for barrier in found]

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
