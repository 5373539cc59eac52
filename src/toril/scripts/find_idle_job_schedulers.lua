-- find_idle_job_schedulers: nothing moves
-- Finds job schedulers whose pending job is gone. Some of them have come to their end; that is for the caller to say.
--
--   KEYS[1]  repeat       zset    job scheduler id -> next run, ms
--   KEYS[2]  wait         list    job ids, the next to run at the right
--   KEYS[3]  prioritized  zset    job id -> priority and sequence
--   KEYS[4]  delayed      zset    job id -> due time, ms * 4096
--   KEYS[5]  active       list    job ids, the newest at the left
--   ARGV[1]  base         string  "prefix:queue:", which every job key begins with
--   ARGV[2]  first        int     rank of the first to look at
--   ARGV[3]  limit        int     how many to look at
--   returns  {looked at, id, next run, id, next run, …}

--- @include "includes/is_pending"

local schedulers = KEYS[1]
local keys = { wait = KEYS[2], prioritized = KEYS[3], delayed = KEYS[4], active = KEYS[5] }
local base, first, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local some = redis.call('ZRANGE', schedulers, first, first + limit - 1, 'WITHSCORES')
local answer = { #some / 2 }
for i = 1, #some, 2 do
  local key = base .. 'repeat:' .. some[i]
  -- Without a count it is a repeatable job of an old version, which nobody here plans.
  if redis.call('HEXISTS', key, 'ic') == 1 and not is_pending(keys, 'repeat:' .. some[i] .. ':' .. some[i + 1]) then
    answer[#answer + 1] = some[i]
    answer[#answer + 1] = some[i + 1]
  end
end
return answer
