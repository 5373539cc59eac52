"""The verbs of operators: on queues, jobs and job schedulers; and who is there, and what happens."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.patience import Heard, ended
from toril import FlowJob, FlowProducer, Job, Queue, Worker

from .conftest import Start, Toril, in_thread


async def work(job: Job) -> str:
    if job.name == "fails":
        raise ValueError("boom")
    return "private"


async def counts(queue: Queue) -> dict[str, int]:
    return {state: count for state, count in (await queue.get_job_counts()).items() if count}


async def ended_and_waiting(queue: Queue) -> None:
    """A completed, a failed, a waiting and a delayed job."""
    jobs = await queue.add_bulk([("works", None), ("fails", None)])
    async with Worker(queue, work):
        await ended(*jobs)
    await queue.add("waits")
    await queue.add("later", delay=60)


# Queues


async def test_a_queue_is_paused_and_resumed(toril: Toril, queue: Queue) -> None:
    """And says so."""
    await queue.add("a")
    answer = await in_thread(toril, "queue", "pause", queue.name)
    assert (answer.code, answer.out) == (0, "queue 'tests': is paused\n")
    assert await queue.is_paused()
    assert (await in_thread(toril, "queue", "resume", queue.name, "--json")).json == {
        "queue": "tests",
        "is_paused": False,
    }
    assert not await queue.is_paused()


async def test_a_queue_is_shown(toril: Toril, queue: Queue) -> None:
    """Counts and limits; what is not set takes no room."""
    await queue.add("a")
    await queue.set_global_concurrency(3)
    await queue.set_global_rate_limit(10, 60)
    answer = await in_thread(toril, "queue", "show", queue.name)
    lines = dict(line.split(None, 1) for line in answer.out.splitlines())
    assert (lines["waiting"], lines["global_concurrency"]) == ("1", "3")
    assert lines["global_rate_limit"] == "10 in 60 s"
    assert "is_paused" not in lines
    shown = (await in_thread(toril, "queue", "show", queue.name, "--json")).json
    assert shown["global_rate_limit"] == {"jobs": 10, "seconds": 60.0}


async def test_what_waits_is_drained(toril: Toril, queue: Queue) -> None:
    """Delayed jobs only if asked."""
    await ended_and_waiting(queue)
    assert (await in_thread(toril, "queue", "drain", queue.name, "--yes")).out == "queue 'tests': 1 removed\n"
    drained = await in_thread(toril, "queue", "drain", queue.name, "--delayed", "--yes", "--json")
    assert drained.json == {"queue": "tests", "removed": 1}
    assert await counts(queue) == {"completed": 1, "failed": 1}


async def test_a_state_is_cleaned(toril: Toril, queue: Queue) -> None:
    """Beyond the grace, of one state."""
    await ended_and_waiting(queue)
    young = await in_thread(toril, "queue", "clean", queue.name, "--grace", "3600", "-y", "--json")
    assert young.json["removed"] == 0
    cleaned = await in_thread(toril, "queue", "clean", queue.name, "--state", "failed", "-y", "--json")
    assert cleaned.json["removed"] == 1
    assert await counts(queue) == {"completed": 1, "waiting": 1, "delayed": 1}
    assert (await in_thread(toril, "queue", "clean", queue.name, "--state", "bogus", "-y")).code == 2


async def test_jobs_are_retried_and_promoted_together(toril: Toril, queue: Queue) -> None:
    """All of a queue's."""
    await ended_and_waiting(queue)
    assert (await in_thread(toril, "queue", "retry", queue.name, "--json")).json["retried"] == 1
    assert (await in_thread(toril, "queue", "promote", queue.name, "--json")).json["promoted"] == 1
    assert await counts(queue) == {"completed": 1, "waiting": 3}


async def test_a_queue_is_obliterated(toril: Toril, queue: Queue) -> None:
    """Not while jobs run, unless forced."""
    await ended_and_waiting(queue)
    assert await Worker(queue, work).get_next_job() is not None
    refused = await in_thread(toril, "queue", "obliterate", queue.name, "--yes")
    assert refused.code == 1
    assert "running" in refused.err
    assert (await in_thread(toril, "queue", "obliterate", queue.name, "--yes", "--force")).code == 0
    assert await queue.get_meta() == {}
    assert (await counts(queue)) == {}


