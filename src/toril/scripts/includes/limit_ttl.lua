-- How many milliseconds the rate limit still closes the queue; 0 when it does not.
local function limit_ttl(limiter, max)
  if not max or (tonumber(redis.call('GET', limiter)) or 0) < max then
    return 0
  end
  local ttl = redis.call('PTTL', limiter)
  if ttl == 0 then
    redis.call('DEL', limiter)
  end
  return math.max(ttl, 0)
end
