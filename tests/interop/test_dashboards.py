"""bull-board, as a Node developer runs it, on queues that only toril has filled: what it shows, and what its
buttons do. It is driven through its page, in a browser. Set SCREENSHOTS to a directory to keep the pictures.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, browser, needs_browser
from tests.patience import until
from toril import Flow, FlowJob, FlowProducer, Job, Queue, QueueEvents, UnrecoverableError, Worker
from toril.embedded import EmbeddedServer

from .node import INTEROP, server_options, why_no_node

from selenium.webdriver.common.action_chains import ActionChains  # isort: skip  # it may be missing, see browser
from selenium.webdriver.support.wait import WebDriverWait  # isort: skip

pytestmark = [
    needs_browser,
    pytest.mark.skipif(why_no_node() is not None, reason=str(why_no_node())),
    pytest.mark.skipif(
        not (INTEROP / "node_modules" / "@bull-board").is_dir(),
        reason="bull-board is not installed: make test installs it",
    ),
    pytest.mark.xdist_group("dashboards"),
]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    profile = tmp_path_factory.mktemp("bull-board")
    pictures = Path(os.environ.get("SCREENSHOTS", profile / "pictures")).resolve()
    pictures.mkdir(parents=True, exist_ok=True)
    with browser(profile / "profile", pictures) as window:
        yield window


class Board:
    """bull-board's page, by the words that it shows."""

    def __init__(self, window: Browser, url: str) -> None:
        self.window = window
        self.url = url

    def open(self, queue: str, job_id: str = "", status: str = "") -> None:
        path = f"/queue/{queue}" + (f"/{job_id}" if job_id else "") + (f"?status={status}" if status else "")
        self.window.driver.get(self.url + path)

    def see(self, *texts: str) -> None:
        for text in texts:
            self.window.find("main, #root > *", text)

    def tab(self, name: str, *texts: str) -> None:
        """Open a tab of the job and see texts in it."""
        self.window.click("[role=tab]", name)
        for text in texts:
            self.window.find("[role=tabpanel]", text)

    def press(self, name: str) -> None:
        """Press a button of the only job that is shown, known by the hint that hovering brings, and confirm."""
        driver = self.window.driver
        self.window.find("[role=tab]")
        icons = driver.execute_script(
            "return [...document.querySelectorAll('main button')].filter(e => e.checkVisibility()"
            " && !e.innerText.trim() && !e.ariaLabel && !e.ariaHasPopup && !e.closest('[role=tabpanel]'))"
        )
        hints = (
            "return [...document.querySelectorAll('[role=presentation][data-side]')].at(-1)?.innerText.trim()"
        )
        seen: list[str] = []
        for icon in icons:
            ActionChains(driver, duration=0).move_to_element(icon).perform()
            waiting = WebDriverWait(driver, 20, 0.05)
            waiting.until(
                lambda _: driver.execute_script(hints) not in [None, "", *seen[-1:]], f"no hint after {seen}"
            )
            seen.append(driver.execute_script(hints))
            if seen[-1] == name:
                icon.click()
                self.window.click("[role=alertdialog] button, [role=dialog] button", "Confirm")
                return
        raise AssertionError(f"no button {name} among {seen} at {driver.current_url}")

    def choose(self, entry: str) -> None:
        """Choose an entry of the queue's menu, and confirm."""
        menus = "return [...document.querySelectorAll('main button[aria-haspopup=menu]')].at(-1)"
        waiting = WebDriverWait(self.window.driver, 20, 0.05)
        waiting.until(lambda driver: driver.execute_script(menus), "no menu").click()
        self.window.click("[role=menuitem]", entry)
        self.window.click("[role=alertdialog] button, [role=dialog] button", "Confirm")


