"""Names of keys are BullMQ's, and names that would break them are refused."""

from __future__ import annotations

import base64
import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toril.errors import ConfigurationError
from toril.keys import QueueKeys, check_job_id, client_name


def test_keys_begin_with_prefix_and_queue() -> None:
    """All keys of a queue have its qualified name in front."""
    keys = QueueKeys("bull", "emails")
    assert keys.base == "bull:emails:"
    assert keys.qualified_name == "bull:emails"
    assert keys.key("wait") == "bull:emails:wait"
    assert keys.job("42") == "bull:emails:42"


def test_keys_are_values() -> None:
    """Equal names give equal keys, which nobody changes and which can go to another process."""
    keys = QueueKeys("bull", "emails")
    assert keys.base
    assert keys == QueueKeys("bull", "emails") == pickle.loads(pickle.dumps(keys))
    assert hash(keys) == hash(QueueKeys("bull", "emails"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        keys.prefix = "other"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "name", ["", "a:b", ":", "a\nb", "a\x00b", "\x7f", "x" * 257, "é" * 129, "a\ud800", 5, None, b"x"]
)
def test_queue_names_that_break_keys_are_refused(name: object) -> None:
    """Empty, split by a colon, unprintable, beyond 256 bytes, not UTF-8 or not text."""
    with pytest.raises(ConfigurationError, match="queue name"):
        QueueKeys("bull", name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_prefix_may_hold_what_namespaces_hold() -> None:
    """Colons and hash tags are a prefix's business; emptiness and control characters are not."""
    assert QueueKeys("{shop:eu}", "emails").key("wait") == "{shop:eu}:emails:wait"
    for prefix in ("", "a\nb"):
        with pytest.raises(ConfigurationError, match="prefix"):
            QueueKeys(prefix, "emails")


@pytest.mark.parametrize(
    "job_id", ["order-42", "a", "a:b:c", "4.2", "1e3", "007", "-", "٤٢", "report 7", "🐂"]
)
def test_custom_ids(job_id: str) -> None:
    """Whatever is not taken for a generated id, a marker or a split key."""
    check_job_id(job_id)


@pytest.mark.parametrize(
    "job_id",
    ["", "0", "42", "-42", "0:", "0:7", "a:b", ":", "a:b:c:d", "a\nb", "x" * 257, "a\ud800", 42, None],
)
def test_ids_that_are_refused(job_id: object) -> None:
    """Integers look generated, `0:` marks a marker, other colons split a key; and what is no name at all."""
    with pytest.raises(ConfigurationError, match="job_id"):
        check_job_id(job_id)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@given(st.text())
def test_an_id_passes_or_is_refused(job_id: str) -> None:
    """No text makes the check itself fail, and what passes can be sent."""
    try:
        check_job_id(job_id)
    except ConfigurationError:
        return
    assert job_id.encode()
    assert job_id.count(":") in (0, 2)


def test_the_client_name_is_how_node_finds_workers() -> None:
    """Prefix, base64 of the queue's name, and the worker's name or the suffix."""
    keys = QueueKeys("bull", "emails")
    encoded = base64.b64encode(b"emails").decode()
    assert client_name(keys) == f"bull:{encoded}"
    assert client_name(keys, "w-1") == f"bull:{encoded}:w:w-1"
    assert client_name(keys, suffix=":qe") == f"bull:{encoded}:qe"
