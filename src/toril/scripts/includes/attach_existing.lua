--- @include "includes/split_key"
--- @include "includes/release_if_empty"
-- An id that exists already is added again. Where a parent is given, the job becomes its child, unless
-- it is that of another parent that exists. Returns 0, or the refusal.
local function attach_existing(base, job_id, extras, now_ms)
  local job_key = base .. job_id
  local old = redis.call('HGET', job_key, 'parentKey')
  local new = extras and extras.parent_key
  if not new then
    return 0
  end
  if old and old ~= new and redis.call('EXISTS', old) == 1 then
    if extras.defers_release then
      redis.call('HSET', new, 'flowAttachmentFailed', 1)
    end
    return ERR_PARENT_TAKEN
  end
  if redis.call('ZSCORE', base .. 'completed', job_id) then
    redis.call('HSET', new .. ':processed', job_key, redis.call('HGET', job_key, 'returnvalue') or 'null')
    if not extras.defers_release then
      local parent_base, parent_id = split_key(new)
      release_if_empty(parent_base, parent_id, now_ms)
    end
  else
    redis.call('SADD', new .. ':dependencies', job_key)
  end
  redis.call('HSET', job_key, 'parentKey', new, 'parent', extras.parent)
  return 0
end
