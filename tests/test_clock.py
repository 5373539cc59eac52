"""Times are the server's, as well as a round trip can tell."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.clock import ServerClock


def test_a_clock_that_has_learnt_nothing_is_ours() -> None:
    """Without a measurement the local time is the best guess."""
    clock = ServerClock()
    before = int(time.time() * 1000)
    assert before <= clock.now_ms() <= time.time() * 1000
    assert isinstance(clock.now_ms(), int)


@pytest.mark.parametrize("ahead", [5.0, -5.0, 3600.0, 0.25])
def test_the_offset_is_to_the_middle_of_the_round_trip(ahead: float) -> None:
    """A server whose clock differs is followed, ahead and behind."""
    clock = ServerClock()
    asked, answered = 1_000_000.0, 1_000_000.1
    server = 1_000_000.05 + ahead
    clock.learn(asked, answered, int(server), round(server % 1 * 1e6))
    assert clock.offset_ms == pytest.approx(ahead * 1000, abs=0.01)
    assert clock.now_ms() == pytest.approx(time.time() * 1000 + ahead * 1000, abs=50)


@given(st.floats(0, 10), st.floats(0, 1), st.floats(-1e6, 1e6))
def test_the_error_is_at_most_the_round_trip(round_trip: float, where: float, ahead: float) -> None:
    """Half of it for where the server read its clock, half for offsets that are too small to be believed."""
    clock = ServerClock()
    asked = 1_750_000_000.0
    server = asked + round_trip * where + ahead
    clock.learn(asked, asked + round_trip, int(server), int(server % 1 * 1e6))
    assert abs(clock.offset_ms - ahead * 1000) <= round_trip * 1000 + 2.0


def test_who_sets_our_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a measurement the server's time goes on, although our clock jumps ahead by an hour; so until the next."""
    clock = ServerClock()
    real = time.time
    now = real()
    clock.learn(now, now, int(now), round(now % 1 * 1e6))
    monkeypatch.setattr(time, "time", lambda: real() + 3600)

    assert clock.now_ms() == pytest.approx(real() * 1000, abs=50)

    asked, server = time.time(), real()
    clock.learn(asked, asked, int(server), round(server % 1 * 1e6))
    assert clock.offset_ms == pytest.approx(-3_600_000, abs=50)
    assert clock.now_ms() == pytest.approx(real() * 1000, abs=50)


def test_a_better_measurement_replaces_a_worse_one() -> None:
    """Clocks drift and are set; the last measurement holds."""
    clock = ServerClock()
    clock.learn(100.0, 100.1, 200, 0)
    clock.learn(100.0, 100.1, 100, 50_000)
    assert clock.offset_ms == 0
