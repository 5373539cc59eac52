"""The states have BullMQ's names and keys."""

from __future__ import annotations

from typing import get_args

from toril.states import KEY_OF_STATE, LIST_STATES, STATES, FinishedState, State


def test_states_are_those_that_a_job_can_be_found_in() -> None:
    """`STATES` lists all but `unknown`, each once, sorted by name."""
    assert set(STATES) | {"unknown"} == set(get_args(State))
    assert list(STATES) == sorted(set(STATES))
    assert set(get_args(FinishedState)) < set(STATES)


def test_every_state_has_the_key_of_its_name_but_waiting() -> None:
    """Only waiting jobs are kept under another name."""
    assert set(KEY_OF_STATE) == set(STATES)
    assert {state: key for state, key in KEY_OF_STATE.items() if key != state} == {"waiting": "wait"}
    assert set(STATES) >= LIST_STATES
