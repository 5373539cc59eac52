-- Is this job the pending run of a job scheduler that exists?
local function is_scheduled(base, job_id)
  local scheduler = redis.call('HGET', base .. job_id, 'rjk')
  if not scheduler then
    return false
  end
  local due = redis.call('ZSCORE', base .. 'repeat', scheduler)
  return due and job_id == 'repeat:' .. scheduler .. ':' .. due
end
