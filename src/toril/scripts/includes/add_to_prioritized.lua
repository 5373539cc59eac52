-- Puts a job behind the others of its priority. The counter orders equals; a lower score runs first.
-- A record of somebody else may hold any priority: one that is no number counts as none.
local function add_to_prioritized(prioritized, counter, job_id, priority)
  local n = redis.pcall('INCR', counter)
  if type(n) == 'table' then
    redis.call('SET', counter, 1)
    n = 1
  end
  n = n % 4294967296
  if priority ~= priority then
    priority = 0
  end
  redis.call('ZADD', prioritized, string.format('%.0f', priority * 4294967296 + n), job_id)
end