@pytest.mark.parametrize(
    "command",
    [["queue", "drain", "tests"], ["queue", "clean", "tests"], ["queue", "obliterate", "tests"],
     ["job", "remove", "tests", "1"], ["cron", "rm", "tests", "s"]],
    ids=" ".join,
)  # fmt: skip
async def test_nothing_is_lost_unasked(toril: Toril, queue: Queue, command: list[str]) -> None:
    """Where nobody can answer, `--yes` has to."""
    await ended_and_waiting(queue)
    await queue.upsert_job_scheduler("s", every=60)
    before = await counts(queue)
    for extra in ([], ["--json"]):
        answer = await in_thread(toril, *command, *extra)
        assert answer.code == 2
        assert "--yes" in answer.err + answer.out
    assert await counts(queue) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
async def test_a_question_is_seen_where_the_answer_goes_into_a_file(queue: Queue, server_url: str) -> None:
    """It is asked on stderr."""
    await queue.add("any")
    hand, terminal = os.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "toril.cli", "queue", "drain", queue.name),
        env={**os.environ, "TORIL_URL": server_url, "TORIL_PREFIX": queue.prefix},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.write(hand, b"y\n")
    out, err = await asyncio.wait_for(process.communicate(), 30)
    os.close(hand)
    os.close(terminal)

    assert (process.returncode, out.strip()) == (0, b"queue 'tests': 1 removed")
    assert b"Remove all jobs that wait in queue 'tests'? [y/N]" in err


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "retry", "promote"])
async def test_a_mistyped_queue_is_not_made(toril: Toril, queue: Queue, verb: str) -> None:
    """It is said not to be there."""
    answer = await in_thread(toril, "queue", verb, "tsets")
    assert answer.code == 1
    assert "no queue 'tsets'" in answer.err
    assert await queue.connection.execute("KEYS", f"{queue.prefix}:tsets*") == []


# Jobs


async def test_a_job_is_added(toril: Toril, queue: Queue) -> None:
    """With data and options; twice under one id adds it once. What is no JSON is refused."""
    args = [
        "job",
        "add",
        queue.name,
        "send",
        '{"to": "ada"}',
        "--attempts",
        "3",
        "--priority",
        "2",
        "--id",
        "mine",
    ]
    assert (await in_thread(toril, *args)).out == "mine\n"
    assert (await in_thread(toril, *args, "--json")).json == {"id": "mine"}
    (job,) = await queue.get_jobs()
    assert (job.name, job.data, job.options.attempts, job.priority) == ("send", {"to": "ada"}, 3, 2)
    assert (await in_thread(toril, "job", "add", queue.name, "send", "{to")).code == 2


async def test_jobs_are_promoted_and_removed(toril: Toril, queue: Queue) -> None:
    """Each is answered; one that is refused makes the exit code 1."""
    job = await queue.add("later", delay=60)
    answer = await in_thread(toril, "job", "promote", queue.name, job.id, job.id)
    assert (answer.code, answer.out) == (1, f"job '{job.id}': waits to run now\n")
    held = await Worker(queue, work).get_next_job()
    assert held is not None
    refused = await in_thread(toril, "job", "remove", queue.name, job.id, "--yes")
    assert refused.code == 1
    assert "a worker holds it" in refused.err
    await held.move_to_completed()
    removed = await in_thread(toril, "job", "remove", queue.name, job.id, "--yes", "--json")
    assert removed.json == [{"id": job.id, "is_removed": True}]


async def test_children_can_be_left(toril: Toril, queue: Queue) -> None:
    """When their parent is removed."""
    async with FlowProducer(connection=queue.connection, prefix=queue.prefix) as flows:
        flow = await flows.add(FlowJob("p", queue.name, children=[FlowJob("c", queue.name)]))
    await in_thread(toril, "job", "remove", queue.name, flow.job.id, "--keep-children", "--yes")
    assert [job.name for job in await queue.get_jobs()] == ["c"]


async def test_a_log_is_printed(toril: Toril, queue: Queue) -> None:
    """The newest rows, in order; nothing in them steers the terminal."""
    job = await queue.add("a")
    for row in ("one", "two", "\x1b[2Jthree"):
        await job.log(row)
    assert (
        await in_thread(toril, "job", "logs", queue.name, job.id, "--limit", "2")
    ).out == "two\n\\x1b[2Jthree\n"
    assert (await in_thread(toril, "job", "logs", queue.name, job.id, "--json")).json[0] == "one"
    assert (await in_thread(toril, "job", "logs", queue.name, "nope")).code == 1


