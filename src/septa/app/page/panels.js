// The panels beside the image: channels, table and histogram of objects, list of images.

import { imagePath } from "./api.js";

export const find = (id) => document.getElementById(id);

export function make(tag, values = {}, ...children) {
  const element = Object.assign(document.createElement(tag), values);
  element.append(...children);
  return element;
}

const hexToRgb = (hex) => [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));

// --- channels ----------------------------------------------------------------------------------------------------

export class ChannelPanel {
  constructor(onChange) {
    this.onChange = onChange;
    this.channels = [];
    for (const id of ["gamma", "invert"]) find(id).addEventListener("input", () => this.tell());
    find("reset-look").addEventListener("click", () => this.open(this.picture));
  }

  open(picture, keepsLook = false) { // the pages of a stack keep the look of the one before
    const before = keepsLook && this.channels.length === picture.channels.length ? this.channels : null;
    this.picture = picture;
    if (!before) {
      find("gamma").value = 1;
      find("invert").checked = false;
    }
    this.channels = picture.channels.map((channel, place) => ({ ...channel, on: true, ...before?.[place] }));
    find("channels").replaceChildren(...this.channels.map((channel, place) => this.makeRow(channel, place)));
    this.tell();
  }

  makeRow(channel, place) {
    const top = this.picture.dtype === "uint8" ? 255 : Math.min(65535, Math.max(1, Math.ceil(channel.high * 2)));
    const value = (sample) => this.picture.offset + this.picture.scale * sample;
    const show = (sample) => Number(value(sample).toPrecision(4)).toString();
    const onBox = make("input", { type: "checkbox", checked: channel.on });
    const color = make("input", { type: "color", value: channel.color, ariaLabel: `Colour of channel ${channel.name}` });
    const name = this.picture.channels.length === 1 ? "Brightness" : `Channel ${channel.name}`;
    const head = make("div", { className: "row" }, make("label", { className: "check" }, onBox, make("span", { textContent: name })), color);
    onBox.addEventListener("input", () => { channel.on = onBox.checked; this.tell(); });
    color.addEventListener("input", () => { channel.color = color.value; this.tell(); });
    onBox.dataset.channel = place;
    const sliders = [["low", "Black from"], ["high", "Full from"]].map(([key, text]) => {
      const output = make("output", { textContent: show(channel[key]) });
      const slider = make("input", { type: "range", min: 0, max: top, step: top > 255 ? Math.max(1, Math.round(top / 1000)) : 1, value: channel[key] });
      slider.addEventListener("input", () => {
        channel[key] = Number(slider.value);
        output.textContent = show(channel[key]);
        this.tell();
      });
      return make("label", {}, `${text} `, output, slider);
    });
    return make("div", { className: "channel" }, head, ...sliders);
  }

  toggle(place) {
    const box = document.querySelector(`[data-channel="${place}"]`);
    if (box) box.click();
  }

  tell() {
    find("gamma-value").textContent = Number(find("gamma").value).toFixed(2);
    const channels = this.channels.map(({ on, color, low, high }) => ({ on, low, high, color: hexToRgb(color) }));
    this.onChange({ channels, gamma: Number(find("gamma").value), invert: find("invert").checked });
  }
}

// --- objects -----------------------------------------------------------------------------------------------------

const TITLES = {
  label: "Id", area: "Area", centroid_x: "x", centroid_y: "y", equivalent_diameter: "Diameter",
  eccentricity: "Eccentricity", class: "Class", confidence: "Confidence", area_um2: "Area µm²",
};
const MOST_ROWS = 500;

