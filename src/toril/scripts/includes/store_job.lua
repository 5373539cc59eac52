-- Writes the record of a new job and says that it is there. `extras` has what few jobs have: parent_key,
-- parent (JSON), scheduler_id, dedup_id; absent fields stay absent, since others test for presence.
local function store_job(job_key, events, job, extras)
  redis.call('HSET', job_key, 'name', job.name, 'data', job.data, 'opts', job.opts, 'timestamp', job.timestamp,
    'delay', job.delay, 'priority', job.priority)
  if extras then
    if extras.parent_key then
      redis.call('HSET', job_key, 'parentKey', extras.parent_key, 'parent', extras.parent)
    end
    if extras.scheduler_id then
      redis.call('HSET', job_key, 'rjk', extras.scheduler_id)
    end
    if extras.dedup_id then
      redis.call('HSET', job_key, 'deid', extras.dedup_id)
    end
  end
  redis.call('XADD', events, '*', 'event', 'added', 'jobId', job.id, 'name', job.name)
end
