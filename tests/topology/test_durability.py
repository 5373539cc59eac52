"""Durable adds: what is promised is true when `add` returns, and what is not is told with the job's id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.patience import until
from tests.topology.nodes import cluster, primary_and_replica
from toril import ConfigurationError, DurabilityError, FlowJob, FlowProducer, Queue
from toril.embedded import EmbeddedServer


async def test_replicated_means_that_the_replica_has_it() -> None:
    """When `add` returns it is there; also of a list, and of a typed job; a job without it does not wait."""
    async with primary_and_replica() as (primary, replica):
        queue = Queue("q", connection=f"redis://127.0.0.1:{primary.port}")
        async with queue:
            job = await queue.add("a", durability="replicated")
            assert await replica.ask("EXISTS", queue.keys.job(job.id)) == 1
            jobs = await queue.add_bulk([("a", 1), ("b", 2, {"durability": "replicated"})])
            assert await replica.ask("EXISTS", *(queue.keys.job(one.id) for one in jobs)) == 2
            assert "durability" not in await primary.ask("HGET", queue.keys.job(jobs[1].id), "opts")

            # The server has forgotten the script; the wait is still about the second try.
            await primary.ask("SCRIPT", "FLUSH")
            job = await queue.add("a", durability="replicated")
            assert await replica.ask("EXISTS", queue.keys.job(job.id)) == 1


async def test_without_a_replica_the_error_says_how_far_it_got(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job IS added, under the id that the error names, and nobody has acknowledged it."""
    monkeypatch.setattr("toril._durability._PATIENCE_MS", 50)
    with EmbeddedServer() as server:
        async with Queue("q", connection=server.url) as queue:
            with pytest.raises(DurabilityError, match="no replica has acknowledged it") as caught:
                await queue.add("a", 5, durability="replicated", attempts=3)
            error = caught.value
            assert (error.reached, error.durability) == (0, "replicated")
            (job_id,) = error.job_ids
            job = await queue.get_job_or_raise(job_id)
            assert (job.data, job.options.attempts) == (5, 3)


async def test_fsynced_needs_a_server_that_syncs_before_it_answers(tmp_path: Path) -> None:
    """With `everysec` it is refused and nothing is added, whatever WAITAOF would say; with `always` it holds."""
    for config, persistence in (
        ({}, "none"),
        ({"appendfsync": "everysec"}, "aof"),
        ({"appendfsync": "no"}, "aof"),
    ):
        kind: Any = persistence
        with EmbeddedServer(persistence=kind, config=config) as server:
            async with Queue("q", connection=server.url) as queue:
                with pytest.raises(ConfigurationError, match="needs a server with `appendonly yes`"):
                    await queue.add("a", durability="fsynced")
                assert await queue.connection.execute("DBSIZE") == 0
    with EmbeddedServer(tmp_path, "aof", config={"appendfsync": "always"}) as server:
        async with Queue("q", connection=server.url) as queue:
            job = await queue.add("a", durability="fsynced")
            server.kill()
            server.start()
        async with Queue("q", connection=server.url) as queue:
            await until("the data to be loaded", lambda: _has(queue, job.id))


async def _has(queue: Queue, job_id: str) -> bool:
    return await queue.get_job(job_id) is not None


async def test_where_it_cannot_be_kept_it_is_refused(server_url: str, prefix: str) -> None:
    """A flow, a scheduler's jobs and an unknown word: no option is accepted and ignored."""
    async with Queue("q", connection=server_url, prefix=prefix) as queue:
        bad: Any = "written"
        with pytest.raises(ConfigurationError, match="durability must be one of 'replicated', 'fsynced'"):
            await queue.add("a", durability=bad)
        producer = FlowProducer(connection=queue.connection, prefix=prefix)
        with pytest.raises(ConfigurationError, match="a flow is added without it"):
            await producer.add(FlowJob("a", "q", options={"durability": "replicated"}))
        with pytest.raises(ConfigurationError, match="cannot have the option 'durability'"):
            await queue.upsert_job_scheduler("s", every=60, options={"durability": "fsynced"})


async def test_on_a_cluster_the_wait_goes_to_the_same_node() -> None:
    """And over the same connection as the job."""
    async with cluster(replicas=1) as nodes:
        url = f"redis+cluster://127.0.0.1:{nodes[1].port}"
        # The first node has a replica, this tag is in one of its slots.
        async with Queue("q", connection=url, prefix="{t2}") as queue:
            job = await queue.add("a", durability="replicated")
            await nodes[3].ask("READONLY")
            assert await nodes[3].ask("EXISTS", queue.keys.job(job.id)) == 1
