"""Inputs that nobody would write by hand: nothing crashes, nothing is half-written, each refusal has a type.

`TORIL_FUZZ=20` makes every search of the tests that long, on other inputs each time; `make fuzz` does so.
"""

from __future__ import annotations

import os

__all__ = ["TIMES", "examples"]

TIMES = int(os.environ.get("TORIL_FUZZ", "1"))


def examples(usual: int) -> int:
    """How many inputs to try where `usual` are tried with each change."""
    return usual * TIMES
