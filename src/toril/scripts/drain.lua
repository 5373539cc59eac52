-- drain: waiting, prioritized, delayed -> nowhere
-- Removes jobs that have not begun, except the pending runs of job schedulers. In steps: it looks at up
-- to `limit` jobs of one state a call.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  state     string  suffix of the key: wait, paused, delayed or prioritized
--   ARGV[3]  skip      int     how many to leave at the front: those that were spared before
--   ARGV[4]  limit     int     how many to look at
--   returns  {removed, spared}; both 0 when there is no more
--   events   waiting   jobId, prev

--- @include "includes/remove_job"
--- @include "includes/is_scheduled"
--- @include "includes/list_ids"

local base, state, skip, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local key = base .. state

local removed, spared = 0, 0
local ids, is_list = list_ids(key, state, skip, limit)
for _, job_id in ipairs(ids) do
  if is_scheduled(base, job_id) then
    spared = spared + 1
  else
    remove_job(base, job_id, true, true)
    if is_list then
      redis.call('LREM', key, -1, job_id)
    else
      redis.call('ZREM', key, job_id)
    end
    removed = removed + 1
  end
end
return { removed, spared }
