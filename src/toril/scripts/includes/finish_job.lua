--- @include "includes/release_lock"
--- @include "includes/delete_job"
--- @include "includes/detach"
--- @include "includes/finish_dedup"
--- @include "includes/tell_parent"
--- @include "includes/evict_finished"
--- @include "includes/collect_metrics"
-- Ends one active job as completed or failed. Checks come before the first write; the lock goes with
-- the first write. Returns 0, or the refusal.
--
-- `job` has id, token, target ('completed' | 'failed'), value (return value as JSON, or failed reason
-- as raw text), stacktrace (JSON, for failures), attempts, and keep {count, age, limit}.
-- `points` is how many minutes of metrics are kept. `trim_events` is called before the first event.
local function finish_job(keys, base, now_ms, job, points, trim_events)
  local job_key = base .. job.id
  local record = redis.pcall('HMGET', job_key, 'name', 'atm', 'parentKey', 'parent', 'deid')
  -- Something else under the job's key is as good as nothing, and no reason to refuse the other ends.
  if record.err or (not record[1] and redis.call('EXISTS', job_key) == 0) then
    return ERR_JOB_NOT_FOUND
  end
  local is_completed = job.target == 'completed'
  if is_completed and redis.call('EXISTS', job_key .. ':dependencies', job_key .. ':unsuccessful') > 0 then
    if redis.call('SCARD', job_key .. ':dependencies') > 0 then
      return ERR_PENDING_CHILDREN
    end
    return ERR_FAILED_CHILDREN
  end
  local code = release_lock(job_key, keys.stalled, job.id, job.token)
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
    tell_parent(job_key, parent_key, record[4], is_completed, job.value, tonumber(now_ms))
  end
  local made = (tonumber(record[2]) or 0) + 1

  if job.keep.count == 0 then
    delete_job(job_key)
    if parent_key then
      detach(job_key, false, parent_key, base)
    end
  else
    if is_completed then
      redis.call('HSET', job_key, 'atm', made, 'returnvalue', job.value, 'finishedOn', now_ms)
    else
      redis.call('HSET', job_key, 'atm', made, 'failedReason', job.value, 'stacktrace', job.stacktrace,
        'finishedOn', now_ms)
      redis.call('HDEL', job_key, 'defa')
    end
    redis.call('ZADD', keys[job.target], now_ms, job.id)
    evict_finished(base, keys[job.target], tonumber(now_ms), job.keep)
  end

  if is_completed then
    redis.call('XADD', keys.events, '*', 'event', 'completed', 'jobId', job.id, 'returnvalue', job.value,
      'prev', 'active')
  else
    redis.call('XADD', keys.events, '*', 'event', 'failed', 'jobId', job.id, 'failedReason', job.value,
      'prev', 'active')
    if made >= job.attempts then
      redis.call('XADD', keys.events, '*', 'event', 'retries-exhausted', 'jobId', job.id, 'attemptsMade', made)
    end
  end
  if points > 0 then
    -- A spoilt counter is no reason to lose an end that has been written.
    pcall(function() collect_metrics(base .. 'metrics:' .. job.target, now_ms, points) end)
  end
  return 0
end
