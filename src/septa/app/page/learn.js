// Learning: trainings with their curves and pictures, images that are worth checking, and suspect labels.

import { read, send } from "./api.js";
import { find, make } from "./panels.js";

const SVG = "http://www.w3.org/2000/svg";
const PAUSE_MS = 1000;
const MOST_ROWS = 30;
const ACTIVE = ["waiting", "running"];
const STATES = {
  waiting: "waits", running: "training", interrupted: "interrupted", stopped: "stopped", failed: "failed", done: "done",
};
const KINDS = {
  missing: "an object is missing",
  extra: "there may be no object",
  merged: "several objects are drawn as one",
  split: "one object is drawn as several",
  outline: "the outline differs",
};

const SCORES = { model: "Model", f1: "F1", accuracy: "Accuracy", dice: "Dice", iou: "IoU" };

const percent = (share) => `${Math.round(share * 100)} %`;
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

export class LearnPanel {
  // host: { goTo(image, box), run(kind, path, body), reloadModels(), useModel(name), say(text) }
  constructor(host) {
    this.host = host;
    this.trainings = [];
    this.cards = new Map(); // number of a training -> its element, and the text that it shows
    this.isPolling = false;
    find("train").addEventListener("click", () => this.train());
    find("suggest").addEventListener("click", () => this.search("suggestions"));
    find("suspect").addEventListener("click", () => this.search("suspects"));
  }

  // --- what is checked, and the models ---------------------------------------------------------------------------

  showImages(images) {
    const whole = images.filter((one) => one.checked).length;
    const parts = images.filter((one) => !one.checked && one.areas).length;
    const texts = [];
    if (whole) texts.push(`${count(whole, "image")} checked`);
    if (parts) texts.push(`areas of ${count(parts, "image")} checked`);
    const few = whole + parts === 1 ? " With one image, only a strip of it can be held out: check more for scores that count." : "";
    find("learn-checked").textContent = texts.length
      ? `${texts.join(", ")}.${few}`
      : "Check images, or areas of them, whose labels are right. Then a model can learn from them.";
    this.hasChecked = texts.length > 0;
    find("train").disabled = !this.hasChecked;
  }

  showModels(models, current) {
    const options = models.map((one) => make("option", { value: one.name, textContent: one.name }));
    const start = find("learn-start");
    const chosen = start.options.length ? start.value : current;
    start.replaceChildren(...options, make("option", { value: "", textContent: "new weights (from scratch)" }));
    start.value = models.some((one) => one.name === chosen) ? chosen : (models[0]?.name ?? "");
    const names = new Set([...models.map((one) => one.name), ...this.trainings.map((one) => one.model)]);
    let number = 1;
    while (names.has(`trained-${number}.septa`)) number += 1;
    const name = find("learn-name");
    if (!name.value || names.has(`${name.value}.septa`)) name.value = `trained-${number}`;
  }

  // --- trainings -------------------------------------------------------------------------------------------------

  async train() {
    if (!find("learn-minutes").reportValidity() || !find("learn-name").reportValidity()) return;
    const body = { name: find("learn-name").value.trim(), minutes: Number(find("learn-minutes").value), model: find("learn-start").value || null };
    await this.ask(async () => {
      await send("/api/trainings", body);
      find("learn-name").value = "";
      await this.load();
      await this.host.reloadModels();
    });
  }

  async ask(work) {
    try {
      await work();
    } catch (error) {
      this.host.say(error.message);
    }
  }

  async load() {
    this.trainings = await read("/api/trainings");
    await this.show();
    if (!this.isPolling && this.trainings.some((one) => ACTIVE.includes(one.state))) this.poll();
  }

  async poll() {
    this.isPolling = true;
    try {
      while (this.trainings.some((one) => ACTIVE.includes(one.state))) {
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        const before = new Map(this.trainings.map((one) => [one.number, one.state]));
        this.trainings = await read("/api/trainings");
        await this.show();
        const ended = this.trainings.filter((one) => ACTIVE.includes(before.get(one.number)) && !ACTIVE.includes(one.state));
        if (ended.some((one) => one.state === "done")) await this.host.reloadModels();
      }
    } catch (error) {
      this.host.say(error.message);
    }
    this.isPolling = false;
  }

