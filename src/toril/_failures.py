"""What a worker's log says of a job that has failed for good: of which kind the error was, and where it arose.

Never what it said, which may be private; that is kept with the job, for `toril job show`.
"""

from __future__ import annotations

import logging
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .job import Job

__all__ = ["kind_and_place", "log_failure"]

logger = logging.getLogger("toril.worker")

_HEADER: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(r'^  File "([^"\n]+)", line (\d+), in ([\w.<>]+)$', re.MULTILINE)
_KIND: Final = re.compile(r"^([A-Za-z_][\w.]*)(?=:|$)", re.MULTILINE)
_OURS: Final = str(Path(__file__).parent)
# Where a library notices a mistake is further from it than the last line of the program's own.
_LIBRARIES: Final = ("site-packages", "dist-packages", sysconfig.get_path("stdlib"), "<frozen ")


def log_failure(job: Job[Any], traces: Sequence[str]) -> None:
    """Say that a job has failed for good, why, and where to read on.

    Args:
        job: Which.
        traces: Its stack traces, the newest last; none are kept with `stack_trace_limit=0`.
    """
    if not logger.isEnabledFor(logging.WARNING):
        return
    queue = job.queue
    why = kind_and_place(traces[-1]) if traces else ""
    logger.warning(
        "job %s (%s) in %r: failed%s; see `%s`",
        job.id,
        job.name,
        queue.name,
        f" ({why})" if why else "",
        queue.keys.command("job show", job.id),
    )


def kind_and_place(trace: str) -> str:
    """Return `ValueError at jobs.py:12 in send` of a stack trace; less where it tells less."""
    if trace.startswith("  + Exception Group Traceback"):
        # What is drawn before the members is the group's own.
        trace = re.sub(r"^  [|+] ?", "", trace.partition("\n  +-+")[0], flags=re.MULTILINE)
    last = trace.rpartition(_HEADER)[2]
    frames = list(_FRAME.finditer(last))
    kind = _KIND.search(last, frames[-1].end() if frames else 0)
    frames = [frame for frame in frames if not frame[1].startswith(_OURS)]
    own = [frame for frame in frames if not any(part in frame[1] for part in _LIBRARIES)]
    place = ""
    if frames:
        file, line, function = (own or frames)[-1].groups()
        place = f"{PurePath(file).name}:{line} in {function}"
    name = kind[1].removeprefix("toril.errors.") if kind else ""
    return " at ".join(part for part in (name, place) if part)
