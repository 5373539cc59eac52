// Hello world, the worker in Node.js: BullMQ runs the jobs of producer.py as well as those of producer.mjs.
//
//   node examples/hello/worker.mjs        needs BullMQ: npm install --no-save bullmq@6.7

import { Worker } from "bullmq";

const url = process.env.TORIL_URL ?? "redis://localhost:6379";

async function sendEmail({ to, subject }) {
  await new Promise((resolve) => setTimeout(resolve, 100)); // as slow as a mail server
  return `'${subject}' sent to ${to}`;
}

const worker = new Worker("emails", (job) => sendEmail(job.data), { connection: { url } });

worker.on("ready", () => console.log("waiting for jobs; Ctrl-C to stop"));
worker.on("active", (job) => console.log(`job ${job.id} active: ${job.name}`));
worker.on("completed", (job, returnValue) => console.log(`job ${job.id} completed: ${returnValue}`));

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => worker.close());
}
