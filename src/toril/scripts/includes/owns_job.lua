-- May the holder of this token still write about the job? An empty token is a caller who is no worker.
-- Returns 0, or the refusal.
local function owns_job(job_key, token)
  if redis.call('EXISTS', job_key) == 0 then
    return ERR_JOB_NOT_FOUND
  end
  if token ~= '' and token ~= '0' then
    local holder = redis.call('GET', job_key .. ':lock')
    if not holder then
      return ERR_LOCK_NOT_FOUND
    end
    if holder ~= token then
      return ERR_LOCK_MISMATCH
    end
  end
  return 0
end
