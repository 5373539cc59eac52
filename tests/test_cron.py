"""When cron patterns fire, through changes of the clock too. `interop/test_cron.py` compares with Node's parser."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril._cron import Cron, local_zone, zone
from toril.errors import ConfigurationError

BERLIN, CAIRO, LORD_HOWE = "Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe"
# Berlin: clocks go forward on 2026-03-29 at 02:00, back on 2026-10-25 at 03:00. Cairo: forward on 2026-04-24 at 00:00.
# Lord Howe: forward by half an hour on 2026-10-04 at 02:00, back on 2026-04-05 at 02:00.


def ms(text: str, name: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp() * 1000)


def fires(pattern: str, start: str, count: int, name: str = "UTC") -> list[str]:
    """The next times after `start`, as they are shown there."""
    cron, tz = Cron.parse(pattern), zone(name)
    at, shown = ms(start, name), []
    for _ in range(count):
        found = cron.next_after(at, tz)
        assert found is not None
        at = found
        shown.append(datetime.fromtimestamp(at / 1000, tz).strftime("%m-%d %H:%M:%S %z"))
    return shown


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/15 * * * *", ["01-15 10:30:00", "01-15 10:45:00"]),
        ("*/15 * * * * *", ["01-15 10:20:45", "01-15 10:21:00"]),
        ("5/20 * * * *", ["01-15 10:25:00", "01-15 10:45:00"]),
        ("0 9-17/4 * * *", ["01-15 13:00:00", "01-15 17:00:00"]),
        ("0 0 13 * 5", ["01-16 00:00:00", "01-23 00:00:00"]),
        ("0 0 L * *", ["01-31 00:00:00", "02-28 00:00:00"]),
        ("0 0 * * MON#2", ["02-09 00:00:00", "03-09 00:00:00"]),
        ("0 0 * * friL", ["01-30 00:00:00", "02-27 00:00:00"]),
        ("0 0 * jan,Mar 7", ["01-18 00:00:00", "01-25 00:00:00"]),
        ("0 0 ? * 1-3/2", ["01-19 00:00:00", "01-21 00:00:00"]),
        ("@daily", ["01-16 00:00:00", "01-17 00:00:00"]),
        ("@weekdays", ["01-16 00:00:00", "01-19 00:00:00"]),
        ("  0   12  *  *  * ", ["01-15 12:00:00", "01-16 12:00:00"]),
    ],
)
def test_what_patterns_say(pattern: str, expected: list[str]) -> None:
    """Five fields, or six with the seconds first, and the words of Node's parser."""
    assert fires(pattern, "2026-01-15T10:20:30", 2) == [f"{shown} +0000" for shown in expected]


@pytest.mark.parametrize(
    "pattern",
    [
        "", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "1 2 3 4 5 6 7",
        "foo * * * *", "30-10 * * * *", "*/0 * * * *", "1,,2 * * * *", "1, * * * *", "0 0 * * 0,7",
        "*/5,*/7 * * * *", "0 0 * * 1#6", "0 0 * * 1,3#2", "0 0 LW * *", "0 0 L-2 * *", "0 0 * * L",
        "0 0 31 2 *", "0 0 31 4,6,9,11 *", "1.5 * * * *", "-5 * * * *", "@midnight", "@every 5m",
        "H * * * *", "٣ * * * *",
    ],
)  # fmt: skip
def test_what_no_pattern_can_be(pattern: str) -> None:
    """What Node's parser refuses, or what never fires, is refused by name; so is `H`, which is random there."""
    with pytest.raises(ConfigurationError, match="cron pattern"):
        Cron.parse(pattern)


WORD = st.text(alphabet="0123456789*/-,?L#WHsunMON ", max_size=6) | st.sampled_from(
    ["*", "*/0", "L", "5#3", "9" * 30]
)


@given(pattern=st.lists(WORD, max_size=7).map(" ".join) | st.text(max_size=20))
def test_any_text_is_a_pattern_or_refused(pattern: str) -> None:
    """With a type; and a pattern that was taken fires, or says that it does not."""
    try:
        cron = Cron.parse(pattern)
    except ConfigurationError:
        return
    after = ms("2026-03-29T00:59")
    found = cron.next_after(after, zone(BERLIN))
    assert found is None or found > after


def test_a_leap_day_is_waited_for() -> None:
    """Even over a century that is no leap year."""
    assert Cron.parse("0 0 29 2 *").next_after(ms("2096-03-01T00:00"), UTC) == ms("2104-02-29T00:00")


