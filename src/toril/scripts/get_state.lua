-- get_state: where is this job?
--
--   KEYS[1]  completed         zset
--   KEYS[2]  failed            zset
--   KEYS[3]  delayed           zset
--   KEYS[4]  prioritized       zset
--   KEYS[5]  active            list
--   KEYS[6]  wait              list
--   KEYS[7]  paused            list  job ids left by versions before 6
--   KEYS[8]  waiting-children  zset
--   ARGV[1]  job_id            string
--   returns  the state's public name, "unknown" for a job found nowhere

local completed, failed, delayed, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local active, wait, paused, waiting_children = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local job_id = ARGV[1]

if redis.call('ZSCORE', completed, job_id) then
  return 'completed'
elseif redis.call('ZSCORE', failed, job_id) then
  return 'failed'
elseif redis.call('ZSCORE', delayed, job_id) then
  return 'delayed'
elseif redis.call('ZSCORE', prioritized, job_id) then
  return 'prioritized'
elseif redis.call('LPOS', active, job_id) then
  return 'active'
elseif redis.call('LPOS', wait, job_id) or redis.call('LPOS', paused, job_id) then
  return 'waiting'
elseif redis.call('ZSCORE', waiting_children, job_id) then
  return 'waiting-children'
end
return 'unknown'
