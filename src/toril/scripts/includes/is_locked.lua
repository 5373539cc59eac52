-- Does a worker hold this job, or, with its children, any job below it?
local function is_locked(job_key, with_children)
  if redis.call('EXISTS', job_key .. ':lock') == 1 then
    return true
  end
  if with_children then
    for _, child_key in ipairs(redis.call('SMEMBERS', job_key .. ':dependencies')) do
      if is_locked(child_key, true) then
        return true
      end
    end
  end
  return false
end
