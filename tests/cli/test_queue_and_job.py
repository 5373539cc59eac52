"""`toril queue` and `toril job`: what they show, what they hide, what they move."""

from __future__ import annotations

import time

import pytest

from toril import Queue, Worker

from .conftest import Toril, in_thread


async def fail_one(queue: Queue, data: object = None, **options: object) -> str:
    """Add a job and let it fail for good."""

    async def fail(job: object) -> None:
        raise ValueError("no such address\nsecond line")

    job = await queue.add("send", data, **options)  # type: ignore[arg-type]
    worker = Worker(queue, fail)
    worker.on("failed", lambda job, reason: worker.stop())
    await worker.run(handle_signals=False)
    return job.id


async def test_queues_are_listed_with_their_counts(toril: Toril, server_url: str, prefix: str) -> None:
    """One row a queue, sorted, with the jobs of each state and whether it is paused."""
    async with (
        Queue("b-mails", connection=server_url, prefix=prefix) as mails,
        Queue("a-reports", connection=server_url, prefix=prefix) as reports,
    ):
        await mails.add("send")
        await mails.add("send", delay=60)
        await mails.add("send", priority=1)
        await reports.add("build")
        await reports.pause()

    answer = await in_thread(toril, "queue", "ls")
    assert answer.code == 0
    heading = answer.out.splitlines()[0].split()
    assert heading == ["queue", "waiting", "prioritized", "delayed", "active", "completed", "failed"]
    assert answer.rows == [
        ["a-reports", "1", "0", "0", "0", "0", "0", "paused"],
        ["b-mails", "1", "1", "1", "0", "0", "0"],
    ]
    found = (await in_thread(toril, "queue", "ls", "--json")).json
    assert [(row["queue"], row["is_paused"]) for row in found] == [("a-reports", True), ("b-mails", False)]
    assert found[1]["counts"]["waiting-children"] == 0


async def test_no_queues_is_no_error(toril: Toril) -> None:
    """An empty server is told in words, and as an empty list."""
    assert "No queues" in (await in_thread(toril, "queue", "ls")).out
    assert (await in_thread(toril, "queue", "ls", "--json")).json == []


async def test_jobs_are_listed_without_their_data(toril: Toril, queue: Queue) -> None:
    """A list tells ids, names, states and attempts, and never what a job is about."""
    failed = await fail_one(queue, {"to": "private@example.org"})
    await queue.add("welcome", {"to": "private@example.org"}, attempts=3)

    answer = await in_thread(toril, "job", "ls", queue.name)
    assert answer.code == 0
    assert [row[:4] for row in answer.rows] == [
        [failed, "send", "failed", "1/1"],
        ["2", "welcome", "waiting", "0/3"],
    ]
    assert "no such address" in answer.out
    assert "second line" not in answer.out
    assert "private" not in answer.out
    assert "private" not in (await in_thread(toril, "job", "ls", queue.name, "--json")).out


async def test_jobs_are_listed_by_state_and_page(toril: Toril, queue: Queue) -> None:
    """--state, --limit, --start and --ascending choose which jobs are seen."""
    for _ in range(3):
        await queue.add("now")
    await queue.add("later", delay=60)

    async def ids(*args: str) -> list[str]:
        answer = await in_thread(toril, "job", "ls", queue.name, "--json", *args)
        return [job["id"] for job in answer.json]

    assert await ids("-s", "delayed") == ["4"]
    assert await ids("-s", "waiting", "--limit", "2") == ["3", "2"]
    assert await ids("-s", "waiting", "--limit", "1", "--start", "1", "--ascending") == ["2"]
    assert await ids("-s", "waiting", "-s", "delayed") == ["3", "2", "1", "4"]


async def test_an_unknown_state_is_wrong_usage(toril: Toril) -> None:
    """Exit code 2, and the states that there are."""
    answer = await in_thread(toril, "job", "ls", "emails", "--state", "pending")
    assert answer.code == 2
    assert "prioritized" in answer.err


async def test_a_job_is_shown_with_its_secrets_hidden(toril: Toril, queue: Queue) -> None:
    """Data is shown, but not the values of keys that sound secret, at any depth; --reveal shows them."""
    data = {
        "to": "a@example.org",
        "password": "S1",
        "nested": [
            {"apiKey": "S2", "api-key": "S3", "Authorization": "S4", "card_number": "S5", "x_token": "S6"}
        ],
        "client_secret": {"deep": "S7"},
    }
    job = await queue.add("welcome", data, attempts=3, delay=60)
    await job.log("first row")
    await job.update_progress({"done": 1, "token": "S8"})

    answer = await in_thread(toril, "job", "show", queue.name, job.id)
    assert answer.code == 0
    for text in ("welcome", "delayed", "a@example.org", "first row", '"attempts": 3', '"done": 1'):
        assert text in answer.out
    shown = await in_thread(toril, "job", "show", queue.name, job.id, "--json")
    assert [f"S{number}" in answer.out + shown.out for number in range(1, 9)] == [False] * 8
    assert shown.json["data"]["nested"][0]["card_number"] == "***"
    revealed = await in_thread(toril, "job", "show", queue.name, job.id, "--reveal", "--json")
    assert revealed.json["data"] == data


