-- remove_orphaned_jobs: records that no state knows -> nowhere
-- A repair: removes those of the given ids that are found in no list and no set of the queue.
--
--   KEYS[1]  meta      hash    not read; it places the call in the queue's slot
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  ids       list    per job: its id
--   returns  how many were removed

--- @include "includes/delete_job"

local base = ARGV[1]

local function is_known(job_id)
  for _, suffix in ipairs({ 'delayed', 'prioritized', 'completed', 'failed', 'waiting-children', 'repeat', 'marker' }) do
    if redis.call('ZSCORE', base .. suffix, job_id) then
      return true
    end
  end
  for _, suffix in ipairs({ 'active', 'wait', 'paused' }) do
    if redis.call('LPOS', base .. suffix, job_id) then
      return true
    end
  end
  return redis.call('SISMEMBER', base .. 'stalled', job_id) == 1
end

local removed = 0
for i = 2, #ARGV do
  if not is_known(ARGV[i]) then
    local deleted = delete_job(base .. ARGV[i]) + redis.call('DEL', base .. ARGV[i] .. ':lock')
    removed = removed + math.min(deleted, 1)
  end
end
return removed