def test_a_skipped_time_is_as_much_later() -> None:
    """02:30 does not exist on that day: the run is an hour later, once."""
    assert fires("30 2 * * *", "2026-03-28T12:00", 3, BERLIN) == [
        "03-29 03:30:00 +0200",
        "03-30 02:30:00 +0200",
        "03-31 02:30:00 +0200",
    ]
    assert fires("0 */2 * * *", "2026-03-28T23:00", 3, BERLIN) == [
        "03-29 00:00:00 +0100",
        "03-29 03:00:00 +0200",
        "03-29 04:00:00 +0200",
    ]


def test_skipped_times_meet_those_that_there_are() -> None:
    """02:15 becomes 03:15, which is there already: one run."""
    assert fires("15 2,3 * * *", "2026-03-28T12:00", 2, BERLIN) == [
        "03-29 03:15:00 +0200",
        "03-30 02:15:00 +0200",
    ]


def test_a_time_that_comes_twice_counts_once() -> None:
    """A pattern that names hours fires the first time."""
    assert fires("30 2 * * *", "2026-10-24T12:00", 2, BERLIN) == [
        "10-25 02:30:00 +0200",
        "10-26 02:30:00 +0100",
    ]


def test_a_time_that_comes_twice_is_over_the_second_time() -> None:
    """Who asks in the second hour, be it a late worker or an upsert, does not run the pattern again."""
    tz = zone(BERLIN)
    second = round(datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=tz).timestamp() * 1000)

    assert Cron.parse("30 2 * * *").next_after(second, tz) == ms("2026-10-26T02:30", BERLIN)
    assert Cron.parse("30 2,3 * * *").next_after(second, tz) == ms("2026-10-25T03:30", BERLIN)


def test_a_pattern_for_every_hour_goes_by_elapsed_time() -> None:
    """It leaves out what is skipped, and runs in both of two equal hours."""
    assert fires("*/30 * * * *", "2026-03-29T01:00", 3, BERLIN) == [
        "03-29 01:30:00 +0100",
        "03-29 03:00:00 +0200",
        "03-29 03:30:00 +0200",
    ]
    assert fires("*/30 0-23 * * *", "2026-10-25T01:45", 5, BERLIN) == [
        "10-25 02:00:00 +0200",
        "10-25 02:30:00 +0200",
        "10-25 02:00:00 +0100",
        "10-25 02:30:00 +0100",
        "10-25 03:00:00 +0100",
    ]


def test_a_skipped_midnight_is_made_up_for() -> None:
    """A daily run is due each day, also where the day begins at one. Node leaves that day out."""
    assert fires("0 0 * * *", "2026-04-23T12:00", 2, CAIRO) == [
        "04-24 01:00:00 +0300",
        "04-25 00:00:00 +0300",
    ]


def test_clocks_may_change_by_half_an_hour() -> None:
    """What is skipped is as much later; a time that exists is not passed over for it."""
    assert fires("20 2 * * *", "2026-10-03T12:00", 1, LORD_HOWE) == ["10-04 02:50:00 +1100"]
    assert fires("20,35 2 * * *", "2026-10-03T12:00", 2, LORD_HOWE) == [
        "10-04 02:35:00 +1100",
        "10-05 02:20:00 +1100",
    ]
    assert fires("*/20 * * * *", "2026-04-05T01:20", 3, LORD_HOWE) == [
        "04-05 01:40:00 +1100",
        "04-05 01:40:00 +1030",
        "04-05 02:00:00 +1030",
    ]


ZONES = st.sampled_from(
    [BERLIN, CAIRO, LORD_HOWE, "America/New_York", "America/Santiago", "Pacific/Chatham", "UTC"]
)
MOMENTS = st.integers(ms("2025-01-01"), ms("2028-01-01"))
CHANGES = st.sampled_from(
    [ms("2026-03-29T01:00"), ms("2026-04-04T15:00"), ms("2026-10-03T15:30"), ms("2026-04-23T22:00")]
)
NEAR_CHANGES = st.builds(lambda change, by: change + by, CHANGES, st.integers(-90_000_000, 30_000_000))
MINUTES = st.sampled_from(["*", "*/20", "5", "10,35,40", "50-59/3"])
HOURS = st.sampled_from(["0", "2", "1-3", "*/2", "23"])


@given(minutes=MINUTES, name=ZONES, after=MOMENTS | NEAR_CHANGES)
def test_a_pattern_for_every_hour_fires_at_each_matching_minute(minutes: str, name: str, after: int) -> None:
    """The next one is the first minute of real time whose clock face matches."""
    tz = zone(name)
    found = Cron.parse(f"{minutes} * * * *").next_after(after, tz)

    matching = {at.minute for at in _day(Cron.parse(f"{minutes} 0 * * *"))}
    at = after // 60_000 * 60_000 + 60_000
    while datetime.fromtimestamp(at / 1000, tz).minute not in matching:
        at += 60_000
    assert found == at


