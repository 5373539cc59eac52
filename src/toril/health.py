"""What a worker says of itself to whoever has to decide whether it is to be restarted, or given work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["HealthState", "WorkerHealth"]

HealthState = Literal["starting", "ok", "unreachable", "stuck", "stopping", "stopped"]
"""How a worker is getting on, from its start to its end."""


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """How a worker is getting on, by what comes of its work: that its process is there says little.

    Attributes:
        queue: Whose jobs it runs.
        worker: Its name, if it has one.
        state: `"ok"`: what there is to do gets done, and be it waiting for jobs, pausing, or running as many as it may.
            `"unreachable"`: its last call to the server failed, and it tries again. `"stuck"`: it has room for jobs or
            ends to write, and for `silent_for` seconds nothing has come of that, not even an error. `"starting"`:
            the server has not answered yet. `"stopping"` and `"stopped"`: somebody has asked it to.
        why: The same in a line, for people.
        silent_for: For how many seconds nothing has come of what there is to do; 0 where there is nothing.
        running: How many jobs it holds.
        concurrency: How many it may.
        clock_offset_ms: How far the server's clock was ahead of this host's when it was measured last, in
            milliseconds; negative when it was behind, and 0 below the precision of the measurement.
    """

    queue: str
    worker: str | None
    state: HealthState
    why: str
    silent_for: float
    running: int
    concurrency: int
    clock_offset_ms: float

    @property
    def is_alive(self) -> bool:
        """Whether a restart would mend nothing. A server that is away is no reason for one."""
        return self.state not in ("stuck", "stopped")

    @property
    def is_ready(self) -> bool:
        """Whether it takes part in the work."""
        return self.state == "ok"
