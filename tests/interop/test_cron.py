"""Cron patterns beside Node's parser: thousands of random ones, in many zones, most of them near a change of the clock.

`docs/decisions/cron-parsing.md` lists where the two differ on purpose. Everywhere else they must agree.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fuzz import TIMES, examples
from toril._cron import Cron, zone
from toril.errors import ConfigurationError

from .node import Node

Json = Any
Case = tuple[str, str, int]
DAY_MS = 86_400_000
ORDINARY = (
    "Europe/Berlin", "Europe/London", "America/New_York", "America/St_Johns", "Australia/Sydney", "Africa/Casablanca",
    "America/Sao_Paulo", "Asia/Kolkata", "UTC",
)  # fmt: skip
"""Zones whose clocks change by whole hours, and not at midnight."""
UNUSUAL = (
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Beirut",
    "America/Santiago",
    "Pacific/Chatham",
    "Asia/Tehran",
)


def offset(ms: int, name: str) -> timedelta:
    return datetime.fromtimestamp(ms / 1000, zone(name)).utcoffset() or timedelta()


def changes(name: str) -> list[int]:
    """When the clocks of a zone change in three years, to the second."""
    found: list[int] = []
    start = round(datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1000)
    for at in range(start, start + 3 * 365 * DAY_MS, DAY_MS // 4):
        low, high = at, at + DAY_MS // 4
        if offset(low, name) != offset(high, name):
            while high - low > 1000:
                middle = (low + high) // 2000 * 1000
                low, high = (middle, high) if offset(middle, name) == offset(low, name) else (low, middle)
            found.append(high)
    return found


def random_field(chance: random.Random, low: int, high: int, any_of_100: int) -> str:
    drawn = chance.randrange(100)
    if drawn < any_of_100:
        return "*"
    first = chance.randint(low, high)
    match drawn % 5:
        case 0:
            return f"*/{chance.randint(1, min(20, high))}"
        case 1:
            return f"{first}-{chance.randint(first, high)}"
        case 2:
            return f"{first}-{chance.randint(first, high)}/{chance.randint(1, 5)}"
        case 3:
            return ",".join(map(str, chance.sample(range(low, high + 1), chance.randint(2, 4))))
        case _:
            return str(first)


def random_pattern(chance: random.Random) -> str:
    fields = [
        random_field(chance, 0, 59, 5),
        random_field(chance, 0, 59, 20),
        random_field(chance, 0, chance.choice([5, 23]), 25),
        random_field(chance, 1, 31, 70),
        random_field(chance, 1, 12, 80),
        random_field(chance, 0, 6, 70),
    ]
    if chance.random() < 0.1:
        fields[3] = "L"
    if chance.random() < 0.1:
        fields[5] = chance.choice(["1#2", "5L", "sun", "MON-FRI", "3#5"])
    return " ".join(fields if chance.random() < 0.5 else fields[1:])


def random_cases(names: tuple[str, ...], count: int, seed: int) -> list[Case]:
    chance = random.Random(seed)
    near = {name: changes(name) for name in names}
    cases: list[Case] = []
    for _ in range(count):
        name = chance.choice(names)
        if near[name] and chance.random() < 0.8:
            after = chance.choice(near[name]) + chance.randint(-26 * 3600, 6 * 3600) * 1000
        else:
            after = chance.randint(1_735_689_600, 1_830_297_600) * 1000
        cases.append((random_pattern(chance), name, after))
    return cases


ODD_WORDS = [
    "?", "L", "l", "W", "LW", "15W", "#", "1#6", "5#3", "1#0", "sun", "mon", "JAN", "dec", "foo", "*/0", "*/5",
    "0", "7", "8", "60", "24", "32", "13", "-1", "1-", "-", "1-5", "5-1", "1-5/2", "1-5/0", "/5", "5/", "*/",
    "*/*", "1,2", "1,", ",1", "1,,2", "1,1", "1,*", "*,1", "?/2", "0x1", "1e1", "1.5", "+1", "01", "007", "99999",
    "1-2-3", "1/2/3", "5L", "5l", "L5", "L-2", "1L,2", "sunL", "sunl", "sun#2", "sun-tue", "tue-sun", "mon/2",
    "1#2,3", "1#2#3", "*L", "@", "@daily", "@Daily", "$", "٣", "１", "é", "H", "R", "?-?", "*-5", "1-*", "~", "^",
    "1-5,7", "1-31/40", "0-59/60", "*/60", "*/61", "*/100", "7#5", "7L", "0-7", "5-7", "sat-sun", "6-0",
]  # fmt: skip
ODD_CHARACTERS = "*/-,#L?W0123456789 sunMONjan@"


def spoilt_pattern(chance: random.Random) -> str:
    """One that somebody may have mistyped, or that is no pattern at all."""
    words = random_pattern(chance).split()
    kind = chance.random()
    if kind < 0.5:
        for _ in range(chance.randint(1, 2)):
            words[chance.randrange(len(words))] = chance.choice(ODD_WORDS)
    elif kind < 0.7:
        words = chance.choices(ODD_WORDS, k=chance.randint(1, 7))
    elif kind < 0.9:
        text = list(" ".join(words))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(text) + 1)
            text[at : at + chance.randint(0, 1)] = chance.choices(ODD_CHARACTERS, k=chance.randint(0, 1))
        return "".join(text)
    else:
        return "".join(chance.choices(ODD_CHARACTERS, k=chance.randint(0, 14)))
    return chance.choice([" ", " ", "  ", "\t", "\u2028"]).join(words)


def is_sensible(pattern: str) -> bool:
    """Whether each word is one that people write: a value, a span, steps, the last day, the second Friday."""
    months, days = "jan feb mar apr may jun jul aug sep oct nov dec", "sun mon tue wed thu fri sat"
    fields = ["", "", "", "", months, days]
    words = pattern.split()
    if not 5 <= len(words) <= 6:
        return False
    for word, names in zip(words, fields[-len(words) :], strict=True):
        value = "|".join([r"[0-9]{1,4}", *names.split()])
        items = [rf"(?:[*?]|(?:{value})(?:-(?:{value}))?)(?:/[0-9]{{1,4}})?"]
        items += [rf"(?:{value})L", rf"(?:{value})#[1-5]"] if names == days else []
        items += ["L"] if word is words[-3] else []
        if not all(re.fullmatch("|".join(items), item, re.IGNORECASE) for item in word.split(",")):
            return False
    return True


def ours(pattern: str, name: str, after: int) -> int | str | None:
    try:
        return Cron.parse(pattern).next_after(after, zone(name))
    except ConfigurationError as error:
        return str(error)


def is_repeated(after: int, name: str) -> bool:
    """Whether this moment is the second of two with the same clock face."""
    return datetime.fromtimestamp(after / 1000, zone(name)).fold == 1


def told(case: Case, node: Json, toril: Json) -> str:
    def shown(answer: Json) -> str:
        if not isinstance(answer, int):
            return str(answer)
        return datetime.fromtimestamp(answer / 1000, zone(case[1])).isoformat()

    return f"{case[0]!r} in {case[1]} after {shown(case[2])}: node {shown(node)}, toril {shown(toril)}"


async def test_both_fire_at_the_same_times(node: Node) -> None:
    """In zones whose clocks change by whole hours and not at midnight.

    One thing is left out: a pattern that names hours, asked about in the second of two equal hours, see `docs`.
    """
    cases = [
        case
        for case in random_cases(ORDINARY, 4000, 1)
        if not is_repeated(case[2], case[1]) or Cron.parse(case[0]).is_every_hour
    ]
    answers = await node.ask("cron", deadline=60, cases=cases)

    different = [
        told(case, theirs, mine)
        for case, theirs in zip(cases, answers, strict=True)
        if theirs != (mine := ours(*case)) and (isinstance(theirs, int) or isinstance(mine, int))
    ]
    assert not different


async def test_in_unusual_zones_they_differ_only_at_a_change(node: Node) -> None:
    """Half hours and midnights: Node leaves runs out there, goes back in time, or gives up. Other days are the same."""
    cases = random_cases(UNUSUAL, 2000, 2)
    answers = await node.ask("cron", deadline=60, cases=cases)

    differences = 0
    for case, theirs in zip(cases, answers, strict=True):
        mine = ours(*case)
        if theirs == mine or (isinstance(theirs, str) and isinstance(mine, str)):
            continue
        differences += 1
        times = [case[2], *(answer for answer in (theirs, mine) if isinstance(answer, int))]
        span = min(times) - DAY_MS, max(times) + DAY_MS
        assert any(span[0] <= change <= span[1] for change in changes(case[1])), told(case, theirs, mine)
    assert differences < len(cases) * 0.03


async def test_spoilt_patterns_are_read_alike_or_refused(node: Node) -> None:
    """What Node refuses is refused, what both read fires at the same time, and what makes sense is read."""
    chance = random.Random(None if TIMES > 1 else 3)
    cases = [(spoilt_pattern(chance), "UTC", 1_768_472_430_000) for _ in range(examples(3000))]
    answers = await node.ask("cron", deadline=60 * TIMES, cases=cases)

    read, wrong = 0, list[str]()
    for case, theirs in zip(cases, answers, strict=True):
        mine = ours(*case)
        read += isinstance(mine, int)
        if isinstance(theirs, int) and isinstance(mine, str):
            # Of what Node reads, toril refuses what says nothing.
            if is_sensible(case[0]) and not re.search("[hH]", case[0]):
                wrong.append(told(case, theirs, mine))
        elif isinstance(theirs, int) != isinstance(mine, int) or (isinstance(theirs, int) and theirs != mine):
            wrong.append(told(case, theirs, mine))
    assert wrong == []
    assert read > len(cases) // 20


@pytest.mark.parametrize(
    "pattern",
    [
        "0 0 l * *", "@daily ", " @daily", "@daily\n",
        "0 0 * * 0,7", "0 0 LW * *", "0 0 L-2 * *", "30-10 * * * *", "*/0 * * * *", "0 0 31 2 *",
        "0 0 * * 1,3#2", "@midnight", "1 2 3 4 5 6 7", "0 0 * * L", "*/5,*/7 * * * *", "0 0 * * *,1",
        "@DAILY",
    ],
)  # fmt: skip
async def test_what_node_refuses_is_refused(node: Node, pattern: str) -> None:
    """A Node worker that met such a pattern could not go on with its scheduler."""
    after = 1_800_000_000_000
    (theirs,) = await node.ask("cron", deadline=60, cases=[(pattern, "UTC", after)])

    assert isinstance(theirs, str)
    assert isinstance(ours(pattern, "UTC", after), str)


@pytest.mark.parametrize(
    "pattern",
    [
        "*", "@daily", "@hourly", "@weekly", "@monthly", "@yearly", "@weekdays", "@weekends", "@minutely",
        "@secondly", "0 0 ? * 1", "0 0 1-31 * 1", "0 0 */10 * 1", "0 0 13 * */2", "0 0 1,15,L * *",
        "0 0 * * 5L,1L", "0 0 * * sunL", "0 0 * * 5-7", "0 0 * * 0-7", "0 0 * * 1-7/2", "0 0 1/10 * *",
        "0 0 29 2 *", "0 0 29 2 1", "0 0 13 * 5#2", "0 0 * * MON/2", "*/70 * * * *",
    ],
)  # fmt: skip
async def test_the_dialect_is_nodes(node: Node, pattern: str) -> None:
    """What Node's parser makes of unusual words, ten times in a row."""
    after = 1_768_472_430_000
    for _ in range(10):
        (theirs,) = await node.ask("cron", deadline=60, cases=[(pattern, "UTC", after)])
        assert ours(pattern, "UTC", after) == theirs
        after = theirs