  async show() {
    for (const training of this.trainings) {
      const key = JSON.stringify(training);
      const card = this.cards.get(training.number);
      if (card?.key === key) continue;
      const whole = await read(`/api/trainings/${training.number}`);
      const element = this.makeCard(whole);
      const focused = card?.element.contains(document.activeElement) ? document.activeElement.dataset.action : null;
      if (card) card.element.replaceWith(element);
      else find("trainings").prepend(element);
      if (focused) element.querySelector(`[data-action="${focused}"]`)?.focus();
      this.cards.set(training.number, { key, element });
    }
    for (const [number, card] of this.cards) {
      if (this.trainings.some((one) => one.number === number)) continue;
      card.element.remove();
      this.cards.delete(number);
    }
  }

  makeCard(training) {
    const { number, state } = training;
    const from = training.start ? `from ${training.start}` : "from scratch";
    const head = make("p", {}, make("strong", { textContent: training.model }), ` ${from}, ${count(training.images.length, "image")}, ${training.minutes} min`);
    const parts = [head];
    if (ACTIVE.includes(state)) {
      const bar = make("progress", { max: 1, value: training.share, ariaLabel: `Progress of ${training.model}` });
      parts.push(make("p", {}, bar, " ", make("span", { className: "quiet", textContent: `${STATES[state]}: ${training.text}` })));
    } else if (state !== "done") parts.push(make("p", { className: "quiet", textContent: training.text || STATES[state] }));
    if (training.error) parts.push(make("p", { className: "problem", textContent: training.error }));
    if (training.curve.length) parts.push(drawCurve(training));
    if (training.previews) parts.push(makePreviews(training));
    if (state === "done") parts.push(...this.makeScores(training));
    if (training.lines.length) {
      const list = make("ul", { className: "notes" }, ...training.lines.map((line) => make("li", { textContent: line })));
      parts.push(make("details", {}, make("summary", { textContent: count(training.lines.length, "note") }), list));
    }
    const actions = [];
    if (state === "done") actions.push(["use", "Use this model"]);
    if (ACTIVE.includes(state)) actions.push(["stop", "Stop"]);
    if (["stopped", "failed", "interrupted"].includes(state)) actions.push(["resume", "Resume"]);
    if (state !== "running") actions.push(["remove", state === "done" ? "Hide" : "Remove"]);
    parts.push(make("p", { className: "row" }, ...actions.map(([action, text]) => {
      const button = make("button", { textContent: text, ariaLabel: `${text}: training of ${training.model}` });
      button.dataset.action = action;
      button.addEventListener("click", () => this.ask(async () => {
        if (action === "use") {
          await this.host.useModel(training.model);
          return;
        }
        await send(`/api/trainings/${number}/${action}`);
        await this.load();
      }));
      return button;
    })));
    const card = make("article", { className: "training" }, ...parts);
    card.dataset.state = state;
    card.dataset.model = training.model;
    return card;
  }

  makeScores(training) {
    const names = Object.keys(training.scores);
    const found = [make("p", { className: "quiet", textContent: training.comparison })];
    if (names.length) {
      const keys = "dice" in training.scores[names[0]] ? ["dice", "iou"] : ["f1", "accuracy"];
      const head = make("tr", {}, ...["model", ...keys].map((key) => make("th", { textContent: SCORES[key] })));
      const rows = names.map((name) => make("tr", {}, make("td", { textContent: name }),
        ...keys.map((key) => make("td", { textContent: training.scores[name][key].toFixed(3) }))));
      const table = make("table", { className: "scores" }, make("thead", {}, head), make("tbody", {}, ...rows));
      table.title = keys[0] === "dice" ? "Overlap of the classes other than background." : "Objects that are found. F1: at an overlap (IoU) of 0.5. Accuracy: mean over overlaps of 0.5 to 0.95.";
      found.unshift(table);
    }
    if (training.report) found.push(make("p", { className: "quiet", textContent: `Report: ${training.report}` }));
    return found;
  }

  // --- where to look ---------------------------------------------------------------------------------------------

  async search(kind) {
    const model = find("model").value;
    if (!model) {
      this.host.say("There is no model yet. Train one, or put a .septa file into the folder.");
      return;
    }
    await this.ask(() => this.host.run(`/api/${kind}`, { model }));
  }

  async showFound(kind) {
    if (kind === "suggest") this.showSuggestions(await read("/api/suggestions"));
    if (kind === "suspects") this.showSuspects(await read("/api/suspects"));
  }

