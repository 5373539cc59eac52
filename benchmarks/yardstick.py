"""Fixed work, which tells how fast this machine is now: half of it in the server, half in Python.

It must never change with toril's scripts or code, or a slower hot path would hide behind it; and it must not change
by itself, or recorded runs lose their meaning.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any, Final

import redis

__all__ = ["measure"]

_CALLS: Final = 40
_OBJECTS: Final = 8_000
# About what a queue's script does: hashes, a list, a sorted set, a stream, a little text.
_SCRIPT: Final = """
for i = 1, 50 do
  local id = KEYS[1] .. ':' .. i
  redis.call('HSET', id, 'name', 'noop', 'data', '{"t":0}', 'timestamp', 1700000000000 + i)
  redis.call('LPUSH', KEYS[1] .. ':list', id)
  redis.call('ZADD', KEYS[1] .. ':zset', i, id)
  redis.call('XADD', KEYS[1] .. ':stream', 'MAXLEN', '~', 1000, '*', 'event', 'added', 'jobId', id)
  redis.call('RPOPLPUSH', KEYS[1] .. ':list', KEYS[1] .. ':list2')
  redis.call('HGETALL', id)
end
return 1
"""


def measure(client: redis.Redis) -> float:
    """Return this machine's speed: the geometric mean of the server's and Python's rounds of work per second."""
    script: Any = client.register_script(_SCRIPT)
    script(keys=["yardstick"])
    started = time.perf_counter()
    for _ in range(_CALLS):
        script(keys=["yardstick"])
    server = _CALLS / (time.perf_counter() - started)
    client.delete("yardstick:list", "yardstick:list2", "yardstick:zset", "yardstick:stream")
    started = time.perf_counter()
    for i in range(_OBJECTS):
        text = json.dumps({"id": str(i), "opts": {"attempts": i}, "data": {"t": 0}})
        held = json.loads(text)
        held["opts"]["attempts"] += len(text)
    python = _OBJECTS / (time.perf_counter() - started)
    return math.sqrt(server * python)
