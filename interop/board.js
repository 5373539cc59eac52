// bull-board, the dashboard that Node developers know, on queues of the caller's.
//
// The one argument is JSON: {connection, prefix, queues}. Says {url} on a line once it can be looked at, and ends when
// stdin does.

import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { HonoAdapter } from '@bull-board/hono';
import { serve } from '@hono/node-server';
import { serveStatic } from '@hono/node-server/serve-static';
import { Queue } from 'bullmq';
import { Hono } from 'hono';

const { connection, prefix, queues } = JSON.parse(process.argv[2]);

const serverAdapter = new HonoAdapter(serveStatic);
serverAdapter.setBasePath('/board');
createBullBoard({
  queues: queues.map((name) => new BullMQAdapter(new Queue(name, { connection, prefix }))),
  serverAdapter,
  options: { uiConfig: { pollingInterval: { forceInterval: 1, showSetting: false } } },
});

const app = new Hono();
app.route('/board', serverAdapter.registerPlugin());
serve({ fetch: app.fetch, hostname: '127.0.0.1', port: 0 }, ({ port }) => {
  process.stdout.write(JSON.stringify({ url: `http://127.0.0.1:${port}/board` }) + '\n');
});
process.stdin.on('end', () => process.exit(0)).resume();