  showSuggestions({ model, images, skipped }) {
    const rows = images.slice(0, MOST_ROWS).map((one) => {
      const [top, left, bottom, right] = one.box;
      const why = one.unlike ? "unlike the training images" : `doubt ${percent(one.doubt)}`;
      const isWhole = Math.max(bottom - top, right - left) < 256;
      const text = `${one.image}: ${why}${isWhole ? "" : `, most at x ${left} to ${right}, y ${top} to ${bottom}`}`;
      return this.makeLink(text, one.image, one.box);
    });
    find("suggestions").replaceChildren(...rows);
    const rest = images.length > rows.length ? `, ${images.length - rows.length} more are not shown` : "";
    find("suggest-text").textContent = model ? `${count(images.length, "unchecked image")} by the doubt of ${model}${rest}.${listSkipped(skipped)}` : "";
  }

  showSuspects({ model, images, f1, suspects, skipped }) {
    const rows = suspects.slice(0, MOST_ROWS).map((one) => this.makeLink(`${one.image}: ${KINDS[one.kind]} (${percent(one.certainty)})`, one.image, one.box));
    find("suspects").replaceChildren(...rows);
    if (!model) return;
    const doubt = f1 !== null && f1 < 0.7 ? ` ${model} agrees with few of the labels (F1 ${f1.toFixed(2)}), so it may be wrong more often than they are.` : "";
    const rest = suspects.length > rows.length ? ` ${suspects.length - rows.length} more are not shown.` : "";
    find("suspect-text").textContent = `${count(suspects.length, "suspect label")} in ${count(images, "image")}, by ${model}.${rest}${doubt}${listSkipped(skipped)}`;
  }

  makeLink(text, image, box) {
    const button = make("button", { className: "link", textContent: text });
    button.addEventListener("click", () => this.host.goTo(image, box));
    return make("li", {}, button);
  }
}

const listSkipped = (skipped) => (skipped.length ? ` Not looked at: ${skipped.join(" ")}` : "");

function makePreviews(training) {
  const pictures = Array.from({ length: training.previews }, (_, place) => {
    const step = training.curve.filter((row) => "score" in row).length;
    const name = training.validation[place] ?? `image ${place + 1}`;
    const picture = make("img", { src: `/api/trainings/${training.number}/previews/${place}?v=${step}`, alt: `${name}: checked labels at the left, those of the model at the right` });
    return make("figure", {}, picture, make("figcaption", { className: "quiet", textContent: name }));
  });
  const title = make("p", { className: "quiet", textContent: "Held-out images: checked labels, and those of the model now" });
  return make("div", { className: "previews" }, title, ...pictures);
}

// The loss on its own scale from 0, the validation score from 0 to 1.
function drawCurve({ curve }) {
  const losses = curve.filter((row) => "loss" in row);
  const scores = curve.filter((row) => "score" in row);
  const last = Math.max(1, curve[curve.length - 1].step);
  const top = Math.max(1e-9, ...losses.map((row) => row.loss));
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 288 90");
  const add = (tag, values, text = "") => {
    const element = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
    element.textContent = text;
    svg.append(element);
  };
  const x = (step) => (4 + (step / last) * 280).toFixed(1);
  const line = (rows, y) => rows.map((row) => `${x(row.step)},${y(row).toFixed(1)}`).join(" ");
  const ofLoss = (row) => 76 - (Math.min(row.loss, top) / top) * 70;
  const ofScore = (row) => 76 - Math.max(0, Math.min(1, row.score)) * 70;
  add("path", { d: "M4 6V76H284", class: "axis" });
  if (losses.length) add("polyline", { points: line(losses, ofLoss), class: "loss" });
  if (scores.length) add("polyline", { points: line(scores, ofScore), class: "score" });
  for (const row of scores) add("circle", { cx: x(row.step), cy: ofScore(row).toFixed(1), r: 2.5, class: "score" });
  add("text", { x: 4, y: 88 }, "step 0");
  add("text", { x: 284, y: 88, "text-anchor": "end" }, `step ${last}`);
  const loss = losses.length ? losses[losses.length - 1].loss.toPrecision(3) : "none yet";
  const score = scores.length ? scores[scores.length - 1].score.toFixed(3) : "none yet";
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Curve of the training up to step ${last}. Loss ${loss}, score of the held-out images ${score}.`);
  const caption = make("figcaption", { className: "quiet" }, make("span", { className: "key loss", textContent: `loss ${loss}` }), "  ", make("span", { className: "key score", textContent: `score of held-out images ${score}` }));
  return make("figure", { className: "curve" }, svg, caption);
}
