-- Takes an id out of whichever state has it; returns the suffix of that key, or 'unknown'.
local function take_out(base, job_id)
  for _, suffix in ipairs({ 'completed', 'waiting-children', 'delayed', 'failed', 'prioritized' }) do
    if redis.call('ZREM', base .. suffix, job_id) == 1 then
      return suffix
    end
  end
  for _, suffix in ipairs({ 'wait', 'paused', 'active' }) do
    if redis.call('LREM', base .. suffix, 0, job_id) > 0 then
      return suffix
    end
  end
  return 'unknown'
end