# Job schedulers


async def test_schedulers_are_listed_shown_and_removed(toril: Toril, queue: Queue) -> None:
    """The next to run first; data only when one is shown, and without its secrets."""
    start = datetime.now(UTC) + timedelta(hours=1)
    await queue.upsert_job_scheduler("beat", every=90, start_date=start)
    await queue.upsert_job_scheduler(
        "nightly",
        pattern="0 3 1 1 *",
        tz="Europe/Stockholm",
        name="report",
        data={"kind": "x", "token": "t0ps3cret"},
    )
    listed = await in_thread(toril, "cron", "ls", queue.name)
    assert [row[0] for row in listed.rows] == ["beat", "nightly"]
    assert "every 90 s" in listed.out
    assert "0 3 1 1 * (Europe/Stockholm)" in listed.out
    assert "t0ps3cret" not in (await in_thread(toril, "cron", "ls", queue.name, "--json")).out
    shown = await in_thread(toril, "cron", "show", queue.name, "nightly", "--json")
    assert shown.json["data"] == {"kind": "x", "token": "***"}
    assert "Europe/Stockholm" in (await in_thread(toril, "cron", "show", queue.name, "nightly")).out
    assert (await in_thread(toril, "cron", "rm", queue.name, "beat", "--yes")).code == 0
    assert [one.id for one in await queue.get_job_schedulers()] == ["nightly"]
    for command in (
        ["rm", queue.name, "beat", "--yes"],
        ["show", queue.name, "beat"],
        ["run", queue.name, "beat"],
    ):
        answer = await in_thread(toril, "cron", *command)
        assert answer.code == 1
        assert "no job scheduler 'beat'" in answer.err


async def test_a_scheduler_is_run_now(toril: Toril, queue: Queue) -> None:
    """Its pending job is; the next follows as planned."""
    await queue.upsert_job_scheduler("nightly", pattern="0 3 1 1 *")
    ran = (await in_thread(toril, "cron", "run", queue.name, "nightly", "--json")).json["id"]
    worker = Worker(queue, work)
    heard = Heard(worker, "completed")
    async with worker:
        ((_, job, _),) = await heard.wait()
    assert job.id == ran
    assert (await counts(queue)) == {"completed": 1, "delayed": 1}


# Watching


async def test_workers_are_listed(toril: Toril, queue: Queue) -> None:
    """By queue and name."""
    assert "No workers" in (await in_thread(toril, "workers")).out
    await queue.add("a")
    worker = Worker(queue, work, name="w-1")
    heard = Heard(worker, "ready")
    async with worker:
        await heard.wait()
        found = (await in_thread(toril, "workers", "--json")).json
        assert {(row["queue"], row["worker"]) for row in found} == {("tests", "w-1")}
        assert (await in_thread(toril, "workers")).rows[0][:2] == ["tests", "w-1"]


async def test_events_are_printed_without_what_jobs_are_about(toril: Toril, queue: Queue) -> None:
    """Unless asked."""
    await ended_and_waiting(queue)
    printed = await in_thread(toril, "events", queue.name)
    assert "completed" in printed.out
    assert "private" not in printed.out + (await in_thread(toril, "events", queue.name, "--json")).out
    told = (await in_thread(toril, "events", queue.name, "--reveal", "--json", "--limit", "100")).json
    assert [event["returnvalue"] for event in told if event["event"] == "completed"] == ['"private"']
    assert len((await in_thread(toril, "events", queue.name, "--json", "-n", "2")).json) == 2


async def test_events_are_followed(start: Start, server_url: str, queue: Queue) -> None:
    """As they happen, one document a line, until Ctrl-C."""
    await queue.add("first")
    process = start("events", queue.name, "-f", "--json", TORIL_URL=server_url, TORIL_PREFIX=queue.prefix)
    assert process.stdout is not None
    first = await asyncio.to_thread(process.stdout.readline)
    assert json.loads(first)["event"] == "added"
    assert json.loads(await asyncio.to_thread(process.stdout.readline))["event"] == "waiting"
    second = await queue.add("second")
    assert json.loads(await asyncio.to_thread(process.stdout.readline))["jobId"] == second.id
    process.send_signal(2)
    assert await asyncio.to_thread(process.wait, 15) == 0
