-- Wakes one blocked worker of an open queue: "there may be a job to fetch now".
local function wake(marker, open)
  if open then
    redis.call('ZADD', marker, '0', '0')
  end
end
