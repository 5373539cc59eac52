"""How jobs get to the server: batches, and calls whose answers are lost."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from tests.patience import within
from toril import (
    Connection,
    ConnectionLostError,
    FlowJob,
    FlowProducer,
    Job,
    Queue,
    ServerUnreachableError,
    Worker,
)
from toril.embedded import EmbeddedServer
from toril.scripts import load


class Thief:
    """A proxy in front of a server that steals the answers of some calls, and closes the connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.calls = 0
        self.stolen = 0
        self.steals: Callable[[int], bool] = lambda call: False
        """Whether the answer of the n-th EVALSHA is stolen."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, back}
        theft = asyncio.Event()

        async def ask() -> None:
            while data := await reader.read(1 << 20):
                # A call may come in several pieces, so its beginning is what counts.
                if b"EVALSHA" in data:
                    self.calls += 1
                    if self.steals(self.calls):
                        theft.set()
                back.write(data)

        async def answer() -> None:
            while data := await there.read(1 << 20):
                if theft.is_set():
                    self.stolen += 1
                    return
                writer.write(data)

        tasks = [asyncio.create_task(ask()), asyncio.create_task(answer())]
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for one in (writer, back):
            one.close()
            self._writers.discard(one)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def thief(server: EmbeddedServer) -> AsyncIterator[tuple[Thief, str]]:
    """The proxy, and its URL."""
    thief = Thief(server.port)
    listening = await asyncio.start_server(thief.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield thief, f"redis://127.0.0.1:{port}"
    listening.close()
    thief.close()


async def stored(queue: Queue) -> dict[str, Any]:
    return {job.id: job.data for job in await queue.get_waiting()}


async def test_one_job_after_another_although_answers_are_lost(
    thief: tuple[Thief, str], queue: Queue, prefix: str
) -> None:
    """Each is added once, and `add` returns the id under which it stands."""
    robbed, url = thief
    robbed.steals = lambda call: call % 3 == 0
    async with Queue("tests", connection=url, prefix=prefix) as producer:
        jobs = [await producer.add("n", n) for n in range(20)]

    assert robbed.stolen >= 6
    assert await stored(queue) == {job.id: job.data for job in jobs}
    assert len(jobs) == 20


async def test_many_at_once_although_answers_are_lost(
    thief: tuple[Thief, str], queue: Queue, prefix: str
) -> None:
    """Batches too, with custom ids, priorities and delays among them, and in bulk."""
    robbed, url = thief
    robbed.steals = lambda call: call in (2, 3, 6)
    async with Queue("tests", connection=url, prefix=prefix) as producer:
        await producer.add("first")
        jobs: list[Job[Any]] = await asyncio.gather(
            *(
                producer.add("n", n, job_id=f"own-{n}") if n % 5 == 0 else producer.add("n", n)
                for n in range(600)
            )
        )
        robbed.steals = lambda call: robbed.stolen < 5
        jobs += await producer.add_bulk([("bulk", n) for n in range(700)])

    assert robbed.stolen >= 4
    found = await stored(queue)
    assert len(found) == 1_301
    assert all(found[job.id] == job.data for job in jobs)


async def test_a_call_whose_answers_never_come(
    thief: tuple[Thief, str], queue: Queue, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the end it is said that nothing is known, and what helps."""
    monkeypatch.setattr("toril._insisting.PERSISTENCE", 0.01)
    robbed, url = thief
    robbed.steals = lambda call: True
    async with Queue("tests", connection=url, prefix=prefix) as producer:
        with pytest.raises(
            ConnectionLostError, match=r"'tests'.* may or may not have been added; with a job_id"
        ):
            await producer.add("n")
        assert robbed.calls == 2
    assert len(await stored(queue)) == 1


async def test_what_a_processor_writes_is_written_although_answers_are_lost(
    thief: tuple[Thief, str], queue: Queue, prefix: str
) -> None:
    """Progress and data are written twice if need be, which is once."""
    robbed, url = thief
    job_id = (await queue.add("n")).id
    async with Queue("tests", connection=url, prefix=prefix) as other:
        job = await Worker(other, print).get_next_job()
        assert job is not None
        robbed.steals = lambda call: robbed.stolen < 2
        await job.update_progress({"pct": 5})
        robbed.steals = lambda call: robbed.stolen < 4
        await job.update_data({"n": 7})
    assert robbed.stolen == 4
    written = await queue.get_job_or_raise(job_id)
    assert (written.progress, written.data) == ({"pct": 5}, {"n": 7})


async def test_what_is_not_the_same_when_written_twice_is_written_once(
    thief: tuple[Thief, str], queue: Queue, prefix: str
) -> None:
    """A log row; and what is written without a lock, in between which others may write."""
    robbed, url = thief
    job_id = (await queue.add("n")).id
    async with Queue("tests", connection=url, prefix=prefix) as other:
        job = await Worker(other, print).get_next_job()
        assert job is not None
        outsider = await other.get_job_or_raise(job_id)
        robbed.steals = lambda call: True
        calls = robbed.calls
        for write in (job.log("row"), outsider.update_data(1), outsider.update_progress(1)):
            with pytest.raises(ConnectionLostError):
                await write
        assert robbed.calls == calls + 3


