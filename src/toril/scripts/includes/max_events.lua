-- How many events the stream keeps. A queue that nobody has configured gets the default, and remembers it.
local function max_events(meta, configured)
  if configured == '10000' then
    return configured
  end
  if configured then
    -- The server takes nothing but digits here, and an error would keep every job from moving.
    return string.match(configured, '^%d%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?$') or 10000
  end
  redis.call('HSET', meta, 'opts.maxLenEvents', 10000)
  return 10000
end
