-- Puts a job behind the others of its priority. The counter orders equals; a lower score runs first.
local function add_to_prioritized(prioritized, counter, job_id, priority)
  local n = redis.call('INCR', counter) % 4294967296
  redis.call('ZADD', prioritized, string.format('%.0f', priority * 4294967296 + n), job_id)
end
