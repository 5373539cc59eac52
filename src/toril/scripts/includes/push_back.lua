--- @include "includes/is_open"
--- @include "includes/wake"
--- @include "includes/add_to_prioritized"
-- Makes a job that has just left another state runnable: by its priority, or at the given end of the
-- line ('LPUSH' last, 'RPUSH' next). The slot that it left may have opened the queue.
local function push_back(keys, job_id, priority, side)
  local meta = redis.call('HMGET', keys.meta, 'paused', 'concurrency')
  if priority == 0 then
    redis.call(side, keys.wait, job_id)
  else
    add_to_prioritized(keys.prioritized, keys.pc, job_id, priority)
  end
  wake(keys.marker, is_open(keys.active, meta[1], meta[2]))
end
