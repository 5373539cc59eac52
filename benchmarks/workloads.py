"""What is measured. A contestant that cannot do a thing says so; nobody is made to imitate it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

__all__ = ["WORKLOADS", "Workload"]

Kind = Literal["add", "drain", "round", "idle", "paced", "delayed", "flows", "memory"]


@dataclass(frozen=True)
class Workload:
    """One thing to measure.

    Attributes:
        name: On the command line and in the JSON.
        title: In tables.
        kind: How: see `cells.py`.
        needs: What a contestant may lack, by the words of `Adapter.missing`.
        how: For `add`, the producer's command.
        job: What its jobs are like, for the producer.
        workers: How many processes.
        threads: Processors are plain functions in so many threads; 0: they are whatever is the contestant's best.
        runs_per_job: How often a job runs until it has completed.
        share: Of the usual measuring time.
        rate: For `paced`, how many jobs/s are added; 0: half of what the contestant's own round trip reaches.
        is_once: In the first round only, since it does not vary.
    """

    name: str
    title: str
    kind: Kind
    needs: tuple[str, ...] = ()
    how: str = "fill"
    job: dict[str, Any] = field(default_factory=dict[str, Any])
    workers: int = 1
    threads: int = 0
    runs_per_job: int = 1
    share: float = 1.0
    rate: int = 0
    is_once: bool = False


WORKLOADS: Final[dict[str, Workload]] = {
    workload.name: workload
    for workload in (
        Workload("memory", "memory of 10,000 waiting jobs", "memory", is_once=True),
        Workload("add-one", "add one by one, awaited", "add", how="one", share=0.6),
        Workload("add-many", "add, 1,000 awaited at once", "add", ("many",), how="many", share=0.6),
        Workload("add-bulk", "add in bulk", "add", ("bulk",), how="bulk", share=0.6),
        Workload("drain", "drain, 1 worker process", "drain"),
        Workload("round", "round trip, producer and worker at once", "round", ("round",)),
        Workload("idle", "latency when idle", "idle", ("idle",), share=2.0),
        Workload("steady", "latency at 1,000 jobs/s", "paced", ("paced",), rate=1000),
        Workload("half", "latency at half load", "paced", ("paced",)),
        Workload("drain-2", "drain, 2 worker processes", "drain", ("two",), workers=2),
        Workload("sync", "drain, plain functions in 8 threads", "drain", ("sync",), threads=8, share=0.6),
        Workload("data-1k", "round trip, 1 KiB of data", "round", ("size",), job={"size": 1024}, share=0.6),
        Workload(
            "data-64k", "round trip, 64 KiB of data", "round", ("size",), job={"size": 65536}, share=0.6
        ),
        Workload(
            "prioritized",
            "drain, ten priorities",
            "drain",
            ("prioritized",),
            job={"priority": True},
            share=0.6,
        ),
        Workload("delayed", "delayed, all due at once", "delayed", ("delayed",), share=0.6),
        Workload("flows", "flows of 100 children", "flows", ("flows",), share=0.6),
        Workload(
            "retries",
            "drain, each job fails once",
            "drain",
            ("retries",),
            job={"name": "fail_once", "attempts": 2},
            runs_per_job=2,
            share=0.6,
        ),
    )
}
