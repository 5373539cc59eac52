--- @include "includes/split_key"
--- @include "includes/queue_keys"
--- @include "includes/push_back"
--- @include "includes/delete_job"
-- Cuts a child that is being removed out of its parent, and lets a parent that waited for it alone go
-- on. `is_hard` also removes such a parent, where it lives in the queue that is being cleared.
-- `parent_key` nil means the one of the child's record, which must exist.
-- Returns whether there was a link.
local function detach(child_key, is_hard, parent_key, base)
  if not parent_key then
    parent_key = redis.pcall('HGET', child_key, 'parentKey')
    if type(parent_key) ~= 'string' or redis.call('EXISTS', parent_key) == 0 then
      return false
    end
  end
  if redis.pcall('SREM', parent_key .. ':dependencies', child_key) ~= 1 then
    return false
  end
  if redis.call('SCARD', parent_key .. ':dependencies') > 0 then
    return true
  end
  local parent_base, parent_id = split_key(parent_key)
  if redis.call('ZREM', parent_base .. 'waiting-children', parent_id) == 0 then
    return true
  end
  if is_hard and parent_base == base then
    detach(parent_key, true, nil, base)
    delete_job(parent_key)
    local dedup_id = redis.call('HGET', child_key, 'deid')
    if dedup_id then
      redis.call('DEL', base .. 'de:' .. dedup_id)
    end
    return true
  end
  local keys = queue_keys(parent_base)
  push_back(keys, parent_id, 0, 'RPUSH')
  if not is_hard then
    redis.call('XADD', keys.events, '*', 'event', 'waiting', 'jobId', parent_id, 'prev', 'waiting-children')
  end
  return true
end
