-- extend_locks: active stays active
-- Keeps a list of jobs ours for another `lock_ms`, counted from now. A lock that is gone is not made anew.
--
--   KEYS[1]  stalled   set     ids that the next stalled check looks at
--   ARGV[1]  base      string  "prefix:queue:", which every job key begins with
--   ARGV[2]  lock_ms   int     how long the locks last from now
--   ARGV[3]  jobs      list    per job: id, token
--   returns  ids of the jobs whose lock is gone, or is another worker's

local stalled = KEYS[1]
local base, lock_ms = ARGV[1], ARGV[2]

local lost = {}
for at = 3, #ARGV, 2 do
  local job_id, token = ARGV[at], ARGV[at + 1]
  local lock = base .. job_id .. ':lock'
  if redis.call('GET', lock) == token then
    redis.call('SET', lock, token, 'PX', lock_ms)
    redis.call('SREM', stalled, job_id)
  else
    lost[#lost + 1] = job_id
  end
end
return lost