async def test_a_server_that_is_not_there() -> None:
    """Is said at once, and that nothing was added."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}"
        async with Queue("tests", connection=url) as producer, within("the refusal", 5):
            for _ in range(2):
                with pytest.raises(ServerUnreachableError, match="cannot reach"):
                    await producer.add("n")


@pytest.mark.parametrize("how", ["flow", "durable", "scheduler"])
async def test_a_server_that_is_gone_after_it_has_heard_may_have_added(
    server: EmbeddedServer, server_url: str, queue: Queue, how: str
) -> None:
    """That the second try reaches nobody does not mean that nothing was added, and nobody is told so."""
    await queue.add("n")  # The server knows the script.
    await queue.upsert_job_scheduler("s", pattern="0 0 1 1 *")
    last_words = {
        "flow": b"EXEC",
        "durable": b"WAIT",
        "scheduler": load("upsert_job_scheduler").sha.encode(),
    }[how]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.closing(back), contextlib.closing(writer):
            while data := await reader.read(1 << 20):
                back.write(data)
                answer = await there.read(1 << 20)
                if last_words in data:
                    listening.close()
                    return
                writer.write(answer)

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with within("the error"), Connection(url) as connection:
        flows = FlowProducer(connection=connection, prefix=queue.prefix)
        lossy = Queue(queue.name, connection=connection, prefix=queue.prefix)
        adds: dict[str, Callable[[], Awaitable[object]]] = {
            "flow": lambda: flows.add(FlowJob("n", queue.name)),
            "durable": lambda: lossy.add("n", durability="replicated"),
            "scheduler": lambda: lossy.upsert_job_scheduler("s", every=60),
        }
        with pytest.raises(ConnectionLostError, match="may or may not have been added") as caught:
            await adds[how]()
        assert not isinstance(caught.value, ServerUnreachableError)
    assert await queue.get_waiting_count() == 2


async def test_forgotten_scripts_cost_nothing(queue: Queue) -> None:
    """A server that has lost its scripts gets them again, alone or in a batch."""
    for n in range(3):
        await queue.connection.execute("SCRIPT", "FLUSH")
        await asyncio.gather(*(queue.add("n", n) for _ in range(n + 1)))
    assert len(await stored(queue)) == 6


@pytest.mark.parametrize("how", ["at once", "in bulk"])
async def test_calls_behind_each_other_keep_their_order(queue: Queue, how: str) -> None:
    """Also the first ones, which go to a server that does not have the script."""
    await queue.connection.execute("SCRIPT", "FLUSH")
    for _ in range(2):
        if how == "at once":
            jobs = await asyncio.gather(*(queue.add("n", n) for n in range(2_500)))
        else:
            jobs = await queue.add_bulk([("n", n) for n in range(2_500)])
        ids = [int(job.id) for job in jobs]
        assert ids == list(range(ids[0], ids[0] + 2_500))
    assert await queue.get_ids("waiting", ascending=True) == [str(n) for n in range(1, 5_001)]


async def test_large_jobs_are_cut_into_smaller_calls(queue: Queue) -> None:
    """A call carries about a million characters, so that none holds up the server; the order stays."""
    large = "x" * 300_000
    await queue.add("first")
    before = await evalshas(queue)
    jobs = await asyncio.gather(*(queue.add("n", large) for _ in range(9)))
    assert 3 <= await evalshas(queue) - before <= 4
    before = await evalshas(queue)
    jobs += await queue.add_bulk([("n", large) for _ in range(9)])
    assert await evalshas(queue) - before == 3
    before = await evalshas(queue)
    jobs += await asyncio.gather(*(queue.add("n", large[:30_000]) for _ in range(100)))
    assert 3 <= await evalshas(queue) - before <= 5

    assert [job.id for job in jobs] == [str(n) for n in range(2, 120)]


async def evalshas(queue: Queue) -> int:
    stats = await queue.connection.client.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])


async def test_the_first_adds_of_all_keep_their_order(queue: Queue) -> None:
    """Although each would have to ask for the time first."""
    jobs = await asyncio.gather(*(queue.add("n", n) for n in range(50)))
    assert [job.id for job in jobs] == [str(n) for n in range(1, 51)]


async def test_receipts_stay_few_and_go_by_themselves(queue: Queue) -> None:
    """There is one for each call that was ever in flight at once, whatever their number."""
    for _ in range(30):
        await asyncio.gather(*(queue.add("n") for _ in range(10)))
    await queue.add_bulk([("n", 1)])

    keys = await queue.connection.client.keys(queue.keys.key("toril:add:*"))
    assert 1 <= len(keys) <= 2
    for key in keys:
        assert 0 < await queue.connection.client.pttl(key) <= 300_000


async def test_closing_waits_for_adds_on_their_way(server_url: str, prefix: str, queue: Queue) -> None:
    """Also for those that nobody waits for."""
    producer = Queue("tests", connection=server_url, prefix=prefix)
    await producer.add("first")
    adds = [asyncio.ensure_future(producer.add("n", n)) for n in range(1_200)]
    await asyncio.sleep(0)
    await producer.close()
    assert len(await stored(queue)) == 1_201
    await asyncio.gather(*adds)


async def test_receipts_are_all_that_obliterate_leaves_and_they_expire(
    queue: Queue, client: redis.asyncio.Redis
) -> None:
    """Within five minutes, as its docstring says."""
    await asyncio.gather(*(queue.add("n", n) for n in range(20)))
    await queue.obliterate()
    left = [key async for key in client.scan_iter(queue.keys.key("*"))]
    assert left
    for key in left:
        assert key.startswith(queue.keys.key("toril:add:"))
        assert 0 < await client.pttl(key) <= 5 * 60 * 1000
