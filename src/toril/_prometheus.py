"""A queue's numbers in Prometheus's text format, under the names that BullMQ gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from .errors import ConfigurationError
from .states import State

__all__ = ["exposition"]

# Those that begin with two underscores are Prometheus's own.
_LABEL: Final = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")
_OURS: Final = ("queue", "state")


def exposition(
    queue: str, counts: Mapping[State, int], completed: int, failed: int, labels: Mapping[str, str]
) -> str:
    """Return the text, without an end of line after the last.

    Args:
        queue: The queue's name.
        counts: Jobs per state.
        completed: How many have completed in all, as far as workers count it.
        failed: Likewise those that have failed for good.
        labels: More labels for each line.

    Raises:
        ConfigurationError: A label's name cannot be.
    """
    for name in labels:
        if not _LABEL.fullmatch(name) or name in _OURS:
            raise ConfigurationError(
                f"queue {queue!r}: {name!r} cannot be the name of a label; it has letters, digits and '_', "
                f"does not begin with '__', and is none of {', '.join(_OURS)}"
            )
    lines = [
        "# HELP bullmq_job_count Number of jobs in the queue by state",
        "# TYPE bullmq_job_count gauge",
    ]
    for state, count in counts.items():
        lines.append(f"bullmq_job_count{_labels({'queue': queue, 'state': state, **labels})} {count}")
    for kind, total in (("completed", completed), ("failed", failed)):
        lines += [
            f"# HELP bullmq_job_{kind}_total Total number of {kind} jobs",
            f"# TYPE bullmq_job_{kind}_total counter",
            f"bullmq_job_{kind}_total{_labels({'queue': queue, **labels})} {total}",
        ]
    return "\n".join(lines)


def _labels(labels: Mapping[str, object]) -> str:
    return "{" + ", ".join(f'{name}="{_escaped(str(value))}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
