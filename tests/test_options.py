"""Options: Python's words outside, BullMQ's inside."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.backoff import Custom, Exponential, Fixed
from toril.errors import ConfigurationError, SerializationError
from toril.options import JobOptions, KeepJobs, KeepRule, PreparedOptions, StoredOptions, keep_rule, prepare


def stored(**options: Any) -> dict[str, Any]:
    """Return what stands in Redis beside the default."""
    raw: dict[str, Any] = json.loads(prepare(options).stored)
    assert raw.pop("attempts") == options.get("attempts", 0)
    return raw


def test_without_options_only_the_default_is_stored() -> None:
    """It is what Node stores for a job without options."""
    assert prepare({}) == PreparedOptions(stored='{"attempts":0}')


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"job_id": "order-42"}, {"jobId": "order-42"}),
        ({"job_id": ""}, {}),
        ({"delay": 1.5}, {"delay": 1500}),
        ({"delay": timedelta(hours=1)}, {"delay": 3_600_000}),
        ({"priority": 5}, {"priority": 5}),
        ({"attempts": 3}, {}),
        ({"lifo": True}, {"lifo": True}),
        ({"timestamp": 1_795_488_965_945}, {"timestamp": 1_795_488_965_945}),
        ({"keep_logs": 10}, {"kl": 10}),
        ({"stack_trace_limit": 0}, {"stackTraceLimit": 0}),
        ({"size_limit": 1024}, {"sizeLimit": 1024}),
        ({"backoff": 2}, {"backoff": {"type": "fixed", "delay": 2000}}),
        ({"backoff": timedelta(seconds=2)}, {"backoff": {"type": "fixed", "delay": 2000}}),
        ({"backoff": Fixed(1, jitter=0.5)}, {"backoff": {"type": "fixed", "delay": 1000, "jitter": 0.5}}),
        ({"backoff": Exponential(1)}, {"backoff": {"type": "exponential", "delay": 1000}}),
        ({"backoff": Custom("weekly")}, {"backoff": {"type": "weekly", "delay": 0}}),
        ({"remove_on_complete": True}, {"removeOnComplete": True}),
        ({"remove_on_complete": 100}, {"removeOnComplete": 100}),
        ({"remove_on_fail": False}, {"removeOnFail": False}),
        ({"remove_on_fail": KeepJobs(count=5)}, {"removeOnFail": {"count": 5}}),
        # The one duration that BullMQ stores in seconds; nothing is removed too early.
        ({"remove_on_fail": KeepJobs(age=timedelta(days=1))}, {"removeOnFail": {"age": 86_400}}),
        (
            {"remove_on_fail": KeepJobs(count=0, age=0.2, limit=9)},
            {"removeOnFail": {"count": 0, "age": 1, "limit": 9}},
        ),
    ],
)
def test_stored_names_and_units_are_bullmqs(options: dict[str, Any], expected: dict[str, Any]) -> None:
    """Camel case or compact names, milliseconds, and no nulls."""
    assert stored(**options) == expected


def test_every_option_of_the_type_is_known() -> None:
    """What the type checker lets through is not refused as unknown, and no other option is known."""
    for name in JobOptions.__annotations__:
        with pytest.raises(ConfigurationError) as caught:
            prepare({name: object()})
        assert "unknown" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="unknown job option 'nonsense'; there are") as caught:
        prepare({"nonsense": 1})
    assert set(str(caught.value).partition("there are ")[2].split(", ")) == set(JobOptions.__annotations__)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("delai", "delay"),
        ("attempt", "attempts"),
        ("jobId", "job_id"),
        ("removeOnComplete", "remove_on_complete"),
    ],
)
def test_an_unknown_option_is_named_and_the_right_one_proposed(name: str, meant: str) -> None:
    """Typing errors and BullMQ's spelling lead to Python's."""
    with pytest.raises(ConfigurationError, match=f"unknown job option '{name}'; did you mean '{meant}'?"):
        prepare({name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("job_id", 42),
        ("job_id", "42"),
        ("job_id", "a:b"),
        ("delay", -1),
        ("delay", "5"),
        ("delay", math.nan),
        ("priority", -1),
        ("priority", 2_097_152),
        ("priority", 1.0),
        ("priority", True),
        ("priority", None),
        ("attempts", -1),
        ("attempts", "3"),
        ("attempts", 2**60),
        ("lifo", 1),
        ("timestamp", 1_795_488_965),
        ("timestamp", 1_795_488_965_945.5),
        ("keep_logs", -1),
        ("stack_trace_limit", -1),
        ("size_limit", -1),
        ("backoff", "fixed"),
        ("backoff", {"type": "fixed", "delay": 1000}),
        ("backoff", Fixed(-1)),
        ("remove_on_complete", -1),
        ("remove_on_complete", 1.5),
        ("remove_on_complete", KeepJobs()),
        ("remove_on_complete", KeepJobs(limit=5)),
        ("remove_on_complete", KeepJobs(count=-1)),
        ("remove_on_complete", KeepJobs(count=True)),
        ("remove_on_fail", KeepJobs(age=-1)),
        ("remove_on_fail", KeepJobs(count=1, limit=0)),
        ("remove_on_fail", {"count": 5}),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(name: str, value: Any) -> None:
    """Wrong types and ranges are found before anything is sent, in the words that the user typed."""
    with pytest.raises(ConfigurationError) as caught:
        prepare({name: value})
    assert name in str(caught.value)


def test_own_options_win_over_defaults() -> None:
    """Option by option; defaults fill in the rest."""
    prepared = prepare({"attempts": 5}, {"attempts": 2, "delay": 1})
    assert json.loads(prepared.stored) == {"attempts": 5, "delay": 1000}
    assert prepared.delay_ms == 1000
    with pytest.raises(ConfigurationError, match="unknown job option 'delai'"):
        prepare({}, {"delai": 1})


def test_what_a_call_needs_is_at_hand() -> None:
    """The parts that scripts take as arguments need not be read from the text again."""
    prepared = prepare(
        {
            "job_id": "a",
            "delay": 1,
            "priority": 2,
            "lifo": True,
            "timestamp": 1_795_488_965_945,
            "size_limit": 5,
        }
    )
    assert (prepared.job_id, prepared.delay_ms, prepared.priority, prepared.lifo) == ("a", 1000, 2, True)
    assert (prepared.timestamp, prepared.size_limit) == (1_795_488_965_945, 5)


# Reading


def test_what_was_stored_is_read() -> None:
    """A worker gets out what a producer put in."""
    text = prepare(
        {
            "attempts": 3,
            "backoff": Exponential(1),
            "lifo": True,
            "keep_logs": 5,
            "stack_trace_limit": 2,
            "remove_on_complete": True,
            "remove_on_fail": KeepJobs(count=10, age=60),
        }
    ).stored
    options = StoredOptions.parse(text)
    assert options.attempts == 3
    assert options.backoff == {"type": "exponential", "delay": 1000}
    assert options.lifo
    assert (options.keep_logs, options.stack_trace_limit) == (5, 2)
    assert options.keep_completed == KeepRule(count="0")
    assert options.keep_failed == KeepRule(count="10", age="60")
    assert options.raw == json.loads(text)


def test_unknown_options_are_kept_when_reading() -> None:
    """A newer Node client may have written them."""
    options = StoredOptions.parse('{"attempts":2,"tm":"x","brandNew":{"a":1}}')
    assert options.raw == {"attempts": 2, "tm": "x", "brandNew": {"a": 1}}
    assert options.keep_completed is None
    assert options.keep_logs is None


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (None, None),
        (True, KeepRule(count="0")),
        (False, KeepRule(count="-1")),
        (0, KeepRule(count="0")),
        (100, KeepRule(count="100")),
        ({"count": 5}, KeepRule(count="5")),
        ({"age": 60}, KeepRule(count="", age="60")),
        ({"age": 60, "limit": 7}, KeepRule(count="", age="60", limit="7")),
        ("yes", None),
    ],
)
def test_retention_rules(value: object, rule: KeepRule | None) -> None:
    """Flags, numbers and objects, as Node writes them."""
    assert keep_rule(value) == rule


@pytest.mark.parametrize("text", ["[]", "5", '"x"', "null", "{", "\ud800"])
def test_stored_text_that_is_no_object(text: str) -> None:
    """It is named as what it is."""
    with pytest.raises(SerializationError, match="options"):
        StoredOptions.parse(text)


foreign = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["count", "age", "limit", "type"]), inner)
    ),
    max_leaves=5,
)
NAMES = [
    "attempts",
    "backoff",
    "lifo",
    "removeOnComplete",
    "removeOnFail",
    "stackTraceLimit",
    "kl",
    "keepLogs",
]


@given(st.dictionaries(st.sampled_from(NAMES), foreign))
def test_foreign_options_are_read_or_refused(raw: dict[str, Any]) -> None:
    """Whatever another client has stored, reading it raises no other error and gives numbers where they belong."""
    try:
        options = StoredOptions.parse(json.dumps(raw))
    except SerializationError:
        return
    assert isinstance(options.attempts, int)
    for rule in (options.keep_completed, options.keep_failed):
        if rule is not None:
            assert all(part == "" or int(part) is not None for part in (rule.count, rule.age, rule.limit))


def test_the_options_annotations_can_be_read() -> None:
    """By frameworks that look at them at run time."""
    assert set(get_type_hints(JobOptions)) == set(JobOptions.__annotations__)
