// BullMQ for Node. Its documentation's advice: one connection per queue and worker, `addBulk` for many jobs, concurrency
// for processors that wait; ioredis with BullMQ's own settings, completed jobs kept, events on, as it comes. Plain functions
// in threads are its sandboxed processors with `useWorkerThreads`. Understands what `harness.py` does.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Tally } from './tally.mjs';

const require = createRequire(new URL('../../interop/package.json', import.meta.url));
const { FlowProducer, Queue, Worker } = require('bullmq');

const QUEUE = 'bench';
const AT_ONCE = 1000;

const [role, url, rest] = process.argv.slice(2);
const { hostname: host, port } = new URL(url);
const connection = { host, port: Number(port), maxRetriesPerRequest: null };
const say = (line) => process.stdout.write(JSON.stringify(line) + '\n');
const monotonic = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const dataOf = (job) => {
  const data = { t: job.stamp ? Number(process.hrtime.bigint()) : 0 };
  if (job.size) data.pad = 'x'.repeat(job.size);
  return data;
};

const optionsOf = (job, i) => {
  const options = {};
  if (job.priority) options.priority = (i % 10) + 1;
  if (job.due) options.delay = Math.max(1, Math.round(job.due * 1000 - Date.now()));
  if (job.attempts) options.attempts = job.attempts;
  return options;
};

async function produce() {
  const queue = new Queue(QUEUE, { connection });
  const flows = new FlowProducer({ connection });
  await queue.waitUntilReady();
  const add = (job, i) => queue.add(job.name ?? 'noop', dataOf(job), optionsOf(job, i));

  const acts = {
    async one(n, job) {
      for (let i = 0; i < n; i++) await add(job, i);
    },
    async many(n, job) {
      for (let start = 0; start < n; start += AT_ONCE) {
        const chunk = Array.from({ length: Math.min(AT_ONCE, n - start) }, (_, i) => add(job, i));
        await Promise.all(chunk);
      }
    },
    async bulk(n, job) {
      const most = job.size ? Math.max(1, Math.min(AT_ONCE, Math.floor(1_000_000 / job.size))) : AT_ONCE;
      for (let start = 0; start < n; start += most) {
        const jobs = Array.from({ length: Math.min(most, n - start) }, (_, i) => ({
          name: job.name ?? 'noop', data: dataOf(job), opts: optionsOf(job, i),
        }));
        await queue.addBulk(jobs);
      }
    },
    async flows(n, _job, { children }) {
      for (let i = 0; i < n; i++) {
        const leaves = Array.from({ length: children }, () => ({ name: 'noop', queueName: QUEUE, data: { t: 0 } }));
        await flows.add({ name: 'noop', queueName: QUEUE, data: { t: 0 }, children: leaves });
      }
    },
    async idle(n, _job, { gap }) {
      for (let i = 0; i < n; i++) {
        await add({ stamp: true }, i);
        await sleep(gap * 1000 * (0.5 + Math.random()));
      }
    },
    async pace(n, _job, { rate }) {
      const started = monotonic();
      const running = [];
      while (running.length < n) {
        const due = Math.min(n, Math.floor((monotonic() - started) * rate) + 1);
        while (running.length < due) running.push(add({ stamp: true }, running.length));
        await sleep(Math.max(0, (started + running.length / rate - monotonic()) * 1000));
      }
      await Promise.all(running);
    },
  };

  const version = (name) => require(`${name}/package.json`).version;
  say({
    missing: {},
    pending: ['wait', 'active', 'prioritized', 'delayed', 'waiting-children'].map((state) => `bull:${QUEUE}:${state}`),
    kept: `bull:${QUEUE}:completed`,
    versions: { node: process.version.slice(1), bullmq: version('bullmq'), ioredis: version('ioredis') },
  });
  // Ends when the runner does, whatever it is busy with.
  const lines = createInterface({ input: process.stdin }).on('close', () => process.exit(0));
  for await (const line of lines) {
    try {
      const command = JSON.parse(line);
      const { n, job = {}, warm } = command;
      const act = acts[command.do === 'fill' ? 'bulk' : command.do];
      const warmUp = warm ? Math.floor(n / 10) : 0;
      await act(warmUp, job, command);
      const started = monotonic();
      const cpu = process.cpuUsage();
      await act(n - warmUp, job, command);
      const used = process.cpuUsage(cpu);
      say({ started, seconds: monotonic() - started, cpu: (used.user + used.system) / 1e6, n: n - warmUp });
    } catch (error) {
      say({ error: String(error) });
    }
  }
  process.exit(0);
}

async function work() {
  const { tally: directory, concurrency, threads } = JSON.parse(rest);
  if (threads) {
    process.env.BENCH_TALLY = directory;
    const file = fileURLToPath(new URL('./bullmq_node_sync.cjs', import.meta.url));
    new Worker(QUEUE, file, { connection, concurrency: threads, useWorkerThreads: true });
    return;
  }
  const tally = new Tally(directory, String(process.pid));
  const seen = new Set();
  new Worker(QUEUE, async (job) => {
    tally.hit(job.data.t);
    if (job.name === 'fail_once' && !seen.has(job.id)) {
      seen.add(job.id);
      throw new Error('the first attempt fails');
    }
  }, { connection, concurrency });
}

if (role === 'producer') await produce();
else {
  // Ends when the runner does, however it ends.
  process.stdin.resume().on('end', () => process.exit(0));
  await work();
}
