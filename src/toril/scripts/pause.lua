-- pause: closes a queue to fetching, or opens it again
-- Jobs stay where they are and running ones go on. Opening also moves jobs that an old version has left
-- in the `paused` list, up to 7000 a call.
--
--   KEYS[1]  meta         hash    settings of the queue; `paused` counts by presence
--   KEYS[2]  marker       zset    wakes blocked workers
--   KEYS[3]  wait         list    job ids, the next to run at the right
--   KEYS[4]  paused       list    job ids left by versions before 6
--   KEYS[5]  prioritized  zset    job id -> priority and sequence
--   KEYS[6]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[7]  events       stream
--   ARGV[1]  action       string  "pause" or "resume"; "continue" is a resume that has been announced
--   returns  how many old ids are left to move: call again with "continue"
--   events   paused
--   events   resumed

--- @include "includes/set_alarm"

local meta, marker, wait, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prioritized, delayed, events = KEYS[5], KEYS[6], KEYS[7]
local action = ARGV[1]

if action == 'pause' then
  redis.call('HSET', meta, 'paused', 1)
  redis.call('DEL', marker)
  redis.call('XADD', events, '*', 'event', 'paused')
  return 0
end

redis.call('HDEL', meta, 'paused')
if redis.call('EXISTS', paused) == 1 then
  if redis.call('EXISTS', wait) == 0 then
    redis.call('RENAME', paused, wait)
  else
    local ids = redis.call('LRANGE', paused, 0, 6999)
    redis.call('RPUSH', wait, unpack(ids))
    redis.call('LTRIM', paused, #ids, -1)
  end
end
if redis.call('EXISTS', wait, prioritized) > 0 then
  redis.call('ZADD', marker, 0, '0')
else
  set_alarm(marker, delayed)
end
if action == 'resume' then
  redis.call('XADD', events, '*', 'event', 'resumed')
end
return redis.call('LLEN', paused)
