"""Flows: jobs that wait for jobs. A tree is added whole or not at all; leaves run first, its root last.

Children may be in other queues and under other prefixes; on a cluster all of them share a hash tag.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from msgspec.structs import replace
from redis.exceptions import RedisError

from ._answers import nonsense, understood
from ._closing import Closing
from ._faults import explain
from ._insisting import add_surely
from ._shown import shown
from ._tracing import About, Tracing, traced, with_metadata
from .codec import dumps
from .connection import Connection
from .errors import (
    ConfigurationError,
    JobNotFoundError,
    refusal,
)
from .job import Job
from .keys import QueueKeys
from .limits import DEFAULT_LIMITS, Limits, check_count
from .options import JobOptions, Parent
from .queue import Queue
from .scripts import ADD_JOB, RELEASE_PARENTS, NewRecord, Scripts, load
from .telemetry import Attribute, Instrumentation, SpanKind

__all__ = ["Flow", "FlowJob", "FlowProducer"]

_DEEPEST: Final = 100
_SCRIPTS: Final = ("add_job", "release_parents")


@dataclass(frozen=True, slots=True)
class FlowJob:
    """A job of a flow, with those that it waits for.

    Attributes:
        name: Chooses the processor.
        queue: The name of its queue.
        data: Any JSON; None is an empty object.
        options: As the keywords of `Queue.add`. How its failure touches the parent is said here.
        children: Jobs that have to end before this one runs.
        prefix: Of its queue; without it the producer's.
    """

    name: str
    queue: str
    data: Any = None
    options: JobOptions = field(default_factory=lambda: JobOptions())
    children: Sequence[FlowJob] = ()
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """A tree of jobs, as it was added or as it stands.

    Attributes:
        job: The one that waits.
        children: Those that it waits for, or has waited for.
    """

    job: Job[Any]
    children: list[Flow]

    def __iter__(self) -> Iterator[Job[Any]]:
        """All jobs of the tree, a parent before its children."""
        yield self.job
        for child in self.children:
            yield from child


@dataclass(slots=True)
class _Node:
    queue: Queue
    record: NewRecord
    parent_key: str | None
    children: list[_Node]

    @property
    def key(self) -> str:
        return self.queue.keys.job(self.record.job_id)


class FlowProducer(Closing):
    """Adds flows.

    Args:
        connection: As for `Queue`.
        prefix: For jobs that do not name their own.
        queues_options: Default job options, by the name of the queue.
        limits: As for `Queue`.
        telemetry: As for `Queue`.
    """

    def __init__(
        self,
        *,
        connection: str | Connection | None = None,
        prefix: str = "bull",
        queues_options: Mapping[str, JobOptions] | None = None,
        limits: Limits = DEFAULT_LIMITS,
        telemetry: Instrumentation | None = None,
    ) -> None:
        self.limits: Limits = limits
        self.connection: Connection = Connection.of(connection)
        self.prefix = prefix
        self._owns_connection = not isinstance(connection, Connection)
        self._queues_options = dict(queues_options or {})
        self._queues: dict[QueueKeys, Queue] = {}
        self.telemetry: Instrumentation | None = telemetry
        self._tracing = Tracing.of(telemetry, "")

    async def add(self, flow: FlowJob) -> Flow:
        """Add a flow, all of it at one moment.

        Raises:
            ConfigurationError, SerializationError: A job of it cannot be; nothing was added.
            TooLargeError: A job, or the number of jobs, is beyond a limit; nothing was added.
            ParentNotFoundError: The root names a parent that does not exist.
            ParentTakenError: A job exists already and is the child of another; the rest was added, and the
                parent here waits for ever, until `Job.remove_child_dependency` or a removal lets it go.
            ServerUnreachableError: Nothing was added.
            ServerRefusedError: The server is out of memory, or refuses otherwise; adding it again is safe.
            ConnectionLostError: No answer, although it was asked for for some seconds; it may or may not have been
                added.
        """
        if self._tracing is None:
            (added,) = await self._add_all([flow])
            return added
        about = {Attribute.FLOW_NAME: flow.name}
        with traced(self._tracing_of(flow.queue), "addFlow", about, SpanKind.PRODUCER):
            (added,) = await self._add_all([flow])
            return added

    async def add_bulk(self, flows: Iterable[FlowJob]) -> list[Flow]:
        """Add several flows, all at one moment; raises as `add`."""
        if not isinstance(flows, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"add_bulk takes a list of FlowJob(...), got {shown(flows)}")
        if self._tracing is None:
            return await self._add_all(flows)
        flows = list(flows)
        about: About = {
            Attribute.BULK_COUNT: len(flows),
            Attribute.BULK_NAMES: [flow.name for flow in flows],
        }
        with traced(self._tracing, "addBulkFlows", about, SpanKind.PRODUCER):
            return await self._add_all(flows)

    async def _add_all(self, flows: Iterable[FlowJob]) -> list[Flow]:
        await self.connection.learn_time()
        roots = [self._node(flow, None, 0) for flow in flows]
        if not roots:
            return []
        nodes = list(_levels(roots))
        check_count(len(nodes), self.limits.jobs, f"the flow of job {roots[0].record.name!r}")
        groups = list(_by_queue(nodes))
        parents = dict.fromkeys(node.parent_key for group in groups for node in group if node.parent_key)
        commands: list[tuple[Any, ...]] = [
            # In a transaction nobody can answer that a script is missing, so it brings them, where none can
            # forget them before their use.
            ("MULTI",),
            *(("SCRIPT", "LOAD", load(name).text) for name in _SCRIPTS),
        ]
        for group in groups:
            records = [node.record for node in group]
            scripts: Scripts = group[0].queue.scripts
            commands.append(scripts.command("add_job", ADD_JOB, *scripts.add_job_args(records)))
        if parents:
            now_ms = roots[0].queue.clock.now_ms()
            commands.append(
                roots[0].queue.scripts.command("release_parents", RELEASE_PARENTS, now_ms, *parents)
            )
        commands.append(("EXEC",))
        # All ids are chosen here, so what was added is found again and added no second time.
        where = f"flow of job {roots[0].record.name!r} in queue {roots[0].queue.name!r}"
        sizes = [len(group) for group in groups]
        answers = await add_surely(lambda _: self._commit(commands, sizes, where), where)
        for node, answer in zip(chain.from_iterable(groups), answers, strict=True):
            if isinstance(answer, int):
                raise refusal(answer, node.record.job_id, node.queue.name)
            node.record = replace(node.record, job_id=answer)
        return [_flow(root) for root in roots]

    async def get_flow(
        self, queue: str, job_id: str, *, depth: int = 10, max_children: int = 20, prefix: str | None = None
    ) -> Flow:
        """Return a flow as it stands now, from one of its jobs downwards.

        Args:
            queue: The name of the job's queue.
            job_id: The job.
            depth: How many levels, with the job's own.
            max_children: How many children of each job.
            prefix: Of the queue.

        Raises:
            JobNotFoundError: There is no such job.
        """
        job = await self._queue(queue, prefix or self.prefix).get_job_or_raise(job_id)
        return await self._grown(job, depth, max_children)

    async def close(self) -> None:
        """Close what this event loop has opened."""
        if self._owns_connection:
            await self.connection.close()

    async def _commit(
        self, commands: Sequence[tuple[Any, ...]], sizes: list[int], where: str
    ) -> list[str | int]:
        """Send a transaction, whose calls add so many jobs each; return the jobs' ids or refusals."""
        answers = (await self.connection.execute_all(commands))[-1]
        answers = understood(list[Any], answers, f"{where}: EXEC")
        for answer in answers:
            if isinstance(answer, RedisError):
                # Refused inside the transaction, e.g. for want of memory.
                raise explain(answer, self.connection.safe_url)
        first = len(_SCRIPTS)
        added = understood(list[list[str | int]], answers[first : first + len(sizes)], f"{where}: EXEC")
        if [len(some) for some in added] != sizes:
            raise nonsense(f"{where}: EXEC", "it is about other jobs")
        return list(chain.from_iterable(added))

    async def _grown(self, job: Job[Any], depth: int, max_children: int) -> Flow:
        if depth <= 1:
            return Flow(job, [])
        known = await job.get_dependencies()
        keys = [*known.processed, *known.unprocessed, *known.ignored, *known.failed]
        children: list[Flow] = []
        for key in list(dict.fromkeys(keys))[:max_children]:
            where, _, child_id = key.rpartition(":")
            prefix, _, name = where.rpartition(":")
            try:
                child = await self._queue(name, prefix).get_job_or_raise(child_id)
            except JobNotFoundError:
                # It was removed after it had ended.
                continue
            children.append(await self._grown(child, depth - 1, max_children))
        return Flow(job, children)

    def _queue(self, name: str, prefix: str) -> Queue:
        keys = QueueKeys(prefix, name)
        queue = self._queues.get(keys)
        if queue is None:
            defaults = self._queues_options.get(name)
            queue = Queue(
                name,
                connection=self.connection,
                prefix=prefix,
                default_job_options=defaults,
                limits=self.limits,
            )
            self._queues[keys] = queue
        return queue

    def _node(self, flow: FlowJob, parent: Parent | None, depth: int) -> _Node:
        if not isinstance(flow, FlowJob):  # pyright: ignore[reportUnnecessaryIsInstance]
            above = "a flow" if parent is None else f"job {parent.id!r}: its children"
            raise ConfigurationError(f"{above} must be made of FlowJob(...), got {shown(flow)}")
        if depth > _DEEPEST:
            raise ConfigurationError(
                f"job {shown(flow.name)} in queue {shown(flow.queue)}: a flow is at most {_DEEPEST} levels deep"
            )
        try:
            queue = self._queue(flow.queue, flow.prefix or self.prefix)
        except ConfigurationError as error:
            raise ConfigurationError(f"job {shown(flow.name)}: {error}") from None
        where = f"job {shown(flow.name)} in queue {flow.queue!r}"
        if flow.options and not isinstance(flow.options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"{where}: options must be a mapping of names to values, got {shown(flow.options)}"
            )
        if not isinstance(flow.children, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"{where}: children must be a list of FlowJob, got {shown(flow.children)}"
            )
        options: dict[str, Any] = {**(flow.options or {})}
        if parent is not None:
            if "parent" in options:
                raise ConfigurationError(f"{where}: its parent is the job above it in the flow")
            options["parent"] = parent
        if flow.children and "deduplication" in options:
            raise ConfigurationError(f"{where}: a job with children cannot be deduplicated")
        record, extras = queue.new_record(flow.name, flow.data, options)
        job_id = record.job_id or str(uuid.uuid4())
        extras = {**extras, "defers_release": True}
        if flow.children:
            extras["is_parent"] = True
        record = replace(record, job_id=job_id, extras=dumps(extras))
        above = extras.get("parent_key")
        parent_key = above if isinstance(above, str) else None
        node = _Node(queue, record, parent_key, [])
        link = Parent(job_id, queue.qualified_name)
        about = {Attribute.JOB_NAME: flow.name, Attribute.JOB_ID: job_id}
        with traced(self._tracing_of(flow.queue), "addNode", about, SpanKind.PRODUCER) as step:
            if step.metadata:
                node.record = replace(record, options=with_metadata(record.options, step.metadata))
            node.children = [self._node(child, link, depth + 1) for child in flow.children]
        return node

    def _tracing_of(self, queue: str) -> Tracing | None:
        return None if self._tracing is None else Tracing(self._tracing.instrumentation, queue)


def _levels(nodes: list[_Node]) -> Iterator[_Node]:
    """Parents before their children, level by level, each from left to right: so leaves run in this order."""
    while nodes:
        yield from nodes
        nodes = [child for node in nodes for child in node.children]


def _by_queue(nodes: Iterable[_Node]) -> Iterator[list[_Node]]:
    """Runs of nodes of one queue, which one call adds."""
    group: list[_Node] = []
    for node in nodes:
        if group and (group[0].queue is not node.queue or len(group) == 500):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _flow(node: _Node) -> Flow:
    job = node.queue.job_of(node.record, node.record.job_id)
    return Flow(job, [_flow(child) for child in node.children])
