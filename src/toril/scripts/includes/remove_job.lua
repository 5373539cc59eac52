--- @include "includes/delete_job"
-- Deletes a job that its state's list or set is about to lose.
local function remove_job(base, job_id)
  delete_job(base .. job_id)
end
