-- Makes a job the owner of its deduplication id, for `ttl` ms where there is one. An id that keeps the
-- last is owned until its job has ended, so it has no ttl.
local function claim_dedup(dedup_key, job_id, options)
  local ttl = tonumber(options.ttl) or 0
  if ttl > 0 and not options.keepLastIfActive then
    redis.call('SET', dedup_key, job_id, 'PX', string.format('%.0f', ttl))
  else
    redis.call('SET', dedup_key, job_id)
  end
end
