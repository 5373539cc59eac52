"""How scripts reach the server: by hash, and as text where the server has forgotten them."""

from __future__ import annotations

from toril.scripts.loader import load

from .room import Room, record


async def test_a_server_that_has_forgotten_is_told_again(room: Room) -> None:
    """SCRIPT FLUSH costs a call and no job."""
    await room.add(record())
    await room.client.script_flush()

    assert await room.add(record()) == ["2"]

    assert await room.client.script_exists(load("add_job").sha) == [True]


async def test_every_script_compiles_on_this_server(room: Room) -> None:
    """The server takes each one's text, and knows it by the hash that we compute."""
    from .test_headers import SCRIPTS

    for name in SCRIPTS:
        script = load(name)
        assert await room.client.script_load(script.text) == script.sha
