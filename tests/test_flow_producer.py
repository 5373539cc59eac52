"""Flows: trees of jobs, who waits for whom, and what the failure of a child does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from tests.patience import ended, until
from toril import (
    ConfigurationError,
    Deduplication,
    DependencyCounts,
    FailedChildrenError,
    FlowJob,
    FlowProducer,
    Job,
    JobFailedError,
    JobOptions,
    ParentNotFoundError,
    ParentTakenError,
    PendingChildrenError,
    Queue,
    QueueEvents,
    WaitingChildrenError,
    Worker,
)


@pytest.fixture
async def flows(server_url: str, prefix: str) -> AsyncIterator[FlowProducer]:
    async with FlowProducer(connection=server_url, prefix=prefix) as flows:
        yield flows


@pytest.mark.parametrize("given", [None, 5, FlowJob("a", "q")])
async def test_a_list_of_flows_is_a_list(flows: FlowProducer, given: Any) -> None:
    """What is none is refused by its kind."""
    with pytest.raises(ConfigurationError, match=r"add_bulk takes a list of FlowJob\(\.\.\.\), got "):
        await flows.add_bulk(given)


async def work(job: Job) -> Any:
    """Fail where the data says so; else return the name, or what the children have returned."""
    if job.data.get("fails"):
        raise ValueError("boom")
    return sorted((await job.get_children_values()).values(), key=str) or job.name


def leaf(name: str, **options: Any) -> FlowJob:
    return FlowJob(name, "tests", options=cast("JobOptions", options))


def failing(name: str, **options: Any) -> FlowJob:
    return FlowJob(name, "tests", {"fails": True}, cast("JobOptions", options))


# Adding


async def test_a_parent_runs_after_its_children(queue: Queue, flows: FlowProducer) -> None:
    """Leaves run first, in order; their parent reads what they returned; so up to the root."""
    order: list[str] = []

    async def process(job: Job) -> Any:
        order.append(job.name)
        return await work(job)

    inner = FlowJob("inner", "tests", children=[leaf("a"), leaf("b")])
    flow = await flows.add(FlowJob("root", "tests", children=[inner, leaf("c")]))
    assert await flow.job.get_state() == "waiting-children"
    assert await flow.job.is_waiting_children()
    assert flow.children[0].job.parent_key == queue.keys.job(flow.job.id)
    async with Worker(queue, process):
        assert await ended(flow.job) == [[["a", "b"], "c"]]
    assert order == ["c", "a", "b", "inner", "root"]
    assert [job.name for job in flow] == ["root", "inner", "a", "b", "c"]


async def test_several_flows_are_added_at_one_moment(queue: Queue, flows: FlowProducer) -> None:
    """`add_bulk` adds all of its trees, each with jobs of its own; of nothing it adds nothing."""
    added = await flows.add_bulk([FlowJob(name, "tests", children=[leaf("a")]) for name in ("p", "q")])

    assert [flow.job.name for flow in added] == ["p", "q"]
    counts = await queue.get_job_counts("waiting", "waiting-children")
    assert counts == {"waiting": 2, "waiting-children": 2}
    assert await flows.add_bulk([]) == []


async def test_children_live_in_any_queue_and_under_any_prefix(server_url: str, prefix: str) -> None:
    """A child names its queue and prefix; its end reaches the parent all the same."""
    producer = FlowProducer(connection=server_url, prefix=prefix)
    elsewhere = f"{prefix}:other"
    async with (
        producer,
        Queue("parents", connection=server_url, prefix=prefix) as parents,
        Queue("children", connection=server_url, prefix=elsewhere) as children,
    ):
        child = FlowJob("child", "children", prefix=elsewhere)
        flow = await producer.add(FlowJob("parent", "parents", children=[child]))
        assert flow.children[0].job.queue.prefix == elsewhere
        async with Worker(parents, work), Worker(children, work):
            assert await ended(flow.job) == [["child"]]


async def test_a_queues_options_hold_for_its_jobs_of_a_flow(server_url: str, prefix: str) -> None:
    """`queues_options`: default job options by queue; what a job says itself wins."""
    options: dict[str, JobOptions] = {"tests": {"attempts": 7, "priority": 3}}
    async with FlowProducer(connection=server_url, prefix=prefix, queues_options=options) as flows:
        flow = await flows.add(FlowJob("p", "tests", children=[leaf("a"), leaf("b", priority=5)]))

    assert [job.options.attempts for job in flow] == [7, 7, 7]
    assert [job.priority for job in flow] == [3, 3, 5]


async def test_a_flow_is_read_back(queue: Queue, flows: FlowProducer) -> None:
    """`get_flow` tells the tree as it stands, as deep and as wide as asked; removed children are left out."""
    inner = FlowJob("inner", "tests", children=[leaf("x")])
    flow = await flows.add(FlowJob("p", "tests", children=[inner, leaf("a"), leaf("b")]))

    whole = await flows.get_flow("tests", flow.job.id)
    assert sorted(job.name for job in whole) == ["a", "b", "inner", "p", "x"]
    flat = await flows.get_flow("tests", flow.job.id, depth=2)
    assert sorted(job.name for job in flat) == ["a", "b", "inner", "p"]
    narrow = await flows.get_flow("tests", flow.job.id, depth=2, max_children=1)
    assert len(narrow.children) == 1


@pytest.mark.parametrize(
    ("flow", "says"),
    [
        (FlowJob("p", "tests", options={"deduplication": Deduplication("d")}, children=[leaf("a")]), "deduplicated"),
        (FlowJob("p", "tests", children=[leaf("a", parent=None)]), "parent"),
        (leaf("a", fail_parent_on_failure=True, ignore_dependency_on_failure=True), "one policy"),
    ],
)  # fmt: skip
async def test_what_no_flow_can_be(queue: Queue, flows: FlowProducer, flow: FlowJob, says: str) -> None:
    """Refused before anything is added."""
    with pytest.raises(ConfigurationError, match=says):
        await flows.add(flow)
    assert sum((await queue.get_job_counts()).values()) == 0


async def test_a_flow_is_read_from_anywhere(server_url: str, prefix: str) -> None:
    """`get_flow` of another prefix than the producer's own."""
    elsewhere = f"{prefix}:other"
    async with FlowProducer(connection=server_url, prefix=prefix) as flows:
        flow = await flows.add(FlowJob("p", "tests", prefix=elsewhere, children=[leaf("a")]))
        found = await flows.get_flow("tests", flow.job.id, prefix=elsewhere)
    assert [job.name for job in found] == ["p", "a"]


