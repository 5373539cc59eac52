// The reference client's worker and producer, as processes of their own: the same load, the same ledger as
// chaos/worker.py and chaos/producer.py. `node interop/chaos.js worker|producer OPTIONS`.
//
// Settings are those that its documentation asks for: a worker's connection has no limit of retries
// (maxRetriesPerRequest null), errors are listened to, signals close the worker.

import { appendFileSync } from 'node:fs';

const [role, json] = process.argv.slice(2);
const options = JSON.parse(json);
// `bullmq`, or `bullmq5` for the last version before 6.
const { FlowProducer, Queue, Worker } = await import(options.package ?? 'bullmq');
const { hostname: host, port, password } = new URL(options.url);
const path = `${options.ledger}/${role}-${process.pid}.jsonl`;
// The monotonic clock, which all processes of a machine share.
const now = () => Number(process.hrtime.bigint()) / 1e9;
const write = (e, facts) => appendFileSync(path, JSON.stringify({ e, t: now(), ...facts }) + '\n');
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const pid = process.pid;

function block(seconds) {
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end);
}

/** Numbers that look random and are the same for the same seed. */
function randomFrom(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return state / 4294967296;
  };
}

/** One worker; `pid` is what the ledger calls it. */
function workerOf(pid) {
  let hasBegun = false;
  const worker = new Worker(options.queue, async (job) => {
    const run = job.attemptsStarted;
    if (options.terse) {
      if (!hasBegun) write('first', { pid });
      hasBegun = true;
      return null;
    }
    write('start', { id: job.id, run, pid });
    if (job.data.pill) process.exit(1);
    if (job.data.block) block(job.data.block);
    await sleep(job.data.ms ?? 0);
    if (job.attemptsMade < (job.data.fails ?? 0)) {
      write('end', { id: job.id, run, pid, failed: true });
      throw new Error('this attempt is to fail');
    }
    write('end', { id: job.id, run, pid });
    return `${pid}:${run}`;
  }, {
    connection: { host, port: Number(port), password: password || undefined, maxRetriesPerRequest: null },
    concurrency: options.concurrency,
    lockDuration: options.lock_duration * 1000,
    stalledInterval: options.stalled_interval * 1000,
    maxStalledCount: options.max_stalled_count,
    drainDelay: options.drain_delay,
    ...(options.limiter && { limiter: { max: options.limiter[0], duration: options.limiter[1] * 1000 } }),
  });
  worker.on('error', (error) => write('error', { pid, what: error.name }));
  worker.on('ready', () => write('ready', { pid }));
  return worker;
}

async function work() {
  const objects = options.objects ?? 1;
  const workers = Array.from({ length: objects }, (_, at) => workerOf(objects === 1 ? pid : pid * 1000 + at));
  // Close waits for running jobs; the grace is the caller's, so it ends here.
  const stop = async () => {
    await Promise.race([Promise.all(workers.map((worker) => worker.close())), sleep(options.grace * 1000)]);
    write('stopped', { pid });
    process.exit(0);
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
}

async function produce() {
  const connection = { host, port: Number(port), password: password || undefined };
  const queue = new Queue(options.queue, { connection });
  const flows = new FlowProducer({ connection });
  queue.on('error', () => {});
  flows.on('error', () => {});
  const random = randomFrom(options.seed);
  let isOver = false;
  process.on('SIGTERM', () => { isOver = true; });

  async function add(number) {
    const [low, high] = options.ms ?? [2, 30];
    const data = { n: number, ms: low + random() * (high - low), pad: 'x'.repeat(140) };
    const id = `${options.tag ?? 'j'}-${number}`;
    const opts = { jobId: id };
    if (number % 10 === 3) opts.delay = Math.round(random() * 2000);
    else if (number % 10 === 5) opts.priority = 1 + Math.floor(random() * 100);
    else if (number % 10 === 7) {
      data.fails = 1;
      opts.attempts = 3;
      opts.backoff = { type: 'fixed', delay: 50 };
    }
    if (options.keep) opts.removeOnComplete = options.keep;
    if (options.block_every && number % options.block_every === 0) data.block = options.block;
    const children = number % (options.flow_every ?? 20) === 1 ? ['a', 'b', 'c'].map((letter) => `${id}-${letter}`) : [];
    const { keep } = options;
    write('sent', { id, delay: (opts.delay ?? 0) / 1000, fails: data.fails ?? 0, keep });
    for (const child of children) write('sent', { id: child, delay: 0, fails: 0, keep });
    for (;;) {
      try {
        if (children.length) {
          await flows.add({
            name: 'work', queueName: options.queue, data, opts,
            children: children.map((jobId) => (
              { name: 'work', queueName: options.queue, data: { ms: 2 }, opts: { ...(keep && { removeOnComplete: keep }), jobId } })),
          });
        } else await queue.add('work', data, opts);
        for (const one of [id, ...children]) write('acked', { id: one });
        return;
      } catch (error) {
        write('again', { id, why: String(error.message).slice(0, 200) });
        await sleep(50 + random() * 100);
      }
    }
  }

  // By the clock that nobody turns, or a producer whose own clock jumps would add an hour's jobs at once.
  const began = now() * 1000;
  const running = new Set();
  let number = 0;
  while (!isOver || number < (options.count ?? 0)) {
    number += 1;
    const wait = began + (number * 1000) / options.rate - now() * 1000;
    if (wait > 0) await sleep(wait);
    while (running.size >= 200) await Promise.race(running);
    const one = add(number).finally(() => running.delete(one));
    running.add(one);
  }
  await Promise.all(running);
  write('done', { count: number });
  process.exit(0);
}

await (role === 'worker' ? work() : produce());
