"""Whatever is typed, and wherever it is printed: an answer or a refusal, and never a traceback.

Random words for every command run in this process; terminals, pipes and character sets need a process of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
import typer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz import examples
from toril import Queue
from toril.cli.app import app

from .conftest import Toril, in_thread

Client: TypeAlias = Any
ELSEWHERE = {"--url", "--prefix", "--help", "--follow", "--repair"}
"""Would leave the test's own server and keys, or not end."""
JOB = "held"


def commands() -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    pending: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(app))]
    while pending:
        path, command = pending.pop()
        members = getattr(command, "commands", None)
        if members is None:
            yield path, command.params
        else:
            pending += [((*path, name), member) for name, member in members.items()]


COMMANDS = dict(commands())
FLAGS = {
    path: [
        name
        for one in params
        if one.param_type_name == "option" and (name := max(one.opts, key=len)) not in ELSEWHERE
    ]
    for path, params in COMMANDS.items()
}  # fmt: skip
WORDS = st.one_of(
    st.sampled_from(
        [
            *("", " ", "-", "--", "-1", "0", "1", "0.5", "nan", "inf", "-inf", "1e400", "9" * 400, "2097152"),
            *("2097153", "9007199254740993", "99999999999999", "null", "[]", "{}", '{"a":1,"a":2}', "NaN", "{"),
            *("[" * 10_000, '"\\ud800"', "1" + "0" * 400, "[red]", "[/]", "\x1b[31m", "\x00", "\n", "\udcff", "😀"),
            *("tests", "other", "a:b", "::", "{a}", "../x", "%00", "x" * 257, "__proto__", JOB, "1,2", "toril:x"),
            *("completed", "failed", "waiting", "wait", "delayed", "active", "os:sep", "toril.cli:app", ":"),
        ]
    ),
    st.text(max_size=8),
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    path = draw(st.sampled_from(sorted(set(COMMANDS) - {("server",)})))
    words = draw(st.lists(st.one_of(st.just("tests"), st.just(JOB), WORDS), max_size=4))
    for flag in draw(st.lists(st.sampled_from(FLAGS[path]), max_size=3)):
        words.insert(draw(st.integers(0, len(words))), flag)
    return [*path, *words]


@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(line=["job", "add", "tests", "a", "[" * 10_000])
@example(line=["job", "promote", "--json", "tests", "\udcff"])
@given(line=lines())
def test_any_words_are_answered(toril: Toril, line: list[str]) -> None:
    """Exit code 0, 1 or 2; a fault of the program's own would be raised here."""
    toril("job", "add", "tests", "a", "--id", JOB)
    answer = toril(*line)
    assert answer.code in (0, 1, 2), answer
    assert "Traceback" not in answer.out + answer.err


WILD = ["9" * 30, "253402300800000", "1e400", "-5", "[]"]
"""For a number: what no clock shows, such as the first millisecond of the year 10000, and what is no number."""


@pytest.mark.parametrize("number", WILD)
async def test_what_others_stored_is_shown_or_refused(
    toril: Toril, queue: Queue, client: Client, number: str
) -> None:
    """Records whose numbers are none, or beyond all clocks: every command that reads gives an answer."""
    job = await queue.add("held", {"to": "x"}, job_id=JOB)
    times = dict.fromkeys(
        ("timestamp", "processedOn", "finishedOn", "delay", "atm", "ats", "stc", "priority"), number
    )
    more = {
        "failedReason": "\x1b[31m\n[red]",
        "stacktrace": number,
        "progress": number,
        "returnvalue": number,
    }
    await client.hset(queue.keys.job(job.id), mapping={**times, **more})
    scheduler = {
        "name": "s",
        "every": number,
        "ic": number,
        "startDate": number,
        "endDate": number,
        "tz": "No/Where",
    }
    await client.hset(
        queue.keys.key("repeat:s"), mapping={**scheduler, "pattern": number, "data": "{", "opts": "{"}
    )
    await client.zadd(queue.keys.key("repeat"), {"s": 1e300})
    await client.xadd(queue.keys.key("events"), {"event": number, "jobId": "\x1b[31m"})
    await client.hset(
        queue.keys.key("meta"), mapping={"concurrency": number, "max": number, "duration": number}
    )
    for place in ("failed", "delayed"):
        await client.zrem(queue.keys.key("failed"), JOB)
        await client.lrem(queue.keys.key("wait"), 0, JOB)
        await client.zadd(queue.keys.key(place), {JOB: 1e300})
        for line in READERS:
            for more_flags in ([], ["--json"]):
                answer = await in_thread(toril, *line, *more_flags)
                assert answer.code in (0, 1, 2), (line, answer)
                assert "\x1b[31m" not in answer.out + answer.err or more_flags, line


READERS = [
    ["queue", "ls"],
    ["queue", "show", "tests"],
    ["job", "ls", "tests"],
    ["job", "show", "tests", JOB],
    ["job", "logs", "tests", JOB],
    ["why", "tests", JOB],
    ["cron", "ls", "tests"],
    ["cron", "show", "tests", "s"],
    ["events", "tests"],
    ["workers"],
    ["doctor", "--fsck"],
]


# --- where it is printed ----------------------------------------------------------------------------------------

PLACES: dict[str, dict[str, str]] = {
    "ascii, 20 columns": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "20"},
    "latin-1, no terminal": {"PYTHONIOENCODING": "latin-1", "TERM": ""},
}
SHOWN = [
    "queue ls",
    "job ls tests --json",
    "job show tests held",
    "job show tests held --json",
    "job logs tests held",
]


