--- @include "includes/queue_keys"
--- @include "includes/push_back"
--- @include "includes/set_alarm"
-- Makes a parent runnable that has just left `waiting-children`: next in line, or by its priority, or
-- after its own delay.
local function release_parent(base, job_id, now_ms)
  local keys = queue_keys(base)
  local record = redis.call('HMGET', base .. job_id, 'priority', 'delay')
  local delay = tonumber(record[2] or 0) or 0
  if delay > 0 then
    local due = now_ms + delay
    redis.call('ZADD', keys.delayed, string.format('%.0f', due * 4096), job_id)
    redis.call('XADD', keys.events, '*', 'event', 'delayed', 'jobId', job_id, 'delay', string.format('%.0f', due))
    set_alarm(keys.marker, keys.delayed)
  else
    push_back(keys, job_id, tonumber(record[1] or 0) or 0, 'RPUSH')
    redis.call('XADD', keys.events, '*', 'event', 'waiting', 'jobId', job_id, 'prev', 'waiting-children')
  end
end
