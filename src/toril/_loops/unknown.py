"""Jobs whose names a worker has no processor for: they are put off, since another worker may know them.

Workers are deployed one after another: for a while, producers add jobs that only some of them know.
"""

from __future__ import annotations

import logging
import random
from typing import Final

from ..errors import DelayedError
from ..job import Job
from ..queue import Queue

__all__ = ["PutOff", "UnknownNames"]

# Seconds; long enough that a queue full of such jobs costs next to nothing, and apart, so that they return one by one.
_SHORTEST: Final = 15.0
_LONGEST: Final = 30.0
# Names may be made up by whoever adds jobs; what is remembered of them has an end.
_MOST_NAMES: Final = 100

logger = logging.getLogger("toril.worker")


class PutOff(DelayedError):
    """A job that waits for a worker that knows its name; it counts as nothing, not even as started."""


class UnknownNames:
    """Puts off jobs of names without a processor, and warns of each name once.

    Args:
        queue: Whose processors are known.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._told: set[str] = set()

    def put_off(self, job: Job[object]) -> PutOff:
        """Return what makes the worker put a job off."""
        if job.name not in self._told and len(self._told) < _MOST_NAMES:
            self._told.add(job.name)
            logger.warning(
                "queue %r: no processor %r for job %s; this worker knows %s. Jobs of this name are put off, uncounted, "
                "until a worker takes them that knows it; import the module that defines it in the worker, "
                "or remove the jobs",
                self._queue.name,
                job.name,
                job.id,
                ", ".join(map(repr, self._queue.processors)) or "none",
            )
        return PutOff(random.uniform(_SHORTEST, _LONGEST))
