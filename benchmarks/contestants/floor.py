"""The floor: the bare loop, with scripts that do nothing but write what BullMQ's layout wants of a job.

They look at nothing before they write: no setting, no pause, no limit, no lock, no parent, no state. As a queue they
would be worthless. As a bound they say what no queue on this layout passes, however its scripts are written: of a job
that is added, one record, two events and a place in a list; of one that runs, its record read and written twice, two
events, a lock and three lists.
"""

from __future__ import annotations

from typing import Final

from benchmarks.contestants import bare
from benchmarks.contestants.harness import main

# They take what `add_job` and `move_to_finished` take, and answer likewise.
ADD: Final = """
local base, ids = ARGV[1], {}
local first = redis.call('INCRBY', KEYS[1], (#ARGV - 5) / 4) - (#ARGV - 5) / 4
for at = 6, #ARGV, 4 do
  local id = string.format('%d', first + #ids + 1)
  redis.call('HSET', base .. id, 'name', ARGV[at], 'data', ARGV[at + 1], 'opts', ARGV[at + 2],
    'timestamp', ARGV[at + 3], 'delay', '0', 'priority', '0')
  redis.call('XADD', KEYS[10], '*', 'event', 'added', 'jobId', id, 'name', ARGV[at])
  redis.call('XADD', KEYS[10], 'MAXLEN', '~', 10000, '*', 'event', 'waiting', 'jobId', id)
  ids[#ids + 1] = id
end
redis.call('LPUSH', KEYS[2], unpack(ids))
redis.call('ZADD', KEYS[7], 0, '0')
return ids
"""
# The jobs that have been active for longest are taken for those that end. Between two workers they may be each
# other's; there are as many all the same.
FINISH: Final = """
local base, now_ms, locks, ended = ARGV[1], ARGV[2], {}, {}
for at = 11, #ARGV, 5 do
  local id, value = ARGV[at], ARGV[at + 3]
  locks[#locks + 1] = base .. id .. ':lock'
  ended[#ended + 1], ended[#ended + 2] = now_ms, id
  redis.call('HSET', base .. id, 'atm', 1, 'returnvalue', value, 'finishedOn', now_ms)
  redis.call('XADD', KEYS[12], '*', 'event', 'completed', 'jobId', id, 'returnvalue', value, 'prev', 'active')
end
redis.call('DEL', unpack(locks))
redis.call('LTRIM', KEYS[2], 0, -#locks - 1)
redis.call('ZADD', KEYS[5], unpack(ended))
redis.call('XTRIM', KEYS[12], 'MAXLEN', '~', 10000)
local ids, records = redis.call('RPOP', KEYS[1], ARGV[3]) or {}, {}
for _, id in ipairs(ids) do
  records[#records + 1], records[#records + 2] = id, redis.call('HGETALL', base .. id)
  redis.call('SET', base .. id .. ':lock', ARGV[4], 'PX', ARGV[5])
  redis.call('XADD', KEYS[12], '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
  redis.call('HSET', base .. id, 'processedOn', now_ms, 'ats', 1)
end
if #ids > 0 then
  redis.call('LPUSH', KEYS[2], unpack(ids))
  redis.call('ZADD', KEYS[9], 0, '0')
end
return { {}, 0, '0', 0, unpack(records) }
"""


class Floor(bare.Bare):
    def open(self) -> None:
        super().open()
        self._add.call(self._wires[0].ask("SCRIPT", "LOAD", ADD))

    def prepare(self, wire: bare.Wire, finish: bare.Template) -> None:
        finish.call(wire.ask("SCRIPT", "LOAD", FINISH))


if __name__ == "__main__":
    main(Floor)
