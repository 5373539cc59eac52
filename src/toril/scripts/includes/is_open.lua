-- May workers fetch from this queue now? Not while it is paused, nor while as many jobs are active as
-- its global concurrency allows. `paused` counts by presence, whatever its value.
local function is_open(active, paused, concurrency)
  if paused then
    return false
  end
  return not concurrency or redis.call('LLEN', active) < tonumber(concurrency)
end
