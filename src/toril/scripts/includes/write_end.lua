-- Writes a job's end into its record. `job` has key, target ('completed' | 'failed'), value, stacktrace and made.
local function write_end(job, now_ms)
  if job.target == 'completed' then
    redis.call('HSET', job.key, 'atm', job.made, 'returnvalue', job.value, 'finishedOn', now_ms)
  else
    redis.call('HSET', job.key, 'atm', job.made, 'failedReason', job.value, 'stacktrace', job.stacktrace,
      'finishedOn', now_ms)
    redis.call('HDEL', job.key, 'defa')
  end
end
