-- Says that a job has ended, and that it has failed for good where no attempt is left.
local function announce_end(events, job)
  if job.target == 'completed' then
    redis.call('XADD', events, '*', 'event', 'completed', 'jobId', job.id, 'returnvalue', job.value, 'prev', 'active')
    return
  end
  redis.call('XADD', events, '*', 'event', 'failed', 'jobId', job.id, 'failedReason', job.value, 'prev', 'active')
  if job.made >= job.attempts then
    redis.call('XADD', events, '*', 'event', 'retries-exhausted', 'jobId', job.id, 'attemptsMade', job.made)
  end
end
