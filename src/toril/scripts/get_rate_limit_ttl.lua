-- get_rate_limit_ttl: for how long is the queue closed by its rate limit?
--
--   KEYS[1]  limiter  string  starts in this rate-limit window
--   KEYS[2]  meta     hash    settings of the queue
--   ARGV[1]  max      int     the limit to ask about, or "" for the queue's own
--   returns  ms; without any limit the bare TTL: -2 no window, -1 one without an end

--- @include "includes/limit_ttl"

local limiter, meta = KEYS[1], KEYS[2]
local max = tonumber(ARGV[1]) or tonumber(redis.call('HGET', meta, 'max') or nil)

if max then
  return limit_ttl(limiter, max)
end
return redis.call('PTTL', limiter)