async def test_a_producer_closes_what_it_opened(server_url: str, prefix: str) -> None:
    """Twice is harmless; a shared connection is left open."""
    own = FlowProducer(connection=server_url, prefix=prefix)
    await own.add(leaf("a"))
    await own.close()
    await own.close()
    async with Queue("tests", connection=server_url, prefix=prefix) as queue:
        shared = FlowProducer(connection=queue.connection, prefix=prefix)
        await shared.add(leaf("a"))
        await shared.close()
        assert await queue.count() == 2


async def test_a_waiting_parent_is_told(queue: Queue, flows: FlowProducer) -> None:
    """The event `waiting-children`."""
    async with QueueEvents("tests", connection=queue.connection, prefix=queue.prefix) as events:
        flow = await flows.add(FlowJob("p", "tests", children=[leaf("a")]))
        told = await events.read(5000)
    assert [event.job_id for event in told if event.name == "waiting-children"] == [flow.job.id]


# Failing children


@pytest.mark.parametrize(
    ("policy", "ends"),
    [
        ("fail_parent_on_failure", "fails"),
        ("continue_parent_on_failure", "runs at once"),
        ("ignore_dependency_on_failure", "runs"),
        ("remove_dependency_on_failure", "runs without a trace"),
    ],
)
async def test_a_failed_child_does_to_its_parent_what_its_policy_says(
    queue: Queue, flows: FlowProducer, policy: str, ends: str
) -> None:
    """Each policy, with a sibling that has completed and one that cannot."""
    child = failing("bad", **{policy: True})
    children = [leaf("good"), child]
    if ends == "runs at once":
        children.append(FlowJob("never", "elsewhere"))
    flow = await flows.add(FlowJob("parent", "tests", children=children))
    bad = flow.children[1].job
    ignored: dict[str, str] = {}

    async def process(job: Job) -> Any:
        if job.name == "parent":
            ignored.update(await job.get_ignored_children_failures())
            await job.remove_unprocessed_children()
        return await work(job)

    async with Worker(queue, process):
        (told,) = await ended(flow.job)
    if ends == "fails":
        assert isinstance(told, JobFailedError)
        assert await flow.job.get_failed_children() == [queue.keys.job(bad.id)]
    else:
        assert told == ["good"]
        assert list(ignored.values()) == ([] if ends == "runs without a trace" else ["boom"])


async def test_a_failure_climbs_as_far_as_each_level_lets_it(queue: Queue, flows: FlowProducer) -> None:
    """`fail_parent_on_failure` on two levels fails the grandparent too."""
    climbing = FlowJob("p", "tests", options={"fail_parent_on_failure": True}, children=[
        failing("a", fail_parent_on_failure=True)
    ])  # fmt: skip
    flow = await flows.add(FlowJob("root", "tests", children=[climbing]))
    async with Worker(queue, work):
        (told,) = await ended(flow.job)
    assert isinstance(told, JobFailedError)


async def test_without_a_policy_the_parent_waits_on(queue: Queue, flows: FlowProducer) -> None:
    """A retry of the failed child can still complete it."""
    flow = await flows.add(FlowJob("p", "tests", children=[failing("a")]))
    child = flow.children[0].job
    async with Worker(queue, work):
        await ended(child)
        assert await flow.job.get_state() == "waiting-children"
        await child.update_data({})
        await child.retry()
        assert await ended(flow.job) == [["a"]]


# Looking at children, and changing who waits for whom


