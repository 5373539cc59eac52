--- @include "includes/detach"
--- @include "includes/delete_job"
--- @include "includes/forget_dedup"
-- Deletes a job that its state's list or set is about to lose, and cuts it out of its parent. See
-- detach for `is_hard`; `frees_dedup` gives up the deduplication id that the job owns.
local function remove_job(base, job_id, is_hard, frees_dedup)
  local job_key = base .. job_id
  detach(job_key, is_hard, nil, base)
  if frees_dedup then
    forget_dedup(base, redis.pcall('HGET', job_key, 'deid'), job_id)
  end
  return delete_job(job_key)
end
