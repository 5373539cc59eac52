-- Counts an attempt that has ended. What somebody else has spoilt is counted anew, rather than keep the job from moving.
local function count_attempt(job_key)
  if type(redis.pcall('HINCRBY', job_key, 'atm', 1)) == 'table' then
    redis.call('HSET', job_key, 'atm', 1)
  end
end
