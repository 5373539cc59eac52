--- @include "includes/count_start"
-- Turns taken ids into running jobs: locked, stamped, counted. Appends id and record, as it was before, of each
-- to `jobs`; an id without a record is dropped, since there is nothing to run. So is one whose key holds something
-- else: an error here would lose every id that this call has taken. Returns how many it started.
local function start_jobs(keys, base, now_ms, worker, ids, limit, jobs)
  local started = {}
  for _, job_id in ipairs(ids) do
    local job_key = base .. job_id
    local record = redis.pcall('HGETALL', job_key)
    if #record > 0 then
      local starts, deferred = 1, false
      for i = 1, #record, 2 do
        if record[i] == 'ats' then
          starts = (tonumber(record[i + 1]) or 0) + 1
        elseif record[i] == 'defa' then
          deferred = true
        end
      end
      if limit.max and not deferred and count_start(keys.limiter) == 1 then
        redis.call('PEXPIRE', keys.limiter, string.format('%.0f', math.floor(math.abs(limit.duration))))
      end
      if worker.token ~= '0' then
        redis.call('SET', job_key .. ':lock', worker.token, 'PX', worker.lock_ms)
      end
      -- Also a job that came by priority is reported as having been `waiting`: listeners rely on it.
      redis.call('XADD', keys.events, '*', 'event', 'active', 'jobId', job_id, 'prev', 'waiting')
      if worker.name == '' then
        redis.call('HSET', job_key, 'processedOn', now_ms, 'ats', starts)
      else
        redis.call('HSET', job_key, 'processedOn', now_ms, 'pb', worker.name, 'ats', starts)
      end
      started[#started + 1] = job_id
      jobs[#jobs + 1], jobs[#jobs + 2] = job_id, record
    end
  end
  for i = 1, #started, 7000 do
    redis.call('LPUSH', keys.active, unpack(started, i, math.min(i + 6999, #started)))
  end
  return #started
end
