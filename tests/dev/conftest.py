"""What tests of the development servers share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.programs import is_running

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # `dev` is not installed; it runs from the root of the repository.
    sys.path.insert(0, str(ROOT))


@pytest.fixture
def wait_until_gone() -> Callable[..., None]:
    """Wait for processes that somebody else has to reap."""

    def wait(*pids: int, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while left := [pid for pid in pids if is_running(pid)]:
            assert time.monotonic() < deadline, f"processes {left} still run after {seconds} s"
            time.sleep(0.02)

    return wait