def _day(cron: Cron) -> list[datetime]:
    """The times of a day on which nothing changes, for a pattern that names hours."""
    at, end = ms("2026-01-15T00:00") - 1, ms("2026-01-16T00:00")
    times: list[datetime] = []
    while (found := cron.next_after(at, UTC)) is not None and found < end:
        times.append(datetime.fromtimestamp(found / 1000, UTC))
        at = found
    return times


@given(minutes=MINUTES, hours=HOURS, name=ZONES, after=MOMENTS | NEAR_CHANGES)
def test_a_pattern_with_hours_fires_at_each_named_time_once(
    minutes: str, hours: str, name: str, after: int
) -> None:
    """Over three days, as often as the pattern names times, if no skipped time meets another one's.

    Never backwards, and each at its time or, where that is skipped, at most an hour later.
    """
    tz = zone(name)
    cron = Cron.parse(f"{minutes} {hours} * * *")
    first_day = datetime.fromtimestamp(after / 1000, tz).replace(
        hour=0, minute=0, second=0, microsecond=0, fold=0
    )
    at = round(first_day.timestamp() * 1000) - 1
    end = round((first_day + timedelta(days=3)).replace(fold=0).timestamp() * 1000)
    fired: list[datetime] = []
    while (found := cron.next_after(at, tz)) is not None and found < end:
        assert found > at
        at = found
        fired.append(datetime.fromtimestamp(at / 1000, tz))

    named = {(one.hour, one.minute) for one in _day(cron)}
    faces = [(one.date(), one.hour, one.minute) for one in fired]
    assert len(set(faces)) == len(faces)
    for one in fired:
        shifted = one - timedelta(hours=1), one - timedelta(minutes=30)
        assert any((face.hour, face.minute) in named for face in (one, *shifted))
    assert all(a < b for a, b in pairwise(one.timestamp() for one in fired))
    assert len(fired) <= 3 * len(named)


@given(
    pattern=st.sampled_from(
        ["* * * * *", "*/7 * * * * *", "0 3 * * *", "0 0 L * *", "* * 2-3 * * 1-5", "30 2 * * *"]
    ),
    after=MOMENTS,
    gap=st.integers(1, 10**9),
)
def test_the_latest_is_the_last_of_all(pattern: str, after: int, gap: int) -> None:
    """It is in the span, and the next after it is beyond; None where the span holds none."""
    cron, tz = Cron.parse(pattern), zone(BERLIN)
    latest = cron.latest(after, after + gap, tz)
    following = cron.next_after(latest or after, tz)

    assert latest is None or after < latest <= after + gap
    assert following is not None
    assert following > after + gap


def test_the_latest_of_millions_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that comes back does not go through every second of January one by one."""
    asked = 0
    next_after = Cron.next_after

    def counted(self: Cron, after_ms: int, tz: tzinfo) -> int | None:
        nonlocal asked
        asked += 1
        assert asked < 100
        return next_after(self, after_ms, tz)

    monkeypatch.setattr(Cron, "next_after", counted)
    first, last = ms("2026-01-01T00:00:00+00:00"), ms("2026-03-01T00:00:00+00:00")

    assert Cron.parse("* * * * 1 *").latest(first, last, UTC) == ms("2026-01-31T23:59:59+00:00")


def test_zones_have_names() -> None:
    """UTC is known without any zone files; what is nowhere is refused with what to do."""
    assert zone("utc").utcoffset(datetime.now()) == timedelta()
    for name in ("Europe/Nowhere", "+02:00", "../etc/passwd", ""):
        with pytest.raises(ConfigurationError, match="no time zone"):
            zone(name)


def test_the_local_zone_follows_tz(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Node's does: TZ first, then the system's; UTC where neither is known."""
    for value, expected in (("Asia/Kolkata", "Asia/Kolkata"), (":Asia/Kolkata", "Asia/Kolkata")):
        local_zone.cache_clear()
        monkeypatch.setenv("TZ", value)
        assert str(local_zone()) == expected
    local_zone.cache_clear()
    monkeypatch.setenv("TZ", "Nowhere/At_All")
    assert local_zone().utcoffset(datetime.now()) == timedelta()
    monkeypatch.delenv("TZ")
    local_zone.cache_clear()
    if Path("/etc/localtime").exists():
        now = time.time()
        assert (
            local_zone().utcoffset(datetime.fromtimestamp(now))
            == datetime.fromtimestamp(now).astimezone().utcoffset()
        )
    local_zone.cache_clear()
