// The reference client on the other end of a pipe.
//
// Reads one JSON command a line on stdin and answers each with one line on stdout: {id, ok: true, result} or
// {id, ok: false, error: {name, message}}. Commands run side by side; answers come as they are ready. What happens
// by itself (a worker's events, a QueueEvents listener's) is told unasked: {event, of, args}. Ends when stdin does.
//
// Objects that outlive a command (queues, workers, listeners) have a handle that the caller chooses. Only the public
// classes are used, and a worker's `backend` for the one move that has no public method, the stalled check.
//
// The one argument is the reference client's package, `bullmq` or `bullmq5`.

import { createInterface } from 'node:readline';
// The parser that comes with the reference client.
import { CronExpressionParser } from 'cron-parser';

const {
  DelayedError, FlowProducer, Job, Queue, QueueEvents, QueueEventsProducer, UnrecoverableError, WaitingChildrenError,
  Worker,
} = await import(process.argv[2] ?? 'bullmq');

const objects = new Map();
const TrueDate = Date;
const trueRandom = Math.random;

const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');

/** A Date whose present is `now`, however it is asked for. */
const standing = (now) =>
  class extends TrueDate {
    constructor(...args) {
      super(...(args.length === 0 ? [now] : args));
    }
    static now = () => now;
  };

// --- values that JSON has no word for -------------------------------------------------------------------------

const UNDEFINED = '$undefined';

/** What the caller sends as {"$undefined": true} is undefined here, at any depth. */
function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== 'object') return value;
  if (UNDEFINED in value) return undefined;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revive(inner)]));
}

const JOB_FIELDS = [
  'id', 'name', 'data', 'opts', 'progress', 'returnvalue', 'stacktrace', 'delay', 'priority', 'timestamp',
  'attemptsStarted', 'attemptsMade', 'stalledCounter', 'failedReason', 'deferredFailure', 'finishedOn',
  'processedOn', 'processedBy', 'token', 'queueQualifiedName',
];

/** Jobs become plain objects of their public properties; everything else stays. */
function show(value) {
  if (value instanceof Job) return Object.fromEntries(JOB_FIELDS.map((field) => [field, value[field]]));
  if (value instanceof Error) return { name: value.name, message: value.message };
  if (Array.isArray(value)) return value.map(show);
  if (value?.job instanceof Job) return { job: show(value.job), children: show(value.children ?? []) };
  return value;
}

/** An error with a stack that a test can compare: `stack` as given, else V8's own. */
function errorFrom({ message, stack, unrecoverable = false }) {
  const error = unrecoverable ? new UnrecoverableError(message) : new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}

// --- processors -----------------------------------------------------------------------------------------------

const gates = new Map();

/** A promise that `open-gate` of the same name resolves, in either order. */
function gate(name) {
  if (!gates.has(name)) {
    const entry = {};
    entry.promise = new Promise((resolve) => (entry.open = resolve));
    gates.set(name, entry);
  }
  return gates.get(name);
}

/**
 * One step of a scripted processor. `return` and the throwing steps end the run.
 */
const STEPS = {
  progress: (job, token, value) => job.updateProgress(value),
  log: (job, token, row) => job.log(row),
  data: (job, token, value) => job.updateData(value),
  sleep: (job, token, ms) => new Promise((resolve) => setTimeout(resolve, ms)),
  gate: (job, token, name) => gate(name).promise,
  extend: (job, token, ms) => job.extendLock(token, ms),
  throw: (job, token, error) => { throw errorFrom(error); },
  delay: async (job, token, ms) => {
    await job.moveToDelayed(Date.now() + ms, token);
    throw new DelayedError();
  },
  'add-children': async (job, token, { queue: name, names }) => {
    const queue = new Queue(name, { connection, prefix: job.prefix });
    const parent = { id: job.id, queue: job.queueQualifiedName };
    await queue.addBulk(names.map((child) => ({ name: child, data: {}, opts: { jobId: child, parent } })));
    await queue.close();
  },
  'wait-for-children': async (job, token) => {
    if (await job.moveToWaitingChildren(token)) throw new WaitingChildrenError();
  },
  'until-cancelled': (job, token, _, signal) =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('cancelled')))),
};

/** What a job returns instead of a constant, by the name of the step. */
const RETURNS = {
  return: (job, value) => value,
  'return-children': async (job) => Object.values(await job.getChildrenValues()),
};

/**
 * A processor that does what `scripts` says: job name (or "*") -> one list of steps for each start of the job, the
 * last of them for all later starts. A step is [name, argument]; ["return", value] and ["return-children"] end the
 * run, and a list without them returns the job's data.
 */
function scriptedProcessor(scripts) {
  return async (job, token, signal) => {
    const runs = scripts[job.name] ?? scripts['*'] ?? [[]];
    const steps = runs[Math.min(job.attemptsStarted, runs.length) - 1];
    for (const [step, argument] of steps) {
      if (step in RETURNS) return RETURNS[step](job, argument);
      await STEPS[step](job, token, argument, signal);
    }
    return job.data;
  };
}

/** Tells the caller every event of `emitter`, except the doubles that carry a job's id in their name. */
function tellEvents(emitter, handle) {
  const emit = emitter.emit;
  emitter.emit = function (event, ...args) {
    if (typeof event === 'string' && !event.includes(':')) say({ event, of: handle, args: args.map(show) });
    return emit.call(this, event, ...args);
  };
  emitter.on('error', () => {}); // told above; without a listener it would end the process
}

// --- commands -------------------------------------------------------------------------------------------------

let connection = {};

const the = (handle) => {
  if (!objects.has(handle)) throw new Error(`no object with the handle '${handle}'`);
  return objects.get(handle);
};

