-- Gives up the claim on a job, if it is ours. The token '0' means that no lock was taken.
-- Returns 0, or the refusal.
local function release_lock(job_key, stalled, job_id, token)
  if token == '0' then
    return 0
  end
  local holder = redis.call('GET', job_key .. ':lock')
  if not holder then
    return ERR_LOCK_NOT_FOUND
  end
  if holder ~= token then
    return ERR_LOCK_MISMATCH
  end
  redis.call('DEL', job_key .. ':lock')
  redis.call('SREM', stalled, job_id)
  return 0
end
