--- @include "includes/release_if_waiting"
-- Releases a waiting parent once none of its children is pending.
local function release_if_empty(base, job_id, now_ms)
  if redis.call('SCARD', base .. job_id .. ':dependencies') == 0 then
    release_if_waiting(base, job_id, now_ms)
  end
end
