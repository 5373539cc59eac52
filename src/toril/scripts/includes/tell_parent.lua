--- @include "includes/split_key"
--- @include "includes/fail_parent"
--- @include "includes/release_if_waiting"
--- @include "includes/release_if_empty"
-- Tells a parent that a child has ended. A failure counts by the first policy flag of the child's
-- `parent` link; without any flag the parent goes on waiting.
local function tell_parent(child_key, parent_key, parent_json, is_completed, value, now_ms)
  local base, parent_id = split_key(parent_key)
  local policy = {}
  if parent_json then
    -- Others may have written anything: then the parent is the one whose key stands in the record.
    local is_json, link = pcall(cjson.decode, parent_json)
    if is_json and type(link) == 'table' and type(link.queueKey) == 'string' and type(link.id) == 'string' then
      base, parent_id, policy = link.queueKey .. ':', link.id, link
      parent_key = base .. parent_id
    end
  end
  if not is_completed and not (policy.fpof or policy.cpof or policy.idof or policy.rdof) then
    return
  end
  if not base or redis.pcall('SREM', parent_key .. ':dependencies', child_key) ~= 1 then
    return
  end
  if is_completed then
    redis.call('HSET', parent_key .. ':processed', child_key, value)
    release_if_empty(base, parent_id, now_ms)
  elseif policy.fpof then
    redis.call('ZADD', parent_key .. ':unsuccessful', now_ms, child_key)
    fail_parent(base, parent_id, parent_key, child_key, now_ms)
  elseif policy.cpof then
    redis.call('HSET', parent_key .. ':failed', child_key, value)
    release_if_waiting(base, parent_id, now_ms)
  else
    release_if_empty(base, parent_id, now_ms)
    if policy.idof then
      redis.call('HSET', parent_key .. ':failed', child_key, value)
    end
  end
end
