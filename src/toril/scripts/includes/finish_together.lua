--- @include "includes/delete_job"
--- @include "includes/evict_finished"
--- @include "includes/collect_metrics"
--- @include "includes/write_end"
--- @include "includes/announce_end"
-- Ends a list of active jobs as finish_job would end them one after another, with far fewer calls: what is
-- one key for all of them is read and written once. Returns the answers, or nil, with nothing changed,
-- where one of the jobs is not plain: refused, in a flow, deduplicated, or twice in the list.
local function finish_together(keys, base, now_ms, jobs, points, trim_events)
  local ids, locks, children, is_ours = {}, {}, {}, {}
  for i, job in ipairs(jobs) do
    local record = redis.pcall('HMGET', job.key, 'name', 'atm', 'parentKey', 'deid')
    if not record[1] or record[3] or record[4] or is_ours[job.id] or job.token == '0' then
      return nil
    end
    job.made = (tonumber(record[2]) or 0) + 1
    ids[i], locks[i], is_ours[job.id] = job.id, job.key .. ':lock', true
    children[2 * i - 1], children[2 * i] = job.key .. ':dependencies', job.key .. ':unsuccessful'
  end
  for i, holder in ipairs(redis.call('MGET', unpack(locks))) do
    if holder ~= jobs[i].token then
      return nil
    end
  end
  if redis.call('EXISTS', unpack(children)) > 0 then
    return nil
  end

  -- Jobs that end together have mostly begun together, and stand at the end of the list.
  local codes, is_tail = {}, true
  for _, id in ipairs(redis.call('LRANGE', keys.active, -#ids, -1)) do
    is_tail = is_tail and is_ours[id]
    is_ours[id] = nil
  end
  if is_tail and not next(is_ours) then
    redis.call('LTRIM', keys.active, 0, -#ids - 1)
  else
    for i, id in ipairs(ids) do
      codes[i] = redis.call('LREM', keys.active, -1, id) == 0 and ERR_JOB_NOT_IN_STATE or nil
    end
  end
  redis.call('DEL', unpack(locks))
  redis.call('SREM', keys.stalled, unpack(ids))

  local ended, doomed, counts = { completed = {}, failed = {} }, {}, { completed = 0, failed = 0 }
  local function store(target)
    if #ended[target] > 0 then
      redis.call('ZADD', keys[target], unpack(ended[target]))
      ended[target] = {}
    end
  end
  for i, job in ipairs(jobs) do
    if not codes[i] then
      codes[i] = 0
      trim_events()
      if job.keep.count == 0 then
        doomed[#doomed + 1] = job.key
      else
        write_end(job, now_ms)
        local members = ended[job.target]
        members[#members + 1], members[#members + 2] = now_ms, job.id
        if job.keep.age or (job.keep.count or 0) > 0 then
          store(job.target)
          evict_finished(base, keys[job.target], tonumber(now_ms), job.keep)
        end
      end
      announce_end(keys.events, job)
      counts[job.target] = counts[job.target] + 1
    end
  end
  store('completed')
  store('failed')
  for _, job_key in ipairs(doomed) do
    delete_job(job_key)
  end
  if points > 0 then
    for target, count in pairs(counts) do
      if count > 0 then
        -- A spoilt counter is no reason to lose ends that have been written.
        pcall(function() collect_metrics(base .. 'metrics:' .. target, now_ms, points, count) end)
      end
    end
  end
  return codes
end