const jobOf = async (queue, jobId) => {
  const job = await the(queue).getJob(jobId);
  if (!job) throw new Error(`no job '${jobId}'`);
  return job;
};

const held = async (worker, jobId) => {
  const job = await Job.fromId(the(worker), jobId);
  if (!job) throw new Error(`no job '${jobId}'`);
  return job;
};

/** What a finish that fetches answers, [fields, id, ...], as a job; null when it fetched none. */
const fetched = async (worker, answer, token) => {
  if (!Array.isArray(answer) || !answer[0]) return null;
  return (await the(worker).nextJobFromJobData(answer[0], answer[1], token)) ?? null;
};

const COMMANDS = {
  /** Where the server is: {host, port} or {path}. Before anything else. */
  connect: ({ options }) => { connection = options; },

  /** Stands the clock at `now` ms, or lets it go (null); `random` likewise replaces Math.random. */
  clock: ({ now, random = null }) => {
    globalThis.Date = now === null ? TrueDate : standing(now);
    Math.random = random === null ? trueRandom : () => random;
  },

  queue: async ({ handle, name, options }) => {
    const queue = new Queue(name, { connection, ...options });
    queue.on('error', () => {});
    objects.set(handle, queue);
    await queue.waitUntilReady();
  },

  /** A worker that runs jobs by `scripts`; without scripts it only takes jobs when told to (`take`). */
  worker: async ({ handle, name, scripts = null, options }) => {
    const processor = scripts && scriptedProcessor(scripts);
    const strategies = options.backoffs; // attempts made -> ms, a list; the last for all later attempts
    const settings = strategies && { backoffStrategy: (made) => strategies[Math.min(made, strategies.length) - 1] };
    const worker = new Worker(name, processor, { connection, autorun: processor !== null, settings, ...options });
    tellEvents(worker, handle);
    objects.set(handle, worker);
    await worker.waitUntilReady();
  },

  /** A flow producer belongs to no queue. */
  flows: async ({ handle, options }) => {
    const flows = new FlowProducer({ connection, ...options });
    flows.on('error', () => {});
    objects.set(handle, flows);
    await flows.waitUntilReady();
  },

  events: async ({ handle, name, options }) => {
    const events = new QueueEvents(name, { connection, ...options });
    tellEvents(events, handle);
    objects.set(handle, events);
    await events.waitUntilReady();
  },

  /** Publishes events of one's own. */
  producer: async ({ handle, name, options }) => {
    const producer = new QueueEventsProducer(name, { connection, ...options });
    producer.on('error', () => {});
    objects.set(handle, producer);
    await producer.waitUntilReady();
  },

  /** Any method of a queue, worker or listener. */
  call: ({ handle, method, args = [] }) => the(handle)[method](...args),

  /** Any method of a job, read afresh. */
  job: async ({ queue, jobId, method, args = [] }) => (await jobOf(queue, jobId))[method](...args),

  /** The return value of a job once it has finished; throws when it fails. */
  wait: async ({ queue, events, jobId }) => (await jobOf(queue, jobId)).waitUntilFinished(the(events)),

  close: async ({ handle, force = false }) => {
    const object = the(handle);
    objects.delete(handle);
    await (object instanceof Worker ? object.close(force) : object.close());
  },

  'open-gate': ({ name }) => gate(name).open(),

  // A worker's moves one at a time, with tokens of the caller's. Fetching goes past the loop's memory of rate limits.
  take: async ({ worker, token }) => (await the(worker).moveToActive(token, the(worker).opts.name)) ?? null,
  complete: async ({ worker, jobId, token, value, fetchNext = false }) => {
    const job = await held(worker, jobId);
    return fetched(worker, await job.moveToCompleted(value, token, fetchNext), token);
  },
  fail: async ({ worker, jobId, token, error, fetchNext = false }) => {
    const job = await held(worker, jobId);
    return fetched(worker, await job.moveToFailed(errorFrom(error), token, fetchNext), token);
  },
  delay: async ({ worker, jobId, token, until }) => {
    const job = await held(worker, jobId);
    await job.moveToDelayed(until, token);
  },
  'give-back': async ({ worker, jobId, token }) => {
    const job = await held(worker, jobId);
    return job.moveToWait(token);
  },
  'wait-for-children': async ({ worker, jobId, token, child }) => {
    const job = await held(worker, jobId);
    return job.moveToWaitingChildren(token, child ? { child } : {});
  },
  'extend-lock': async ({ worker, jobId, token, duration }) => {
    const job = await held(worker, jobId);
    return job.extendLock(token, duration);
  },
  'extend-locks': ({ worker, jobIds, tokens, duration }) => the(worker).extendJobLocks(jobIds, tokens, duration),
  stalled: ({ worker }) => the(worker).backend.moveStalledJobsToWait(),

  /** When patterns fire next: for each of [pattern, zone, ms] a time in ms, or why there is none. */
  cron: ({ cases }) => cases.map(([pattern, tz, from]) => {
    try {
      return CronExpressionParser.parse(pattern, { tz, currentDate: new Date(from) }).next().getTime();
    } catch (error) {
      return error.message;
    }
  }),
};

async function answer(line) {
  const { id, command, ...args } = JSON.parse(line);
  try {
    if (!(command in COMMANDS)) throw new Error(`no command '${command}'`);
    const result = await COMMANDS[command](revive(args));
    say({ id, ok: true, result: show(result) ?? null });
  } catch (error) {
    say({ id, ok: false, error: { name: error.name, message: error.message } });
  }
}

const lines = createInterface({ input: process.stdin });
lines.on('line', answer);
// Whoever started us is gone or done: locks and lists are left as a crash would leave them.
lines.on('close', () => process.exit(0));
say({ event: 'ready', of: 'driver', args: [process.version] });
