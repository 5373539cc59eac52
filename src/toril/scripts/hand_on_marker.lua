-- hand_on_marker: wakes another worker, in place of one that was woken and will not fetch
-- A marker is gone with its reading. A worker that pauses or stops then would leave a job to the end of the
-- others' waits. Where there is nothing to do, nobody is woken.
--
--   KEYS[1]  wait         list    job ids, the next to run at the right
--   KEYS[2]  active       list    job ids, the newest at the left
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[5]  marker       zset    wakes blocked workers
--   KEYS[6]  meta         hash    settings of the queue
--   returns  0

--- @include "includes/is_open"
--- @include "includes/set_alarm"
--- @include "includes/wake"

local wait, active, prioritized = KEYS[1], KEYS[2], KEYS[3]
local delayed, marker, meta = KEYS[4], KEYS[5], KEYS[6]

if redis.call('EXISTS', wait, prioritized) > 0 then
  local settings = redis.call('HMGET', meta, 'paused', 'concurrency')
  wake(marker, is_open(active, settings[1], settings[2]))
else
  set_alarm(marker, delayed)
end
return 0
