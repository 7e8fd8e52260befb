// The queue of predictions: what runs, what waits, and what has ended.

import { read, send } from "./api.js";
import { find, make } from "./panels.js";

const PAUSE_MS = 120;
const NAMES = { suggest: "Search for images to check", suspects: "Search for suspect labels" };

export const isActive = (job) => job.state === "waiting" || job.state === "running";

export class JobList {
  // host: { onChange(), onRunning(job), onEnd(job), say(text) }
  constructor(host) {
    this.host = host;
    this.jobs = [];
    this.isFollowing = false;
    this.rows = new Map(); // number of a job -> its element
  }

  get last() {
    return this.jobs[this.jobs.length - 1] ?? null;
  }

  get hasActive() {
    return this.jobs.some(isActive);
  }

  get running() {
    return this.jobs.find((job) => job.state === "running") ?? null;
  }

  find(kind, image = "") {
    return this.jobs.find((job) => job.kind === kind && job.image === image && isActive(job)) ?? null;
  }

  // Shows a job that was just ordered, and follows the queue until nothing is left in it.
  add(job) {
    this.jobs.push(job);
    this.show();
    this.follow();
  }

  async follow() {
    if (this.isFollowing) return;
    this.isFollowing = true;
    try {
      do {
        await this.load();
        if (this.hasActive) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      } while (this.hasActive);
    } catch (error) {
      this.host.say(error.message);
    }
    this.isFollowing = false;
  }

  async load() {
    const before = new Set(this.jobs.filter(isActive).map((job) => job.number));
    const known = this.last?.number ?? 0;
    const jobs = await read("/api/jobs");
    const added = this.jobs.filter((job) => job.number > known && !jobs.some((one) => one.number === job.number));
    this.jobs = [...jobs, ...added]; // one that was ordered meanwhile stays
    this.show();
    for (const job of this.jobs) {
      if (job.state === "running") await this.host.onRunning(job);
      else if (before.has(job.number) && !isActive(job)) await this.host.onEnd(job);
    }
  }

  cancel(job) {
    if (job) send(`/api/jobs/${job.number}/cancel`).catch((error) => this.host.say(error.message));
  }

  show() {
    const active = this.jobs.filter(isActive);
    for (const [number, row] of this.rows) {
      if (active.some((job) => job.number === number)) continue;
      row.remove();
      this.rows.delete(number);
    }
    for (const job of active) {
      if (!this.rows.has(job.number)) {
        this.rows.set(job.number, this.makeRow(job));
        find("jobs").append(this.rows.get(job.number));
      }
      const row = this.rows.get(job.number);
      row.querySelector("span").textContent = describe(job);
      row.querySelector("progress").value = job.share;
      row.querySelector("progress").hidden = job.state !== "running";
    }
    this.host.onChange();
  }

  makeRow(job) {
    const name = NAMES[job.kind] ?? job.image;
    const cancel = make("button", { textContent: "Cancel", title: "Cancel (Esc)", ariaLabel: `Cancel: ${name}` });
    cancel.addEventListener("click", () => this.cancel(this.jobs.find((one) => one.number === job.number)));
    const bar = make("progress", { max: 1, value: 0, ariaLabel: `Progress: ${name}` });
    return make("li", {}, make("span", { className: "quiet" }), bar, cancel);
  }
}

function describe(job) {
  const name = NAMES[job.kind] ?? job.image;
  if (job.state === "running") return `${name}: ${job.text || "starting"}`;
  return `${name}: waits, ${job.place === 1 ? "it is next" : `${job.place} are before it`}`;
}
