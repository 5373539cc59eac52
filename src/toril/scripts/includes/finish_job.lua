--- @include "includes/release_lock"
--- @include "includes/delete_job"
--- @include "includes/detach"
--- @include "includes/finish_dedup"
--- @include "includes/tell_parent"
--- @include "includes/evict_finished"
--- @include "includes/collect_metrics"
--- @include "includes/write_end"
--- @include "includes/announce_end"
-- Ends one active job as completed or failed. Checks come before the first write; the lock goes with
-- the first write. Returns 0, or the refusal.
--
-- `job` has id, key, token, target ('completed' | 'failed'), value (return value as JSON, or failed reason
-- as raw text), stacktrace (JSON, for failures), attempts, and keep {count, age, limit}.
-- `points` is how many minutes of metrics are kept. `trim_events` is called before the first event.
local function finish_job(keys, base, now_ms, job, points, trim_events)
  local record = redis.pcall('HMGET', job.key, 'name', 'atm', 'parentKey', 'parent', 'deid')
  -- Something else under the job's key is as good as nothing, and no reason to refuse the other ends.
  if record.err or (not record[1] and redis.call('EXISTS', job.key) == 0) then
    return ERR_JOB_NOT_FOUND
  end
  local is_completed = job.target == 'completed'
  if is_completed and redis.call('EXISTS', job.key .. ':dependencies', job.key .. ':unsuccessful') > 0 then
    if redis.call('SCARD', job.key .. ':dependencies') > 0 then
      return ERR_PENDING_CHILDREN
    end
    return ERR_FAILED_CHILDREN
  end
  local code = release_lock(job.key, keys.stalled, job.id, job.token)
  if code < 0 then
    return code
  end
  if redis.call('LREM', keys.active, -1, job.id) == 0 then
    return ERR_JOB_NOT_IN_STATE
  end
  trim_events()
  local parent_key, dedup_id = record[3], record[5]
  if dedup_id then
    finish_dedup(base, job.id, dedup_id, tonumber(now_ms))
  end
  if parent_key then
    tell_parent(job.key, parent_key, record[4], is_completed, job.value, tonumber(now_ms))
  end
  job.made = (tonumber(record[2]) or 0) + 1

  if job.keep.count == 0 then
    delete_job(job.key)
    if parent_key then
      detach(job.key, false, parent_key, base)
    end
  else
    write_end(job, now_ms)
    redis.call('ZADD', keys[job.target], now_ms, job.id)
    evict_finished(base, keys[job.target], tonumber(now_ms), job.keep)
  end
  announce_end(keys.events, job)
  if points > 0 then
    -- A spoilt counter is no reason to lose an end that has been written.
    pcall(function() collect_metrics(base .. 'metrics:' .. job.target, now_ms, points, 1) end)
  end
  return 0
end
