"""`toril worker`, as a process of its own: what it runs, logs, and how it ends."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.patience import until
from toril import Queue
from toril.cli.worker import JsonLines

from .conftest import Start, Toril

APP = """
    import asyncio, gc, os
    from toril import Queue, Worker

    PREFIX = os.environ["APP_PREFIX"]
    emails = Queue("emails", prefix=PREFIX)
    reports = Queue("reports", prefix=PREFIX)
    idle = Queue("idle", prefix=PREFIX)

    @emails.processor("welcome")
    async def welcome(to: str) -> str:
        if to == "nobody":
            raise ValueError("no such address")
        return f"sent to {to}"

    @emails.processor("slow", attempts=1)
    async def slow() -> None:
        await asyncio.sleep(60)

    @reports.processor("build")
    def build() -> str:
        return type(asyncio.get_event_loop_policy()).__name__

    @reports.processor("frozen")
    async def frozen() -> int:
        return gc.get_freeze_count()

    @reports.processor("loop")
    async def loop() -> str:
        return type(asyncio.get_running_loop()).__module__

    audits = Worker(Queue("audits", prefix=PREFIX), lambda job: "seen", concurrency=3)
    everything = [emails, [audits], reports]
    number = 42

    class Deep:
        queue = emails
"""


class Log:
    """A worker's stderr, read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()

    def wait_for(self, *texts: str, count: int = 1) -> None:
        """Wait until there are `count` lines that hold all these texts."""

        def is_there() -> bool:
            return sum(all(text in line for text in texts) for line in self.lines) >= count

        with self._news:
            assert self._news.wait_for(is_there, 20), f"no {count} lines with {texts} in {self.lines}"

    def end(self) -> int:
        """Wait until the process has ended, and return its exit code."""
        code = self.process.wait(20)
        self._thread.join(15)
        return code


Run = Callable[..., Log]


@pytest.fixture
def app(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(APP))


@pytest.fixture
def run(app: None, server_url: str, prefix: str, start: Start) -> Run:
    # `start` comes last, so that it ends the workers before the prefix is looked at.
    def begin(*args: str, **environment: str) -> Log:
        return Log(start("worker", *args, **({"TORIL_URL": server_url, "APP_PREFIX": prefix} | environment)))

    return begin


async def test_a_jobs_life_is_in_the_log(run: Run, server_url: str, prefix: str) -> None:
    """A worker takes jobs of its queue, logs each as active, then as completed or failed, and ends on SIGTERM."""
    log = run("app:emails", "--concurrency", "2")
    async with Queue("emails", connection=server_url, prefix=prefix) as emails:
        good = await emails.add("welcome", {"to": "ann"})
        bad = await emails.add("welcome", {"to": "nobody"})
        assert await good.result(20) == "sent to ann"
        log.wait_for(f"job {bad.id} (welcome)", "failed")
        log.wait_for(f"job {good.id} (welcome)", "completed")
        counts = await emails.get_job_counts("completed", "failed")

    log.process.send_signal(signal.SIGTERM)
    assert log.end() == 0
    assert counts == {"completed": 1, "failed": 1}
    active = [index for index, line in enumerate(log.lines) if f"job {good.id} " in line and "active" in line]
    done = [
        index for index, line in enumerate(log.lines) if f"job {good.id} " in line and "completed" in line
    ]
    assert len(active) == len(done) == 1
    assert active < done
    assert not any("ann" in line for line in log.lines), "data in the log"
    log.wait_for("concurrency 2")


async def test_several_names_and_lists_run_side_by_side(run: Run, server_url: str, prefix: str) -> None:
    """Queues, workers and nested lists of them; what is named twice runs once."""
    log = run("app:everything", "app:reports", "app:Deep.queue")
    names = {"emails": "welcome", "reports": "build", "audits": "any"}
    for queue_name, job_name in names.items():
        async with Queue(queue_name, connection=server_url, prefix=prefix) as queue:
            job = await queue.add(job_name, {"to": "ann"} if job_name == "welcome" else {})
            await job.result(20)
    log.process.send_signal(signal.SIGINT)
    assert log.end() == 0
    for queue_name in names:
        assert sum("ready" in line and f"'{queue_name}'" in line for line in log.lines) == 1


