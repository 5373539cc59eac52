-- Counts a start against the rate limit. What is no number begins anew.
local function count_start(limiter)
  local starts = redis.pcall('INCR', limiter)
  if type(starts) == 'table' then
    redis.call('SET', limiter, 1)
    return 1
  end
  return starts
end
