"""The arithmetic: medians, percentiles, ratios. Nothing here measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

__all__ = ["Cell", "middle", "percentile", "ratio", "spread"]

Sample = dict[str, float]
"""What one round found: `rate` (jobs/s), `server_us`, `worker_us`, `producer_us` and `commands` per job, `bytes` per
job, `p50`, `p99`, `p999` (ms); what was not measured is not there."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no values, no percentile")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def middle(samples: Iterable[Sample], figure: str) -> float | None:
    """Return the median of a figure over the rounds that have it, or None."""
    found = [sample[figure] for sample in samples if figure in sample]
    return median(found) if found else None


def spread(samples: Iterable[Sample], figure: str) -> float:
    """Return how far the rounds lie apart: (most - least) / median, or 0."""
    found = [sample[figure] for sample in samples if figure in sample]
    return (max(found) - min(found)) / median(found) if len(found) > 1 and median(found) else 0.0


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return how many times theirs ours is; None where either is missing."""
    return None if ours is None or not theirs else ours / theirs


class Cell:
    """What was found of one contestant in one workload, over all rounds.

    Args:
        raw: As in the JSON: `rounds`, and `missing` or `error` where there is no figure.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        self.rounds: list[Sample] = raw.get("rounds", [])
        self.missing: str = raw.get("missing", "")
        self.error: str = raw.get("error", "")

    def of(self, figure: str) -> float | None:
        """Return the median of a figure, or None."""
        return middle(self.rounds, figure)

    @property
    def excuse(self) -> str:
        """Why there is no figure."""
        return self.missing or self.error
