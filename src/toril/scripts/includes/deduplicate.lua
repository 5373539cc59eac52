--- @include "includes/claim_dedup"
--- @include "includes/add_to_delayed"
--- @include "includes/set_alarm"
--- @include "includes/delete_job"
-- Decides whether a new job with a deduplication id is added. Returns the id of the job that stands for
-- it, or nil: add it, the id is claimed.
--
-- `job` as for store_job, with extras; `options` is its `de`; `can_replace` is false for parents.
local function deduplicate(keys, base, job, options, extras, max_len, can_replace)
  local dedup_key, next_key = base .. 'de:' .. options.id, base .. 'dn:' .. options.id
  local current = redis.call('GET', dedup_key)
  if not current then
    claim_dedup(dedup_key, job.id, options)
    return nil
  end

  local function say(survivor, discarded)
    redis.call('XADD', keys.events, 'MAXLEN', '~', max_len, '*', 'event', 'deduplicated', 'jobId', survivor,
      'deduplicationId', options.id, 'deduplicatedJobId', discarded)
  end

  if options.replace and can_replace and redis.call('ZREM', keys.delayed, current) == 1 then
    delete_job(base .. current)
    redis.call('XADD', keys.events, '*', 'event', 'removed', 'jobId', current, 'prev', 'delayed')
    -- Here the new job is the survivor.
    say(job.id, current)
    redis.call('DEL', next_key)
    local ttl = tonumber(options.ttl) or 0
    if ttl > 0 and not options.extend and not options.keepLastIfActive then
      redis.call('SET', dedup_key, job.id, 'KEEPTTL')
    else
      claim_dedup(dedup_key, job.id, options)
    end
    return nil
  end

  -- An owner without a record, and without a ttl to outlive it, was lost with its server.
  if redis.call('PTTL', dedup_key) == -1 and redis.call('EXISTS', base .. current) == 0 then
    redis.call('DEL', dedup_key, next_key)
    claim_dedup(dedup_key, job.id, options)
    return nil
  end

  if options.keepLastIfActive and redis.call('LPOS', keys.active, current) then
    redis.call('DEL', next_key)
    redis.call('HSET', next_key, 'name', job.name, 'data', job.data, 'opts', job.opts, 'jid', job.id)
    if extras.parent_key then
      redis.call('HSET', next_key, 'pk', extras.parent_key, 'pd', extras.parent, 'pdk', extras.parent_key .. ':dependencies')
    end
    if extras.scheduler_id then
      redis.call('HSET', next_key, 'rjk', extras.scheduler_id)
    end
    redis.call('PERSIST', dedup_key)
    say(current, job.id)
    return current
  end
  if options.replace and can_replace then
    return current
  end

  if options.extend and (tonumber(options.ttl) or 0) > 0 then
    claim_dedup(dedup_key, current, options)
  end
  say(current, job.id)
  if options.reschedule and can_replace and redis.call('ZSCORE', keys.delayed, current) then
    redis.call('HSET', base .. current, 'delay', job.delay)
    add_to_delayed(keys.delayed, keys.events, max_len, current, tonumber(job.timestamp), tonumber(job.delay))
    set_alarm(keys.marker, keys.delayed)
  end
  return current
end
