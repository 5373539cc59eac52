-- Frees a deduplication id because the job that owns it is removed; what waits behind it goes too.
local function forget_dedup(base, dedup_id, job_id)
  if type(dedup_id) == 'string' and redis.pcall('GET', base .. 'de:' .. dedup_id) == job_id then
    redis.call('DEL', base .. 'de:' .. dedup_id, base .. 'dn:' .. dedup_id)
  end
end
