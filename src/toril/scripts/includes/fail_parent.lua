--- @include "includes/release_parent"
-- Fails a parent because of a child: at once it only notes why, and the next worker that picks the
-- parent up fails it without running it.
local function fail_parent(base, parent_id, parent_key, child_key, now_ms)
  if redis.call('EXISTS', parent_key) == 0 then
    return
  end
  local reason = 'child ' .. child_key .. ' failed'
  if redis.call('ZREM', base .. 'waiting-children', parent_id) == 1 then
    redis.call('HSET', parent_key, 'defa', reason)
    release_parent(base, parent_id, now_ms)
  elseif redis.call('ZREM', base .. 'delayed', parent_id) == 1 then
    redis.call('HSET', parent_key, 'delay', 0, 'defa', reason)
    release_parent(base, parent_id, now_ms)
  elseif not redis.call('ZSCORE', base .. 'failed', parent_id) then
    redis.call('HSET', parent_key, 'defa', reason)
  end
end
