// Hello world, the producer in Node.js: BullMQ adds a job that worker.py can run as well as worker.mjs.
//
//   node examples/hello/producer.mjs [address]        needs BullMQ: npm install --no-save bullmq@6.7

import { Queue } from "bullmq";

const url = process.env.TORIL_URL ?? "redis://localhost:6379";
const address = process.argv[2] ?? "umair@example.com";

const emails = new Queue("emails", { connection: { url } });
const job = await emails.add("send-email", { to: address, subject: "Hello world" });
console.log(`job ${job.id} added`);
await emails.close();
