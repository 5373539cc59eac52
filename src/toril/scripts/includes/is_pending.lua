-- Is this job still to run, or running? Lists are searched last, since that takes longer the longer they are.
local function is_pending(keys, job_id)
  if redis.call('ZSCORE', keys.delayed, job_id) or redis.call('ZSCORE', keys.prioritized, job_id) then
    return true
  end
  return (redis.call('LPOS', keys.wait, job_id, 'RANK', -1) or redis.call('LPOS', keys.active, job_id)) and true
    or false
end
