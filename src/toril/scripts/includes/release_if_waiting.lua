--- @include "includes/release_parent"
-- Releases a parent, if it exists and is waiting for its children.
local function release_if_waiting(base, job_id, now_ms)
  if redis.call('EXISTS', base .. job_id) == 1 and redis.call('ZREM', base .. 'waiting-children', job_id) == 1 then
    release_parent(base, job_id, now_ms)
  end
end
