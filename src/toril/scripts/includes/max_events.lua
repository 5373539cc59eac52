-- How many events the stream keeps. A queue that nobody has configured gets the default, and remembers it.
local function max_events(meta, configured)
  if configured then
    return configured
  end
  redis.call('HSET', meta, 'opts.maxLenEvents', 10000)
  return 10000
end
