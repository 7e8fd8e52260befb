// Colours of labels by id, class or confidence, and the list of classes.

import { colorOf } from "./tiles.js";
import { find, make } from "./panels.js";

// Okabe and Ito's colours, which people with any colour vision can tell apart.
const CLASS_COLORS = [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [204, 121, 167], [213, 94, 0], [0, 114, 178], [190, 190, 190]];
const CONFIDENCE_STOPS = [[230, 97, 1], [253, 184, 99], [247, 247, 247], [178, 171, 210], [120, 94, 240]];
const UNKNOWN = [150, 150, 150];

export const classColor = (place) => (place > 0 ? CLASS_COLORS[(place - 1) % CLASS_COLORS.length] : UNKNOWN);

function confidenceColor(value) {
  const at = Math.min(0.9999, Math.max(0, value)) * (CONFIDENCE_STOPS.length - 1);
  const [low, high] = [CONFIDENCE_STOPS[Math.floor(at)], CONFIDENCE_STOPS[Math.floor(at) + 1]];
  return low.map((one, channel) => Math.round(one + (high[channel] - one) * (at % 1)));
}

export class ClassPanel {
  constructor(onColors, onChoose) {
    this.onColors = onColors;
    this.onChoose = onChoose;
    this.labels = null;
    this.objects = { columns: [], rows: [] };
    this.chosen = 1;
    find("color-by").addEventListener("change", () => this.tell());
  }

  get isPixels() {
    return this.labels?.pixels ?? false;
  }

  get value() { // value of the chosen class in files
    return this.labels?.classes[this.chosen]?.value ?? null;
  }

  name(place) {
    return this.labels?.classes[place]?.name ?? String(place);
  }

  show(labels) {
    const text = JSON.stringify(labels?.classes ?? []);
    const isSame = this.labels && JSON.stringify(this.labels.classes) === text && this.labels.pixels === labels?.pixels;
    this.labels = labels;
    const count = labels?.classes.length ?? 0;
    for (const option of find("color-by").options) {
      option.disabled = option.value === "class" ? count < 2 : this.isPixels;
    }
    if (find("color-by").selectedOptions[0].disabled || (this.isPixels && !isSame)) find("color-by").value = count > 1 ? "class" : "id";
    find("classes-row").hidden = count < 2;
    if (!isSame) {
      this.chosen = Math.min(Math.max(1, this.chosen), Math.max(1, count - 1));
      find("classes").replaceChildren(...(labels?.classes ?? []).slice(1).map((one, place) => this.makeEntry(one, place + 1)));
      this.tell();
    }
  }

  makeEntry(one, place) {
    const radio = make("input", { type: "radio", name: "class", value: place, checked: place === this.chosen });
    radio.addEventListener("change", () => { this.chosen = place; this.onChoose(place); });
    const spot = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    spot.setAttribute("viewBox", "0 0 12 12");
    const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    for (const [key, value] of Object.entries({ cx: 6, cy: 6, r: 5, fill: `rgb(${classColor(place).join(" ")})` })) dot.setAttribute(key, value);
    spot.append(dot);
    return make("label", { className: "check" }, radio, spot, make("span", { textContent: one.name }));
  }

  choose(place) {
    const radio = document.querySelector(`[name="class"][value="${place}"]`);
    if (radio) radio.click();
  }

  setObjects(objects) {
    this.objects = objects;
    if (find("color-by").value !== "id") this.tell();
  }

  tell() {
    const by = find("color-by").value;
    find("confidence-scale").hidden = by !== "confidence";
    const place = this.objects.columns.indexOf(by);
    const values = new Map(place < 0 ? [] : this.objects.rows.map((row) => [row[0], row[place]]));
    const colors = {
      id: colorOf,
      class: (label) => classColor(this.isPixels ? label : values.get(label) ?? 0),
      confidence: (label) => (values.get(label) == null ? UNKNOWN : confidenceColor(values.get(label))),
    };
    this.onColors(colors[by]);
  }
}