async def test_children_are_counted_and_listed_by_how_they_stand(queue: Queue, flows: FlowProducer) -> None:
    """`get_dependencies` and `get_dependencies_count`: processed, unprocessed, ignored, failed."""
    flow = await flows.add(
        FlowJob("p", "tests", children=[
            leaf("good"), failing("ignored", ignore_dependency_on_failure=True), FlowJob("waits", "elsewhere"),
        ])
    )  # fmt: skip
    good, ignored, waits = (child.job for child in flow.children)
    async with Worker(queue, work):
        await ended(good, ignored)

    known = await flow.job.get_dependencies()
    assert known.processed == {queue.keys.job(good.id): "good"}
    assert known.ignored == {queue.keys.job(ignored.id): "boom"}
    assert known.unprocessed == [waits.queue.keys.job(waits.id)]
    assert await flow.job.get_dependencies_count() == DependencyCounts(1, 1, 1, 0)


async def test_a_failed_child_is_listed_as_failed(queue: Queue, flows: FlowProducer) -> None:
    """While the parent has not failed yet, since nobody has run it."""
    child = failing("bad", fail_parent_on_failure=True)
    flow = await flows.add(FlowJob("p", "elsewhere", children=[child, FlowJob("waits", "elsewhere")]))
    bad = flow.children[0].job
    async with Worker(queue, work):
        await ended(bad)
    known = await flow.job.get_dependencies()
    assert known.failed == [queue.keys.job(bad.id)]


async def test_children_that_have_not_begun_can_be_removed(queue: Queue, flows: FlowProducer) -> None:
    """`remove_unprocessed_children` leaves the others, and the parent."""
    flow = await flows.add(FlowJob("p", "tests", children=[leaf("a"), FlowJob("b", "elsewhere")]))
    async with Worker(queue, work):
        await ended(flow.children[0].job)
        await flow.job.remove_unprocessed_children()
        assert await flow.children[1].job.get_state() == "unknown"
        assert await flow.job.get_state() != "unknown"


async def test_a_child_can_be_cut_off(queue: Queue, flows: FlowProducer) -> None:
    """`remove_child_dependency`: the parent waits for it no longer; a job without a parent is told so."""
    flow = await flows.add(FlowJob("p", "tests", children=[FlowJob("a", "elsewhere")]))
    child = flow.children[0].job

    assert await child.remove_child_dependency()
    assert child.parent_key is None
    assert not await child.remove_child_dependency()
    assert await flow.job.is_waiting()


async def test_removing_a_parent_removes_its_children_unless_told_otherwise(
    queue: Queue, flows: FlowProducer
) -> None:
    """`remove(remove_children=...)`, of the queue and of the job."""
    first, second = await flows.add_bulk([FlowJob("p", "tests", children=[leaf("a")]) for _ in range(2)])

    assert await first.job.remove()
    assert await first.children[0].job.get_state() == "unknown"
    assert await queue.remove(second.job.id, remove_children=False)
    assert await second.children[0].job.get_state() == "waiting"


# From inside


async def test_a_running_job_can_add_children_and_wait_for_them(queue: Queue, flows: FlowProducer) -> None:
    """`parent=job` while it runs, then `WaitingChildrenError`: it runs again when they have ended, uncounted."""

    async def process(job: Job) -> Any:
        if job.name == "parent" and job.data["step"] == "begin":
            for name in ("a", "b"):
                await queue.add(name, parent=job)
            await job.update_data({"step": "gather"})
            raise WaitingChildrenError()
        return await work(job)

    job = await queue.add("parent", {"step": "begin"})
    async with Worker(queue, process, concurrency=2):
        assert await ended(job) == [["a", "b"]]
    await job.refresh()
    assert (job.attempts_made, job.attempts_started) == (1, 2)


async def test_a_job_with_children_that_have_not_ended_cannot_complete(queue: Queue) -> None:
    """By hand it is refused with `PendingChildrenError`, and the claim is kept; nor with failed ones."""
    worker = Worker(queue, work)
    added = await queue.add("parent")
    job = await worker.get_next_job()
    assert job is not None
    child = await queue.add("child", parent=added, fail_parent_on_failure=True)
    with pytest.raises(PendingChildrenError, match=job.id):
        await job.move_to_completed()
    taken = await worker.get_next_job()
    assert taken is not None
    assert taken.id == child.id
    await taken.move_to_failed("boom")
    with pytest.raises(FailedChildrenError, match=job.id):
        await job.move_to_completed()
    with pytest.raises(FailedChildrenError, match=job.id):
        await job.move_to_waiting_children()
    await job.move_to_failed("a child failed")


async def test_a_child_needs_a_parent_that_exists_and_is_its_own(queue: Queue) -> None:
    """`ParentNotFoundError`, `ParentTakenError`; nothing is added."""
    gone = await queue.add("gone")
    await gone.remove()
    with pytest.raises(ParentNotFoundError):
        await queue.add("child", parent=gone)
    first, second = await queue.add("first"), await queue.add("second")
    await queue.add("child", job_id="c", parent=first)
    with pytest.raises(ParentTakenError, match="c"):
        await queue.add("child", job_id="c", parent=second)
    await until("two parents and a child", lambda: _all(queue, 3))


async def _all(queue: Queue, count: int) -> bool:
    return sum((await queue.get_job_counts()).values()) == count
