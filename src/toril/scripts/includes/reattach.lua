-- A finished child runs again: its parent, if it is known there, waits for it once more. A parent that
-- has gone on already is not called back.
local function reattach(job_key, state)
  local parent_key = redis.call('HGET', job_key, 'parentKey')
  if not parent_key then
    return
  end
  local was_known
  if state == 'failed' then
    was_known = redis.call('ZREM', parent_key .. ':unsuccessful', job_key) == 1
      or redis.call('HDEL', parent_key .. ':failed', job_key) == 1
  else
    was_known = redis.call('HDEL', parent_key .. ':processed', job_key) == 1
  end
  if was_known then
    redis.call('SADD', parent_key .. ':dependencies', job_key)
  end
end