async def test_a_failed_job_is_shown_with_its_stack_trace(toril: Toril, queue: Queue) -> None:
    """What went wrong is there to read."""
    job_id = await fail_one(queue)
    answer = await in_thread(toril, "job", "show", queue.name, job_id)
    assert "failed_reason     no such address" in answer.out
    assert "ValueError" in answer.out


async def test_what_a_job_holds_does_not_steer_the_terminal(toril: Toril, queue: Queue) -> None:
    """Control characters of names and logs, and markup, are shown and not obeyed."""
    job = await queue.add("\x1b[31m[red]x[/red]")
    await job.log("\x1b]0;title\x07")
    for args in (("job", "ls", queue.name), ("job", "show", queue.name, job.id)):
        answer = await in_thread(toril, *args)
        assert "\x1b" not in answer.out
        assert "[red]x[/red]" in answer.out


async def test_data_that_is_not_json_is_named(toril: Toril, queue: Queue) -> None:
    """A record that another client has spoilt is still shown."""
    job = await queue.add("welcome", {"a": 1})
    await queue.connection.client.hset(queue.keys.job(job.id), "data", "{broken")
    answer = await in_thread(toril, "job", "show", queue.name, job.id)
    assert answer.code == 0
    assert "unreadable" in answer.out


async def test_a_job_that_is_not_there_is_a_problem(toril: Toril, queue: Queue) -> None:
    """Exit code 1, on stderr, or as JSON."""
    answer = await in_thread(toril, "job", "show", queue.name, "nope")
    assert (answer.code, answer.out) == (1, "")
    assert "job 'nope' in queue 'tests': not found" in answer.err
    answer = await in_thread(toril, "job", "show", queue.name, "nope", "--json")
    assert answer.code == 1
    assert "not found" in answer.json["error"]


async def test_a_failed_job_is_retried(toril: Toril, queue: Queue) -> None:
    """It waits again; of several jobs, each is answered, and one refusal makes the exit code 1."""
    failed = await fail_one(queue)
    waiting = await queue.add("other")

    answer = await in_thread(toril, "job", "retry", queue.name, failed, waiting.id, "nope")
    assert answer.code == 1
    assert f"job '{failed}': waits to run again" in answer.out
    assert "job 'nope' in queue 'tests': not found" in answer.err
    assert f"job '{waiting.id}'" in answer.err
    assert await queue.get_job_state(failed) == "waiting"
    job = await queue.get_job(failed)
    assert job is not None
    assert job.attempts_made == 1


async def test_retrying_can_give_all_attempts_again(toril: Toril, queue: Queue) -> None:
    """--reset-attempts forgets the attempts that were made."""
    failed = await fail_one(queue)
    answer = await in_thread(toril, "job", "retry", queue.name, failed, "--reset-attempts", "--json")
    assert answer.json == [{"id": failed, "is_retried": True}]
    job = await queue.get_job(failed)
    assert job is not None
    assert job.attempts_made == 0


@pytest.mark.parametrize(
    "args", [("queue", "ls"), ("job", "ls", "q"), ("job", "show", "q", "1"), ("job", "retry", "q", "1")]
)
async def test_an_unreachable_server_exits_with_3(toril: Toril, args: tuple[str, ...]) -> None:
    """Every command says that it cannot connect, on stderr or as JSON, without a traceback."""
    answer = await in_thread(toril, *args, "--url", "redis://:secret@127.0.0.1:1")
    assert answer.code == 3
    assert "127.0.0.1:1" in answer.err
    assert "secret" not in answer.err
    answer = await in_thread(toril, *args, "--url", "redis://127.0.0.1:1", "--json")
    assert (answer.code, answer.json["exit_code"]) == (3, 3)


async def test_an_age_is_in_two_units(toril: Toril, queue: Queue) -> None:
    """The age of a job is easy to read, however old it is."""
    now_ms = int(time.time() * 1000)
    for age in (5, 3 * 60 + 12, 26 * 3600):
        await queue.add("old", timestamp=now_ms - age * 1000)
    answer = await in_thread(toril, "job", "ls", queue.name)
    assert [row[4] for row in answer.rows] == ["1d2h", "3m12s", "5s"]