async def test_uvloop_is_used_where_it_is_installed(run: Run, server_url: str, prefix: str) -> None:
    """Without a flag."""
    pytest.importorskip("uvloop")
    run("app:reports")
    async with Queue("reports", connection=server_url, prefix=prefix) as reports:
        assert str(await (await reports.add("loop")).result(20)).startswith("uvloop")


async def test_the_garbage_collector_leaves_alone_what_stays(run: Run, server_url: str, prefix: str) -> None:
    """Modules and workers are walked through once, when all workers are ready, and not while jobs wait."""
    log = run("app:everything")
    for queue_name in ("emails", "audits", "reports"):
        log.wait_for("ready", f"'{queue_name}'")
    async with Queue("reports", connection=server_url, prefix=prefix) as reports:

        async def is_frozen() -> bool:
            return int(await (await reports.add("frozen")).result(20)) > 10_000

        await until("the freeze", is_frozen)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
async def test_running_jobs_are_handed_back_after_the_grace(
    run: Run, server_url: str, prefix: str, name: str
) -> None:
    """A signal waits for the grace; what runs then waits again, uncounted. SIGHUP comes when the terminal has gone."""
    log = run("app:emails", "--grace", "0.2")
    async with Queue("emails", connection=server_url, prefix=prefix) as emails:
        job = await emails.add("slow")
        log.wait_for(f"job {job.id} ", "active")
        log.process.send_signal(signal.Signals[name])
        assert log.end() == 0
        assert await job.get_state() == "waiting"
        await job.refresh()
        assert job.attempts_made == 0
    assert any(f"{name}: stopping" in line for line in log.lines)
    assert not any("Traceback" in line for line in log.lines)


async def test_a_second_signal_stops_at_once(run: Run, server_url: str, prefix: str) -> None:
    """With a grace of 30 seconds, the second SIGTERM hands running jobs back without waiting."""
    log = run("app:emails")
    async with Queue("emails", connection=server_url, prefix=prefix) as emails:
        job = await emails.add("slow")
        log.wait_for(f"job {job.id} ", "active")
        log.process.send_signal(signal.SIGTERM)
        log.wait_for("waiting for running jobs")
        log.process.send_signal(signal.SIGTERM)
        assert log.end() == 0
        assert await job.get_state() == "waiting"


async def test_sigquit_leaves_no_grace(run: Run, server_url: str, prefix: str) -> None:
    """With a grace of 30 seconds, running jobs are handed back at once."""
    log = run("app:emails")
    async with Queue("emails", connection=server_url, prefix=prefix) as emails:
        job = await emails.add("slow")
        log.wait_for(f"job {job.id} ", "active")
        log.process.send_signal(signal.SIGQUIT)
        log.wait_for("SIGQUIT: stopping, handing back")
        assert log.end() == 0
        assert await job.get_state() == "waiting"


