"""What measures must be right: the proxy harms what it is told to harm, and the checker sees what is wrong."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chaos.checker import recovery, tell
from chaos.endings import check_limits, check_order, check_pauses
from chaos.proxy import Proxy, Rule, frame_end
from chaos.report import PAGE, rewrite
from chaos.stage import Plan
from chaos.waits import waits
from toril.embedded import EmbeddedServer

ECHO = "redis.call('INCR', KEYS[1]) return 'done'"


@pytest.mark.parametrize(
    "frame",
    [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"$3\r\na\r\n\r\n", b"*2\r\n$1\r\na\r\n*1\r\n:5\r\n", b"*-1\r\n"],
)
def test_the_end_of_a_frame_is_found(frame: bytes) -> None:
    """A frame ends where it ends, whatever follows; a part of one has no end yet."""
    assert frame_end(frame + b"+more\r\n") == len(frame)
    assert all(frame_end(frame[:cut]) is None for cut in range(len(frame)))


@pytest.mark.parametrize("what", ["drop", "cut"])
async def test_an_answer_is_lost_after_the_work_is_done(
    server: EmbeddedServer, prefix: str, what: Any
) -> None:
    """Of three calls the second is done by the server, and its caller loses the connection."""
    key = f"{prefix}:n"
    async with Proxy(server.port, random.Random(1)) as proxy:
        proxy.rule = rule = Rule(what, nth=2)
        client = redis.asyncio.Redis(port=proxy.port, retry=Retry(NoBackoff(), 0), decode_responses=True)
        async with client:
            assert await client.eval(ECHO, 1, key) == "done"
            with pytest.raises(redis.ConnectionError):
                await client.eval(ECHO, 1, key)
            assert await client.eval(ECHO, 1, key) == "done"
            assert await client.get(key) == "3"
        assert rule.hits.total() == 1


async def test_a_black_hole_holds_and_lets_go(server: EmbeddedServer) -> None:
    """What is sent meanwhile arrives afterwards."""
    async with Proxy(server.port, random.Random(1)) as proxy, redis.asyncio.Redis(port=proxy.port) as client:
        assert await client.ping()
        proxy.black_hole = True
        asked = asyncio.ensure_future(client.ping())
        done, _ = await asyncio.wait([asked], timeout=0.2)
        assert not done
        proxy.black_hole = False
        assert await asyncio.wait_for(asked, 30)


def test_a_worker_that_never_comes_back_is_seen() -> None:
    """Its last start was before the fault, and others went on for long."""
    lines: list[dict[str, Any]] = [{"e": "start", "id": "a", "run": 1, "pid": 1, "t": 1.0}]
    lines += [{"e": "start", "id": f"b{n}", "run": 1, "pid": 2, "t": float(n)} for n in range(30)]
    lines += [{"e": "healed", "what": "RST", "t": 2.0}]
    lines.sort(key=lambda line: line["t"])
    assert recovery(lines, [1, 2]) == -1.0
    assert recovery(lines, [2]) == 1.0


def test_the_ledger_is_sorted_by_job() -> None:
    """Starts and ends of a job come together."""
    stories = tell(
        [
            {"e": "sent", "id": "a", "delay": 1, "fails": 0, "t": 1.0},
            {"e": "acked", "id": "a", "t": 1.1},
            {"e": "start", "id": "a", "run": 1, "pid": 1, "t": 2.0},
        ]
    )
    assert stories["a"].acked
    assert len(stories["a"].starts) == 1


def _stage(**facts: Any) -> Any:
    """As much of a stage as the checks of its ledger look at."""
    plan = Plan(worker={"concurrency": 2, "limiter": (2, 1)})
    return SimpleNamespace(
        plan=plan, facts={}, **{"at_once": None, "limited_since": 0.0, "order": None, **facts}
    )


def _run(event: str, job_id: str, at: float, pid: int = 1) -> dict[str, Any]:
    return {"e": event, "id": job_id, "run": 1, "pid": pid, "t": at}


def test_too_many_jobs_at_once_are_seen() -> None:
    """In one worker, in all of them, and in one window; a job that was cancelled runs no longer."""
    starts = [_run("start", job_id, at) for job_id, at in (("a", 1.0), ("b", 2.0), ("c", 9.0))]
    cancelled = [*starts[:2], _run("gone", "a", 3.0), starts[2]]
    assert check_limits(_stage(), cancelled) == []
    assert "3 jobs at once in a worker" in check_limits(_stage(), starts)[0]
    assert "2 jobs at once, not 1" in check_limits(_stage(at_once=1), cancelled)[0]
    close = [_run("start", str(number), number / 10, pid=number) for number in range(5)]
    assert "5 jobs began within 1 s" in check_limits(_stage(), close)[0]


def test_a_wrong_order_is_seen() -> None:
    """A job that is begun again at once, since it was handed back, is in its place."""
    lines = [_run("start", job_id, at) for at, job_id in enumerate("aabbc")]
    assert check_order(_stage(order=["a", "b", "c"]), lines) == []
    assert "was b, not c" in check_order(_stage(order=["a", "c", "b"]), lines)[0]
    assert "3 jobs began, not 4" in check_order(_stage(order=["a", "b", "c", "d"]), lines)[0]


def test_a_job_that_begins_in_a_pause_is_seen() -> None:
    """Also where the pause was in an earlier part of the events."""
    rows = [("1", {"event": "paused"}), ("2", {"event": "active"}), ("3", {"event": "resumed"})]
    assert check_pauses(rows, is_paused=False) == (False, 1)
    assert check_pauses(rows[1:2], is_paused=True) == (True, 1)
    assert check_pauses(rows[1:2], is_paused=False) == (False, 0)


def test_waits_are_counted_from_when_a_job_was_due() -> None:
    """A plain one is due at once, a delayed one later; of a job that runs twice the first start counts."""
    sent = [
        {"e": "sent", "id": "plain", "delay": 0, "is_plain": True, "t": 1.0},
        {"e": "sent", "id": "late", "delay": 2, "is_plain": False, "t": 1.0},
        {"e": "sent", "id": "parent", "delay": 0, "is_plain": False, "t": 1.0},
    ]
    starts = [_run("start", job_id, at) for job_id, at in (("plain", 1.25), ("late", 3.5), ("plain", 9.0))]
    assert waits([*sent, *starts]) == {"wait_p99_ms": 250, "late_p99_ms": 500}
    assert waits(sent) == {}


def test_the_page_has_a_place_for_its_tables() -> None:
    """Writing a table keeps the text around it."""
    marks = ("<!-- begin: make chaos -->", "<!-- end: make chaos -->")
    page = PAGE.read_text()
    written = rewrite(page, marks, "NEW")
    assert f"{marks[0]}\nNEW\n{marks[1]}" in written
    assert written.splitlines()[0] == page.splitlines()[0]
