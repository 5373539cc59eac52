--- @include "includes/count_start"
-- Turns a taken id into a running job: locked, stamped, counted. Returns its record as it was before,
-- or nil for an id without a record, which is dropped: there is nothing to run. So is one whose key holds
-- something else: an error here would lose every id that this call has taken.
local function start_job(keys, base, now_ms, worker, job_id, limit)
  local job_key = base .. job_id
  local record = redis.pcall('HGETALL', job_key)
  if #record == 0 then
    return nil
  end
  local started, deferred = 0, false
  for i = 1, #record, 2 do
    if record[i] == 'ats' then
      started = tonumber(record[i + 1]) or 0
    elseif record[i] == 'defa' then
      deferred = true
    end
  end
  if limit.max and not deferred and count_start(keys.limiter) == 1 then
    redis.call('PEXPIRE', keys.limiter, string.format('%.0f', math.floor(math.abs(limit.duration))))
  end
  redis.call('LPUSH', keys.active, job_id)
  if worker.token ~= '0' then
    redis.call('SET', job_key .. ':lock', worker.token, 'PX', worker.lock_ms)
  end
  -- Also a job that came by priority is reported as having been `waiting`: listeners rely on it.
  redis.call('XADD', keys.events, '*', 'event', 'active', 'jobId', job_id, 'prev', 'waiting')
  if worker.name == '' then
    redis.call('HSET', job_key, 'processedOn', now_ms, 'ats', started + 1)
  else
    redis.call('HSET', job_key, 'processedOn', now_ms, 'pb', worker.name, 'ats', started + 1)
  end
  return record
end
