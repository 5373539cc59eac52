--- @include "includes/add_to_prioritized"
--- @include "includes/wake"
-- Makes delayed jobs that are due runnable, up to 250 a call, so that no call takes long; returns how many. They join the end of
-- the line, whatever `lifo` says. An id whose key is no record goes with them; fetching drops it.
local function promote_due(keys, base, now_ms, open)
  local due = redis.call('ZRANGEBYSCORE', keys.delayed, 0, string.format('%.0f', (now_ms + 1) * 4096 - 1),
    'LIMIT', 0, 250)
  if #due == 0 then
    return 0
  end
  redis.call('ZREM', keys.delayed, unpack(due))
  local plain = {}
  for _, job_id in ipairs(due) do
    local job_key = base .. job_id
    local priority = tonumber(redis.pcall('HGET', job_key, 'priority') or 0) or 0
    if priority == 0 then
      plain[#plain + 1] = job_id
    else
      add_to_prioritized(keys.prioritized, keys.pc, job_id, priority)
    end
    redis.call('XADD', keys.events, '*', 'event', 'waiting', 'jobId', job_id, 'prev', 'delayed')
    redis.pcall('HSET', job_key, 'delay', 0)
  end
  if #plain > 0 then
    redis.call('LPUSH', keys.wait, unpack(plain))
  end
  wake(keys.marker, open)
  return #due
end