def run(
    url: str, prefix: str, line: list[str], environment: dict[str, str], **settings: Any
) -> subprocess.CompletedProcess[bytes]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("TORIL_", "LC_", "PYTHON"))
    }
    return subprocess.run(
        [sys.executable, "-m", "toril.cli", *line],
        env={**clean, "TORIL_URL": url, "TORIL_PREFIX": prefix, **environment},
        stdin=subprocess.DEVNULL,
        timeout=60,
        **settings,
    )  # fmt: skip


async def foreign(url: str, prefix: str) -> None:
    """Names, data and a log that are in no narrow character set."""
    async with Queue("тест", connection=url, prefix=prefix) as queue:
        await queue.add("снег")
    async with Queue("tests", connection=url, prefix=prefix) as queue:
        job = await queue.add("naïve 😀", {"to": "Łódź 😀 \u2028"}, job_id=JOB)
        for _ in range(3):
            await job.log("снег 😀")


@pytest.mark.parametrize("place", PLACES)
async def test_any_character_set_and_width_will_do(server_url: str, prefix: str, place: str) -> None:
    """What it lacks is escaped, and JSON stays JSON."""
    await foreign(server_url, prefix)

    def look() -> None:
        for line in SHOWN:
            ended = run(server_url, prefix, line.split(), PLACES[place], capture_output=True)
            assert ended.returncode == 0, (line, ended)
            assert b"Traceback" not in ended.stderr, (line, ended.stderr.decode(errors="replace"))
            if "--json" in line:
                json.loads(ended.stdout.decode(place.partition(",")[0]))

    await asyncio.to_thread(look)


@pytest.mark.parametrize(
    "line", ["job ls tests --limit 1000", "job ls tests --json --limit 1000", "job logs tests held"]
)
async def test_a_reader_that_has_seen_enough_is_no_problem(
    server_url: str, prefix: str, queue: Queue, line: str
) -> None:
    """As `head` after its first line: exit code 0, and not a word. A closed stdout is nobody's either."""
    job = await queue.add("held", job_id=JOB)
    await queue.add_bulk(("x" * 200, None) for _ in range(900))
    for _ in range(20):
        await job.log("x" * 8000)

    def look() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        ended = run(server_url, prefix, line.split(), {}, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (0, b"")
        shut = run(
            server_url, prefix, line.split(), {}, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1)
        )
        assert (shut.returncode, shut.stderr) == (0, b"")

    await asyncio.to_thread(look)


async def test_a_follower_that_nobody_reads_ends(server_url: str, prefix: str, queue: Queue) -> None:
    """`toril events --follow --json | head -1` is no problem either."""
    await queue.add("any")

    def look() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        line = ["events", "tests", "--follow", "--json"]
        ended = run(server_url, prefix, line, {}, stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (0, b"")

    await asyncio.to_thread(look)


async def test_a_closed_stdin_answers_nothing(server_url: str, prefix: str, queue: Queue) -> None:
    """As programs without a terminal have it: what would be lost needs `--yes`."""
    await queue.add("any")

    def look() -> None:
        line = ["queue", "drain", "tests"]
        ended = run(server_url, prefix, line, {}, capture_output=True, preexec_fn=lambda: os.close(0))
        assert ended.returncode == 2
        assert b"Say so with --yes" in ended.stderr

    await asyncio.to_thread(look)
    assert await queue.get_waiting_count() == 1