export class ObjectPanel {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.sortBy = 0;
    this.isDown = false;
    this.objects = { columns: [], rows: [] };
    this.nameOf = String; // name of the class at a place
    this.isPixels = () => false; // true if rows are classes of pixels
    this.selected = 0;
  }

  show(objects) {
    this.objects = objects;
    if (this.sortBy >= objects.columns.length) this.sortBy = 0;
    const heads = objects.columns.map((column, place) => {
      const arrow = place === this.sortBy ? (this.isDown ? " ↓" : " ↑") : "";
      const button = make("button", { textContent: `${TITLES[column] ?? column}${arrow}`, title: "Sort" });
      button.addEventListener("click", () => {
        this.isDown = place === this.sortBy ? !this.isDown : place !== 0;
        this.sortBy = place;
        this.show(this.objects);
      });
      return make("th", { ariaSort: place !== this.sortBy ? "none" : this.isDown ? "descending" : "ascending" }, button);
    });
    const sign = this.isDown ? -1 : 1;
    const rows = [...objects.rows].sort((a, b) => sign * ((a[this.sortBy] ?? 0) - (b[this.sortBy] ?? 0)));
    const shown = rows.slice(0, MOST_ROWS).map((row) => this.makeRow(row));
    document.querySelector("#table thead").replaceChildren(make("tr", {}, ...heads));
    document.querySelector("#table tbody").replaceChildren(...shown);
    const more = rows.length - shown.length;
    find("table-more").textContent = more > 0 ? `${more} more rows; the CSV file has all.` : "";
    this.drawHistogram();
  }

  makeRow(row) {
    const named = this.objects.columns.indexOf("class");
    const show = (value, place) => (place === named || (place === 0 && this.isPixels()) ? this.nameOf(value) : value === null ? "" : Number(value.toFixed(2)).toString());
    const cells = row.map((value, place) => make("td", { textContent: show(value, place) }));
    const element = make("tr", { tabIndex: 0, ariaSelected: String(row[0] === this.selected) }, ...cells);
    const choose = () => this.onChoose(row[0], row[this.objects.columns.indexOf("centroid_x")], row[this.objects.columns.indexOf("centroid_y")]);
    element.dataset.label = row[0];
    element.addEventListener("click", choose);
    element.addEventListener("keydown", (event) => {
      if (event.key === "Enter") choose();
    });
    return element;
  }

  select(label) {
    this.selected = label;
    for (const row of document.querySelectorAll("#table tbody tr")) {
      row.ariaSelected = String(Number(row.dataset.label) === label);
    }
  }

  drawHistogram() {
    const areas = this.objects.rows.map((row) => row[1]).sort((a, b) => a - b);
    const box = find("histogram");
    if (areas.length < 2) {
      box.replaceChildren();
      return;
    }
    const top = Math.max(areas[0] + 1, areas[Math.floor(areas.length * 0.99)] * 1.05);
    const bins = new Array(24).fill(0);
    for (const area of areas) bins[Math.min(23, Math.floor((area / top) * 24))] += 1;
    const highest = Math.max(...bins);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 288 76");
    const add = (tag, values, text = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
      element.textContent = text;
      svg.append(element);
    };
    bins.forEach((count, place) => {
      const height = (count / highest) * 58;
      if (count) add("rect", { x: place * 12 + 1, y: 60 - height, width: 10, height, rx: 1 });
    });
    add("text", { x: 0, y: 73 }, "0");
    add("text", { x: 288, y: 73, "text-anchor": "end" }, `${Math.round(top)} pixels`);
    add("text", { x: 144, y: 73, "text-anchor": "middle" }, "area");
    const median = areas[Math.floor(areas.length / 2)];
    box.ariaLabel = `Histogram of areas. The median is ${median} pixels, the largest ${areas[areas.length - 1]}.`;
    box.replaceChildren(svg);
  }
}

// --- images ------------------------------------------------------------------------------------------------------

export class ImageList {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.images = [];
    this.jobs = [];
    this.current = null;
  }

  // Marks the images of predictions that run or wait.
  showJobs(jobs) {
    const key = jobs.map(({ image, state, share }) => `${image} ${state} ${Math.round(100 * share)}`).join();
    if (key === this.key) return;
    this.key = key;
    this.jobs = jobs;
    document.querySelectorAll("#images button").forEach((button, place) => this.describe(button, this.images[place]));
  }

  show(images) {
    const isSame = images.length === this.images.length && images.every((one, place) => one.name === this.images[place].name);
    this.images = images;
    if (!isSame) find("images").replaceChildren(...images.map((one) => make("li", {}, this.makeEntry(one))));
    document.querySelectorAll("#images button").forEach((button, place) => this.describe(button, images[place]));
    const done = images.filter((one) => one.checked).length;
    find("progress-count").textContent = images.length ? `${done} of ${images.length} checked` : "";
  }

  makeEntry(one) {
    const picture = make("img", { src: `${imagePath(one.name)}/thumbnail`, alt: "", loading: "lazy" });
    picture.addEventListener("error", () => { picture.hidden = true; });
    const button = make("button", {}, picture, make("span", { className: "name", textContent: one.name, title: one.name }), make("span", { className: "state" }));
    button.addEventListener("click", () => this.onOpen(one.name));
    return button;
  }

  describe(button, one) {
    let text = "not segmented";
    if (one.labels) text = one.model ? "segmented" : "has labels";
    if (one.labels && one.corrections) text = "corrected";
    if (one.checked_pages) text = `✓ ${one.checked_pages} ${one.checked_pages === 1 ? "page" : "pages"} checked`;
    if (one.areas) text = `✓ ${one.areas} ${one.areas === 1 ? "area" : "areas"} checked`;
    if (one.checked) text = "✓ checked";
    const job = this.jobs.find(({ image }) => image === one.name || image.startsWith(`${one.name}#`));
    if (job) text = job.state === "running" ? `segmenting, ${Math.round(100 * job.share)} %` : "waits for segmentation";
    const state = button.querySelector(".state");
    state.textContent = text;
    state.classList.toggle("done", one.checked || one.checked_pages > 0 || one.areas > 0);
    button.ariaCurrent = String(one.name === this.current);
  }

  mark(name) {
    this.current = name;
    this.show(this.images);
    document.querySelector('#images [aria-current="true"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  step(by) {
    const place = this.images.findIndex((one) => one.name === this.current);
    const next = this.images[place + by];
    if (next) this.onOpen(next.name);
  }
}
