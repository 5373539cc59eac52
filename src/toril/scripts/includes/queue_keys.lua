-- The keys of a queue by its base, "prefix:queue:". For queues that a script meets on its way, as those
-- of parents; on a cluster they share the hash tag.
local function queue_keys(base)
  return {
    base = base, id = base .. 'id', wait = base .. 'wait', active = base .. 'active', delayed = base .. 'delayed',
    prioritized = base .. 'prioritized', pc = base .. 'pc', completed = base .. 'completed',
    failed = base .. 'failed', waiting_children = base .. 'waiting-children', marker = base .. 'marker',
    meta = base .. 'meta', events = base .. 'events', stalled = base .. 'stalled',
  }
end
