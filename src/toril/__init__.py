"""toril: a job queue on Redis or Valkey that shares its queues with BullMQ for Node.js.

A map of the house, along the life of a job:

`queue.py` adds it, by `scripts/add_job.lua`; `worker.py` with `_loops/` fetches it, by
`scripts/move_to_active.lua`, runs its processor, and ends it, by `scripts/move_to_finished.lua`.
`job.py` is what everybody sees of it meanwhile, `queue_events.py` what happens to it. Values are in
`states.py`, `options.py`, `limits.py`, `keys.py`, `codec.py`, `backoff.py`, `clock.py`; what goes wrong, in
`errors.py`.
"""

from .backoff import STOP, Custom, Exponential, Fixed
from .connection import Connection
from .errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    DelayedError,
    DurabilityError,
    FailedChildrenError,
    JobFailedError,
    JobNotFoundError,
    JobNotInStateError,
    LockLostError,
    ParentNotFoundError,
    ParentTakenError,
    PendingChildrenError,
    QueueNotEmptyError,
    RateLimitError,
    SandboxError,
    SchedulerJobError,
    SchedulerSlotError,
    SerializationError,
    ServerRefusedError,
    ServerUnreachableError,
    TooLargeError,
    TorilError,
    TransitionError,
    UnrecoverableError,
    WaitingChildrenError,
    WaitingError,
)
from .flow_producer import Flow, FlowJob, FlowProducer
from .health import WorkerHealth
from .job import Job
from .job_children import Dependencies, DependenciesPage, DependencyCounts
from .job_scheduler import JobScheduler
from .limits import Limits
from .options import Deduplication, JobOptions, KeepJobs, Parent, Telemetry
from .processor import Processor
from .queue import NewJob, Queue, find_queues
from .queue_events import Event, QueueEvents
from .queue_events_producer import QueueEventsProducer
from .queue_getters import DependenciesRange, JobLogs, Metrics
from .states import State
from .sync import SyncJob, SyncQueue
from .worker import Worker

__version__ = "0.1.0"

__all__ = [
    "STOP",
    "AuthenticationError",
    "ConfigurationError",
    "Connection",
    "ConnectionLostError",
    "Custom",
    "Deduplication",
    "DelayedError",
    "Dependencies",
    "DependenciesPage",
    "DependenciesRange",
    "DependencyCounts",
    "DurabilityError",
    "Event",
    "Exponential",
    "FailedChildrenError",
    "Fixed",
    "Flow",
    "FlowJob",
    "FlowProducer",
    "Job",
    "JobFailedError",
    "JobLogs",
    "JobNotFoundError",
    "JobNotInStateError",
    "JobOptions",
    "JobScheduler",
    "KeepJobs",
    "Limits",
    "LockLostError",
    "Metrics",
    "NewJob",
    "Parent",
    "ParentNotFoundError",
    "ParentTakenError",
    "PendingChildrenError",
    "Processor",
    "Queue",
    "QueueEvents",
    "QueueEventsProducer",
    "QueueNotEmptyError",
    "RateLimitError",
    "SandboxError",
    "SchedulerJobError",
    "SchedulerSlotError",
    "SerializationError",
    "ServerRefusedError",
    "ServerUnreachableError",
    "State",
    "SyncJob",
    "SyncQueue",
    "Telemetry",
    "TooLargeError",
    "TorilError",
    "TransitionError",
    "UnrecoverableError",
    "WaitingChildrenError",
    "WaitingError",
    "Worker",
    "WorkerHealth",
    "find_queues",
]
