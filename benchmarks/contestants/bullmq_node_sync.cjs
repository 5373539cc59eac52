// A plain function, run by BullMQ in a thread of its own. Each thread has a tally.

const { threadId } = require('node:worker_threads');

const tally = import('./tally.mjs').then(
  ({ Tally }) => new Tally(process.env.BENCH_TALLY, `${process.pid}-${threadId}`),
);

module.exports = async (job) => {
  (await tally).hit(job.data.t);
};
