--- @include "includes/claim_dedup"
--- @include "includes/enqueue_job"
--- @include "includes/queue_keys"
-- A job with a deduplication id has ended: frees the id, unless a ttl still guards it, and queues the
-- job that was kept for when this one ends, if there is one.
local function finish_dedup(base, job_id, dedup_id, now_ms)
  local dedup_key, next_key = base .. 'de:' .. dedup_id, base .. 'dn:' .. dedup_id
  local ttl = redis.call('PTTL', dedup_key)
  if ttl == 0 or (ttl == -1 and redis.pcall('GET', dedup_key) == job_id) then
    redis.call('DEL', dedup_key)
  end
  local kept = redis.pcall('HMGET', next_key, 'name', 'data', 'opts', 'jid', 'pk', 'pd', 'pdk', 'rjk')
  if not kept[1] then
    return
  end
  local keys = queue_keys(base)
  local number = redis.call('INCR', keys.id)
  local next_id = kept[4] or string.format('%.0f', number)
  local is_json, options = pcall(cjson.decode, kept[3] or '{}')
  if not is_json or type(options) ~= 'table' then
    options = {}
  end
  claim_dedup(dedup_key, next_id, type(options.de) == 'table' and options.de or {})
  enqueue_job(keys, base, {
    id = next_id, name = kept[1], data = kept[2] or '{}', opts = kept[3] or '{}', timestamp = now_ms,
    delay = tonumber(options.delay) or 0, priority = tonumber(options.priority) or 0, is_lifo = options.lifo,
  }, { parent_key = kept[5], parent = kept[6], scheduler_id = kept[8], dedup_id = dedup_id })
  if kept[7] then
    redis.call('SADD', kept[7], base .. next_id)
  end
  redis.call('DEL', next_key)
end