@pytest.fixture
def board(server: EmbeddedServer, prefix: str, window: Browser) -> Iterator[Board]:
    """The dashboard's process, for two queues of the test's prefix."""
    settings = {"connection": server_options(server.url), "prefix": prefix, "queues": ["tests", "parts"]}
    command = ["node", str(INTEROP / "board.js"), json.dumps(settings)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield Board(window, json.loads(process.stdout.readline())["url"])
        finally:
            window.driver.get("about:blank")
            process.stdin.close()
            process.wait(30)


@pytest.fixture
async def events(server_url: str, prefix: str) -> AsyncIterator[QueueEvents]:
    async with QueueEvents("tests", connection=server_url, prefix=prefix, last_event_id="0") as events:
        yield events


async def told(events: QueueEvents, job: Job) -> list[tuple[str, str | None]]:
    """The events of a job so far: name, and the state that it came from."""
    found = await events.read(block_ms=10)
    return [(event.name, event.prev) for event in found if event.job_id == job.id]


async def fill(queue: Queue) -> tuple[Job, Job, Job, Flow]:
    """A job that completed, one that failed, one that is delayed, and a flow of which a child completed."""

    async def process(job: Job) -> str:
        await job.log("opened the letter")
        await job.log("read it")
        await job.update_progress(40)
        if job.name == "bounce":
            raise UnrecoverableError("the mailbox is full")
        return "a receipt"

    done = await queue.add("welcome", {"to": "ana"})
    failed = await queue.add("bounce", {"to": "ben"})
    async with Worker(queue, process, name="torero"):
        await until("both to end", lambda: _ended(queue, 2))
    delayed = await queue.add("later", {"to": "cem"}, delay=3600)
    flows = FlowProducer(connection=queue.connection, prefix=queue.prefix)
    flow = await flows.add(
        FlowJob("digest", "tests", children=[FlowJob("gather", "parts"), FlowJob("sort", "parts")])
    )
    return done, failed, delayed, flow


async def _ended(queue: Queue, count: int) -> bool:
    return sum((await queue.get_job_counts("completed", "failed")).values()) == count


async def test_it_shows_what_toril_wrote(board: Board, queue: Queue) -> None:
    """Names, states, data, result, error with its trace, progress, logs, worker, and a flow with its children."""
    done, failed, delayed, flow = await fill(queue)
    assert done.id
    assert failed.id
    assert delayed.id
    assert flow.job.id

    board.open("tests", done.id)
    board.see("welcome", "by torero", "40%")
    board.tab("Data", '"ana"', '"a receipt"')
    board.tab("Logs", "opened the letter", "read it")
    board.window.picture("bull-board-completed")
    board.open("tests", status="failed")
    board.see("#2", "bounce")
    board.tab("Error", "Traceback", "the mailbox is full")
    board.tab("Options", "attempts")
    board.window.picture("bull-board-failed")
    board.open("tests", status="delayed")
    board.see("later")

    async with Worker(
        Queue("parts", connection=queue.connection, prefix=queue.prefix), lambda job: job.name, name="picador"
    ):
        await until("the children to end", lambda: flow.job.is_waiting())
        board.open("tests", flow.job.id)
        for text in ("digest", "WAITING", "gather", "sort", "COMPLETED"):
            board.window.find(".react-flow", text)
        board.window.picture("bull-board-flow")
    child = flow.children[0].job
    assert child.id
    board.open("parts", child.id)
    board.window.find(".react-flow", "digest")
    board.window.driver.get(board.url)
    board.see("tests", "parts")
    # Fonts and icons from elsewhere are not there for everybody.
    own = board.url.removesuffix("/board")
    assert [line for line in board.window.complaints() if own in line] == []


async def test_what_its_buttons_do_is_right_in_toril(board: Board, queue: Queue, events: QueueEvents) -> None:
    """Promote, retry, remove, pause and resume leave what toril's own verbs leave, and tell the same events."""
    _, failed, delayed, flow = await fill(queue)
    assert delayed.id
    assert failed.id
    await told(events, failed)  # what they have told before is not looked at

    board.open("tests", status="delayed")
    board.press("Promote")
    await until("the delayed job to wait", delayed.is_waiting)
    await delayed.refresh()
    assert (await told(events, delayed), delayed.delay) == ([("waiting", "delayed")], 0)

    board.open("tests", failed.id)
    board.press("Retry")
    await until("the failed job to wait", failed.is_waiting)
    await failed.refresh()
    assert await told(events, failed) == [("waiting", "failed")]
    assert (failed.failed_reason, failed.finished_on) == (None, None)

    board.open("tests", failed.id)
    board.press("Clean")
    await until("the job to be gone", lambda: _is_gone(queue, failed.id))
    assert await told(events, failed) == [("removed", "wait")]

    board.open("tests", status="waiting")
    board.choose("Pause")
    await until("the queue to be paused", queue.is_paused)
    ran: list[str] = []

    async def process(job: Job) -> None:
        ran.append(job.name)

    async with Worker(queue, process):
        assert await queue.get_waiting()
        board.open("tests", status="waiting")
        board.choose("Resume")
        await until("the promoted job to have run", delayed.is_completed)
    assert ran == ["later"]
    assert not await queue.is_paused()
    names = [event.name for event in await events.read(block_ms=10)]
    assert ("paused" in names, "resumed" in names) == (True, True)
    assert await flow.job.is_waiting_children()


async def _is_gone(queue: Queue, job_id: str | None) -> bool:
    return await queue.get_job(str(job_id)) is None