async def test_nohup_outlives_its_terminal(run: Run, server_url: str, prefix: str) -> None:
    """A program that is told to ignore SIGHUP goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        log = run("app:emails")
    finally:
        signal.signal(signal.SIGHUP, before)
    log.wait_for("ready")
    log.process.send_signal(signal.SIGHUP)
    async with Queue("emails", connection=server_url, prefix=prefix) as emails:
        assert await (await emails.add("welcome", {"to": "ann"})).result(20) == "sent to ann"
    log.process.send_signal(signal.SIGTERM)
    assert log.end() == 0


async def test_the_url_flag_wins_over_the_environment(run: Run, server_url: str, prefix: str) -> None:
    """--url reaches the queues of the program that is imported."""
    log = run("app:emails", "--url", server_url, TORIL_URL="redis://127.0.0.1:1")
    log.wait_for("ready")


async def test_json_lines_are_for_programs(run: Run) -> None:
    """With --json every line of the log is an object."""
    log = run("app:emails", "--json")
    log.wait_for("ready")
    log.process.send_signal(signal.SIGTERM)
    assert log.end() == 0
    lines = [json.loads(line) for line in log.lines]
    assert {"time", "level", "logger", "message"} == set(lines[0])
    assert lines[0]["level"] == "info"


def test_json_lines_are_json_in_any_character_set() -> None:
    """Half of what stderr escapes of itself, such as `\\xe4`, would be no JSON."""
    record = logging.LogRecord("toril", logging.INFO, __file__, 1, "naïve %s", ("Łódź 😀",), None)
    line = JsonLines().format(record)
    assert line.isascii()
    assert json.loads(line)["message"] == "naïve Łódź 😀"


async def test_the_log_level_is_a_setting(run: Run, server_url: str, prefix: str) -> None:
    """TORIL_LOG_LEVEL=warning keeps a healthy worker silent."""
    log = run("app:emails", "app:reports", "--log-level", "info", TORIL_LOG_LEVEL="warning")
    log.wait_for("ready", count=2)  # the flag wins
    quiet = run("app:audits", TORIL_LOG_LEVEL="warning")
    async with Queue("audits", connection=server_url, prefix=prefix) as audits:
        assert await (await audits.add("any")).result(20) == "seen"
    quiet.process.send_signal(signal.SIGTERM)
    assert quiet.end() == 0
    assert quiet.lines == []


async def test_a_program_that_sets_up_logging_does_not_silence_its_worker(
    run: Run, server_url: str, prefix: str, tmp_path: Path
) -> None:
    """A plain basicConfig() is for warnings; its form is kept. A level that it gives to toril is obeyed."""
    program = "import logging\nlogging.basicConfig(format='mine: %(message)s')\nfrom app import audits\n"
    (tmp_path / "plain.py").write_text(program)
    plain = run("plain:audits")
    plain.wait_for("mine: ", "ready")
    plain.process.send_signal(signal.SIGTERM)
    assert plain.end() == 0
    (tmp_path / "quiet.py").write_text(f"{program}logging.getLogger('toril').setLevel('ERROR')\n")
    quiet = run("quiet:audits")
    async with Queue("audits", connection=server_url, prefix=prefix) as audits:
        assert await (await audits.add("any")).result(20) == "seen"
    quiet.process.send_signal(signal.SIGTERM)
    assert quiet.end() == 0
    assert quiet.lines == []


async def test_an_unreachable_server_is_waited_for(run: Run) -> None:
    """A worker that comes up before its server says so, and stops when told to."""
    log = run("app:emails", TORIL_URL="redis://127.0.0.1:1")
    log.wait_for("127.0.0.1:1", "trying again")
    log.process.send_signal(signal.SIGTERM)
    assert log.end() == 0


async def test_a_wrong_password_ends_the_worker(run: Run, server_url: str) -> None:
    """Waiting does not mend a wrong password: exit code 3, and no traceback."""
    log = run("app:everything", TORIL_URL=server_url.replace("redis://", "redis://who:secret@"))
    assert log.end() == 3
    assert "refuses the user name or password" in log.lines[-1]
    assert not any("Traceback" in line or "secret" in line for line in log.lines)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("app", "write MODULE:NAME"),
        ("app:", "write MODULE:NAME"),
        ("nowhere:emails", "there is no module 'nowhere'"),
        ("app:nothing", "app has no 'nothing'"),
        ("app:email", "app has no 'email'; did you mean 'emails'?"),
        ("app:number", "is int; it must be a Worker"),
        ("app:idle", "queue 'idle' has no processors"),
    ],
)
def test_a_wrong_target_is_wrong_usage(
    app: None,
    toril: Toril,
    tmp_path: Path,
    prefix: str,
    target: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit code 2 and one line that says what to write instead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("APP_PREFIX", prefix)
    monkeypatch.delitem(__import__("sys").modules, "app", raising=False)
    answer = toril("worker", target)
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("mistake", ["import nothing_like_it", "def f(:", "1 / 0"])
def test_a_program_that_cannot_be_imported_is_shown_its_own_traceback(
    toril: Toril, tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not forty lines of the command line's machinery before it."""
    (tmp_path / "broken.py").write_text(f"{mistake}\n")
    monkeypatch.chdir(tmp_path)
    answer = toril("worker", "broken:emails")
    assert answer.code == 1
    assert mistake in answer.err
    assert "typer" not in answer.err
    assert "importlib" not in answer.err
    assert answer.err.splitlines()[-1] == "toril: 'broken:emails': importing it failed, see above"
