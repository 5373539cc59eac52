// The tally of `benchmarks/tally.py`, written from Node: once a turn of the event loop, not once a job.

import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const MOST_DELAYS = 200_000;

export class Tally {
  #count = 0;
  #delays = 0;
  #written = 0;
  #isDue = false;
  #header = Buffer.alloc(16);
  #words = Buffer.alloc(8 * MOST_DELAYS);
  #file;

  constructor(directory, name) {
    this.#file = openSync(join(directory, name), 'w+');
  }

  hit(sentNs) {
    this.#count++;
    if (sentNs && this.#delays < MOST_DELAYS) {
      const late = process.hrtime.bigint() - BigInt(sentNs);
      this.#words.writeBigUInt64LE(late > 0n ? late : 0n, 8 * this.#delays++);
    }
    if (!this.#isDue) {
      this.#isDue = true;
      setImmediate(() => this.#write());
    }
  }

  #write() {
    this.#isDue = false;
    if (this.#delays > this.#written) {
      writeSync(this.#file, this.#words, 8 * this.#written, 8 * (this.#delays - this.#written), 16 + 8 * this.#written);
      this.#written = this.#delays;
    }
    this.#header.writeBigUInt64LE(BigInt(this.#count), 0);
    this.#header.writeBigUInt64LE(BigInt(this.#written), 8);
    writeSync(this.#file, this.#header, 0, 16, 0);
  }
}
