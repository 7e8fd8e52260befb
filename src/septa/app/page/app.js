// The page: joins the view, the tools and the panels with the server.

import { imagePath, openSession, read, send } from "./api.js";
import { ClassPanel } from "./classes.js";
import { DropZone } from "./drop.js";
import { JobList, isActive } from "./jobs.js";
import { PageSlider } from "./pages.js";
import { ChannelPanel, ImageList, ObjectPanel, find, make } from "./panels.js";
import { LearnPanel } from "./learn.js";
import { TOOLS, Toolbox } from "./tools.js";
import { Viewer, boundArea } from "./viewer.js";

const EXPORTS = ["labels", "csv", "geojson", "coco", "rois", "zarr"];
const PAUSE_MS = 3000; // between two looks at what other windows have changed
// versions: name of an image -> version of the labels that this window has seen
const state = { picture: null, labels: null, selected: 0, requests: Promise.resolve(), waiting: 0, opening: 0, waits: null, isLost: false, folder: null, versions: new Map() };
window.septa = { state }; // for the browser test and the curious

// --- messages ----------------------------------------------------------------------------------------------------

function say(text) {
  find("message").hidden = !text;
  find("message").firstElementChild.textContent = text;
}

const fail = (error) => say(error.message);
find("message-close").addEventListener("click", () => say(""));

function hint() {
  let text = "";
  if (state.waits) text = `Opening ${state.waits}…`;
  else if (!images.images.length) text = "This folder has no images yet. Drop some here, or press Add images.";
  else if (!state.picture) text = "Choose an image in the list.";
  else if (!find("model").options.length && !state.labels?.count) {
    text = "There is no model yet: put a .septa file into the folder, or draw objects with the Brush.";
  } else if (state.labels && !state.labels.count && !isLocked()) text = "Press Segment, or the key S, to find the objects.";
  find("hint").textContent = text;
}

// --- parts -------------------------------------------------------------------------------------------------------

const host = {
  get viewer() { return viewer; },
  get selected() { return state.selected; },
  get nextLabel() { return (state.labels?.count ?? 0) + 1; },
  get radius() { return Number(find("radius").value); },
  get paints() { return classes.isPixels ? classes.chosen : state.selected; },
  get classValue() { return classes.value; },
  get over() { return find("over").checked; },
  get canEdit() { return state.labels !== null && !isLocked(); },
  labelAt: (point) => viewer.lookUp(point)?.label ?? 0,
  select,
  say,
  edit: (request) => change("edit", request),
  checkArea,
};
const toolbox = new Toolbox(host);
const viewer = new Viewer(find("view"), { onError: fail, onHover: hover, onTool: toolbox });
const channels = new ChannelPanel((look) => viewer.setLook(look));
const classes = new ClassPanel(
  (colorFor) => viewer.setLabelLook({ colorFor, isPixels: classes?.isPixels ?? false }),
  (place) => classes.isPixels && select(place),
);
const pages = new PageSlider((name, keepsPlace) => openImage(name, keepsPlace));
const objects = new ObjectPanel((label, x, y) => {
  select(label);
  viewer.show([x + 0.5, y + 0.5]);
});
objects.isPixels = () => classes.isPixels;
objects.nameOf = (place) => (place > 0 ? classes.name(place) : "");
const images = new ImageList((name) => openImage(name));
new DropZone(async (names, errors) => {
  await refreshImages().catch(fail);
  if (names.length) await openImage(names[0]);
  const more = errors.length > 1 ? ` (${errors.length - 1} more were not added)` : "";
  if (errors.length) say(errors[0] + more);
});
const learn = new LearnPanel({ goTo, run: runSearch, reloadModels, useModel, say });
const jobs = new JobList({ onChange: update, onRunning: showPreview, onEnd: endJob, say });
Object.assign(window.septa, { viewer, toolbox, objects, images, jobs });

function hover(point) {
  const found = point && state.picture ? viewer.lookUp(point) : null;
  if (!found) {
    find("readout").textContent = "";
    return;
  }
  const { offset, scale } = state.picture;
  const values = found.samples?.map((sample) => Number((offset + scale * sample).toPrecision(5))).join(", ") ?? "";
  const object = !found.label ? "" : classes.isPixels ? `   ${classes.name(found.label)}` : `   object ${found.label}`;
  find("readout").textContent = `x ${Math.floor(point[0])}  y ${Math.floor(point[1])}   ${values}${object}`;
}

function select(label) {
  if (classes.isPixels) {
    if (label && label !== classes.chosen) classes.choose(label);
    label = 0;
  }
  state.selected = label;
  viewer.setLabelLook({ selected: label });
  objects.select(label);
  const row = objects.objects.rows.find((one) => one[0] === label);
  const place = row?.[objects.objects.columns.indexOf("class")];
  find("selected").textContent = label ? `Object ${label}${place ? ` (${classes.name(place)})` : ""} is selected` : "No object is selected";
}

// --- images ------------------------------------------------------------------------------------------------------

async function openImage(name, keepsPlace = false) {
  const number = ++state.opening;
  say("");
  toolbox.cancel();
  const slow = setTimeout(() => { state.waits = name; hint(); }, 400);
  try {
    let picture = await read(imagePath(name));
    // A change of this image may have been answered meanwhile.
    if (picture.labels && picture.labels.version < (state.versions.get(picture.name) ?? 0)) picture = await read(imagePath(name));
    if (number !== state.opening) return; // another one was opened meanwhile
    state.picture = picture;
    state.labels = null;
    classes.show(picture.labels);
    select(0);
    images.mark(picture.file);
    pages.show(picture);
    viewer.open(picture, keepsPlace);
    channels.open(picture, keepsPlace);
    for (const kind of EXPORTS) find(`export-${kind}`).href = `${imagePath(picture.name)}/export/${kind}`;
    find("notes").replaceChildren();
    if (picture.labels) showLabels(picture.labels);
    else {
      clearLabels();
      if (!picture.can_cut) say(picture.problem);
    }
    location.hash = encodeURIComponent(picture.name);
  } catch (error) {
    if (number === state.opening) {
      state.picture = state.labels = null;
      images.mark(name.replace(/(#image\d+)?(#\d+)?$/, ""));
      pages.show(null);
      viewer.close();
      clearLabels();
      fail(error);
    }
  }
  clearTimeout(slow);
  state.waits = null;
  update();
}

function clearLabels() {
  objects.show({ columns: [], rows: [] });
  find("count").textContent = find("label-file").textContent = "";
  find("to-learn").hidden = true;
}

async function refreshImages() {
  images.show(await read("/api/images"));
  learn.showImages(images.images);
  images.mark(state.picture?.file ?? images.current);
}

// --- labels ------------------------------------------------------------------------------------------------------

function showLabels(labels) {
  if (state.labels && labels.version < state.labels.version) return; // a newer answer has overtaken this one
  const isNew = state.labels?.version !== labels.version;
  state.versions.set(state.picture.name, labels.version);
  state.labels = labels;
  classes.show(labels);
  if (isNew) {
    viewer.setLabels(labels.version);
    refreshObjects();
  }
  find("count").textContent = `${labels.count}`;
  find("checked").checked = labels.checked;
  const { areas } = labels;
  viewer.areas = labels.checked ? [] : areas;
  viewer.draw();
  find("areas").textContent = areas.length && !labels.checked ? `${areas.length} ${areas.length === 1 ? "area is" : "areas are"} checked. The rest of the image is ignored in a training.` : "";
  find("to-learn").hidden = !labels.checked && !areas.length;
  const isThere = labels.count || labels.can_undo || labels.checked || areas.length;
  find("label-file").textContent = `${isThere ? "Saved to" : "Labels will be saved to"} ${labels.file}${labels.corrections ? `, ${labels.corrections} ${labels.corrections === 1 ? "correction" : "corrections"}` : ""}.`;
  find("save-problem").hidden = !labels.error;
  find("save-problem").firstElementChild.textContent = labels.error;
  for (const id of ["overwrite", "reload"]) find(id).hidden = !labels.replaceable;
  showThresholds(labels.decoding);
  update();
  if (labels.version !== labels.saved_version && !labels.error) setTimeout(pollSaved, 120);
}

async function pollSaved() {
  const name = state.picture?.name;
  if (!name || !state.labels) return;
  try {
    const labels = await read(`${imagePath(name)}/labels`);
    if (state.picture?.name === name) showLabels(labels);
    if (labels.version === labels.saved_version) await refreshImages();
  } catch (error) {
    fail(error);
  }
}

let objectsWanted = false;
async function refreshObjects() {
  if (objectsWanted) return; // one request at a time, the last state wins
  objectsWanted = true;
  await new Promise((resolve) => setTimeout(resolve, 80));
  objectsWanted = false;
  const name = state.picture?.name;
  if (!name || !state.labels) return;
  try {
    const found = await read(`${imagePath(name)}/objects`);
    if (state.picture?.name === name) {
      objects.show(found);
      classes.setObjects(found);
      objects.select(state.selected);
    }
  } catch (error) {
    fail(error);
  }
}

// Sends one change after the other; asks before corrections are replaced. Each says which labels the page shows, so
// that nothing is done to labels that another window has changed meanwhile.
function change(action, body = {}) {
  const name = state.picture?.name;
  if (!name || isLocked()) return Promise.resolve();
  state.waiting += 1;
  state.requests = state.requests.then(async () => {
    try {
      const request = () => ({ ...body, base: state.versions.get(name) });
      let answer;
      try {
        answer = await send(`${imagePath(name)}/${action}`, request());
      } catch (error) {
        if (!error.confirm || !(await confirm(error.message))) throw error.confirm ? new Error("") : error;
        answer = await send(`${imagePath(name)}/${action}`, { ...request(), replace: true });
      }
      if (action === "segment") jobs.add(answer);
      else state.versions.set(name, answer.version);
      if (state.picture?.name !== name) return;
      say("");
      if (action !== "segment") {
        if (action === "edit") select(answer.label ?? 0);
        else if (action !== "check") select(0);
        showLabels(answer);
      }
      if (answer.kept) say(`The old file was copied to ${answer.kept}.`);
      if (action === "check") await refreshImages();
    } catch (error) {
      if (error.message) fail(error);
      if (error.stale && state.picture?.name === name) await refreshLabels();
      if (state.labels) showLabels(state.labels);
    } finally {
      state.waiting -= 1;
      if (action === "edit" && !toolbox.isDown && !toolbox.points) {
        viewer.stroke = null;
        viewer.draw();
      }
    }
  });
  return state.requests;
}

// Shows the labels of the server, if they are others than those on the page.
async function refreshLabels() {
  const name = state.picture?.name;
  if (!name || !state.labels) return;
  const labels = await read(`${imagePath(name)}/labels`);
  if (state.picture?.name !== name || !state.labels || labels.version <= state.labels.version) return;
  select(0);
  showLabels(labels);
  await refreshImages();
}

function confirm(text) {
  const dialog = find("confirm");
  dialog.querySelector("p").textContent = text.charAt(0).toUpperCase() + text.slice(1);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

for (const dialog of document.querySelectorAll("dialog")) {
  for (const button of dialog.querySelectorAll("button")) button.addEventListener("click", () => dialog.close(button.value));
}

// --- segmentation ------------------------------------------------------------------------------------------------

// The labels of an image that is segmented, or waits for it, are about to be replaced.
const isLocked = () => state.picture !== null && jobs.find("segment", state.picture.name) !== null;

async function segment() {
  if (find("segment").disabled) return;
  if (state.picture.can_cut) await cut();
  if (state.labels) change("segment", { model: find("model").value, visible: viewer.visible });
}

// Saves the visible part of a large image as an image of its own, and opens it.
async function cut() {
  try {
    const { name } = await send(`${imagePath(state.picture.name)}/cut`, { box: viewer.visible });
    await refreshImages();
    await openImage(name);
  } catch (error) {
    fail(error);
  }
}

async function showPreview(job) {
  if (job.kind !== "segment" || !state.labels || job.image !== state.picture?.name) return;
  viewer.setLabels((await read(`${imagePath(job.image)}/labels`)).version); // the visible part comes first
}

async function endJob(job) {
  if (job.state === "failed") say(job.error);
  if (job.kind !== "segment") {
    await learn.showFound(job.kind);
    return;
  }
  if (state.picture?.name === job.image && state.labels) {
    const lines = job.state === "done" ? job.lines : [];
    find("notes").replaceChildren(...lines.map((line) => make("li", { textContent: line })));
    select(0);
    showLabels(await read(`${imagePath(job.image)}/labels`));
  }
  await refreshImages();
}

async function runSearch(path, body) {
  jobs.add(await send(path, body));
}

async function goTo(name, box) {
  if (state.picture?.name !== name) await openImage(name);
  if (state.picture?.name === name) viewer.showBox(box);
  find("view").focus({ preventScroll: true });
}

// A drag checks a rectangle; a click takes away the mark of the one that it hits.
function checkArea(from, to) {
  const isClick = Math.hypot(to[0] - from[0], to[1] - from[1]) * viewer.scale < 6;
  if (!isClick) {
    change("check", { checked: true, area: boundArea(from, to) });
    return;
  }
  const [x, y] = from;
  const hit = state.labels.areas.find(([top, left, bottom, right]) => x >= left && x < right && y >= top && y < bottom);
  if (hit) change("check", { checked: false, area: hit });
  else say("Drag a rectangle, or click inside a checked one to take its mark away.");
}

// Cancels the segmentation of the image that is shown, else what runs.
function cancelJob() {
  jobs.cancel(jobs.find("segment", state.picture?.name) ?? jobs.running);
}

const THRESHOLDS = ["foreground", "seed", "least_pixels", "confidence"];

function showThresholds(decoding) {
  find("thresholds").disabled = !decoding;
  find("thresholds-hint").hidden = Boolean(decoding);
  if (!decoding) {
    for (const id of THRESHOLDS) find(`${id}-value`).textContent = "";
    return;
  }
  if (decodeWanted || isDecoding) return; // the slider is being moved
  for (const id of THRESHOLDS) {
    find(id).value = decoding.used[id];
    find(`${id}-value`).textContent = Number(decoding.used[id].toFixed(3));
  }
}

let isDecoding = false;
let decodeWanted = false;

async function decode() {
  decodeWanted = true;
  if (isDecoding) return;
  isDecoding = true;
  while (decodeWanted) {
    decodeWanted = false;
    const body = Object.fromEntries(THRESHOLDS.map((id) => [id, Number(find(id).value)]));
    await change("decode", body);
  }
  isDecoding = false;
  if (state.labels) showThresholds(state.labels.decoding);
}

for (const id of THRESHOLDS) {
  find(id).addEventListener("input", () => {
    find(`${id}-value`).textContent = find(id).value;
    decode();
  });
}
find("reset-thresholds").addEventListener("click", () => change("decode", {}));
find("segment").addEventListener("click", segment);
find("model").addEventListener("change", showModel);

async function reloadModels() {
  const models = await read("/api/models");
  const chosen = find("model").value;
  find("model").replaceChildren(...models.map((one) => {
    const { scores } = one;
    const score = scores && (scores.f1 === null ? `Dice ${scores.dice.toFixed(2)}` : `F1 ${scores.f1.toFixed(2)}`);
    const option = make("option", { value: one.name, textContent: scores ? `${one.name} (${score})` : one.name });
    const held = scores ? `${score} on ${scores.images} held-out ${scores.images === 1 ? "image" : "images"}` : "";
    option.dataset.summary = [one.summary, held].filter(Boolean).join("; ");
    return option;
  }));
  if (models.some((one) => one.name === chosen)) find("model").value = chosen;
  showModel();
  learn.showModels(models, find("model").value);
  update();
}

// Chooses a model, and shows where it is used.
async function useModel(name) {
  await reloadModels();
  if (![...find("model").options].some((one) => one.value === name)) throw new Error(`${name} is not in the folder any more.`);
  find("model").value = name;
  showModel();
  find("segment-panel").scrollIntoView();
  find("segment").focus();
}

find("to-learn").addEventListener("click", () => {
  find("learn-panel").scrollIntoView();
  find("train").focus({ preventScroll: true });
});

function showModel() {
  find("model-summary").textContent = find("model").selectedOptions[0]?.dataset.summary ?? "";
}

// --- state of the controls -----------------------------------------------------------------------------------------

function update() {
  const { labels } = state;
  const isLarge = state.picture?.can_cut ?? false;
  find("cut-row").hidden = !isLarge;
  find("segment").disabled = !(labels || isLarge) || isLocked() || !find("model").options.length;
  images.showJobs(jobs.jobs.filter(isActive));
  find("undo").disabled = !labels?.can_undo || isLocked();
  find("redo").disabled = !labels?.can_redo || isLocked();
  find("checked").disabled = !labels || isLocked();
  const hasModel = find("model").options.length > 0;
  find("suggest").disabled = !hasModel || jobs.find("suggest") !== null;
  find("suspect").disabled = !hasModel || jobs.find("suspects") !== null;
  const saved = find("saved");
  saved.classList.toggle("bad", Boolean(labels?.error));
  saved.textContent = !labels ? "" : labels.error ? "Not saved" : labels.version !== labels.saved_version ? "Saving…" : labels.count || labels.can_undo ? "Saved" : "";
  for (const kind of EXPORTS) find(`export-${kind}`).ariaDisabled = String(!labels);
  find("export-model").ariaDisabled = String(!find("model").options.length);
  showTools();
  hint();
}

// --- tools, labels, look -------------------------------------------------------------------------------------------

const OBJECT_TOOLS = ["split", "merge", "delete"];

function canUse(id) {
  if (classes.isPixels) return !OBJECT_TOOLS.includes(id) && id !== "class";
  return id !== "class" || (state.labels?.classes.length ?? 0) > 1;
}

function showTools() {
  for (const button of find("tools").children) button.hidden = !canUse(button.dataset.tool);
  if (!canUse(toolbox.tool.id)) chooseTool("select");
  find("objects-title").textContent = classes.isPixels ? "Classes" : "Objects";
  find("selected-row").hidden = classes.isPixels;
  find("over-row").hidden = classes.isPixels || !["brush", "polygon"].includes(toolbox.tool.id);
  find("classes-text").textContent = classes.isPixels ? "Brush, Polygon and Fill paint the chosen class." : "The tool Class gives the chosen class to objects.";
}

function chooseTool(id) {
  if (!canUse(id)) return;
  toolbox.choose(id);
  const { tool } = toolbox;
  for (const button of find("tools").children) button.ariaPressed = String(button.dataset.tool === id);
  find("tool-name").textContent = tool.name;
  find("tool-text").textContent = tool.text;
  find("radius-row").hidden = !["brush", "eraser"].includes(id);
  find("over-row").hidden = classes.isPixels || !["brush", "polygon"].includes(id);
  find("view").classList.toggle("draw", id !== "select");
}

for (const tool of TOOLS) {
  const button = make("button", { textContent: tool.name, title: `${tool.text} (${tool.key})` });
  button.dataset.tool = tool.id;
  button.addEventListener("click", () => chooseTool(tool.id));
  find("tools").append(button);
}
chooseTool("select");

function showRadius() {
  find("radius-value").textContent = find("radius").value;
}
find("radius").addEventListener("input", showRadius);
showRadius();
find("new-object").addEventListener("click", newObject);
function newObject() {
  select(0);
  if (!["brush", "polygon"].includes(toolbox.tool.id)) chooseTool("brush");
}

for (const radio of document.querySelectorAll('[name="style"]')) {
  radio.addEventListener("change", () => viewer.setLabelLook({ style: radio.value }));
}
find("opacity").addEventListener("input", () => viewer.setLabelLook({ opacity: Number(find("opacity").value) }));
find("checked").addEventListener("change", () => change("check", { checked: find("checked").checked }));
find("undo").addEventListener("click", () => change("undo"));
find("redo").addEventListener("click", () => change("redo"));
find("overwrite").addEventListener("click", () => change("overwrite"));
find("reload").addEventListener("click", () => change("reload"));
find("cut").addEventListener("click", cut);
find("zoom-in").addEventListener("click", () => viewer.zoomBy(1.5));
find("zoom-out").addEventListener("click", () => viewer.zoomBy(1 / 1.5));
find("zoom-one").addEventListener("click", () => viewer.setScale(1));
find("zoom-fit").addEventListener("click", () => state.picture && viewer.fit());
for (const kind of [...EXPORTS, "model"]) {
  find(`export-${kind}`).addEventListener("click", async (event) => {
    event.preventDefault();
    if (kind === "model" ? !find("model").options.length : !state.labels) return;
    try { // the file is asked for first, so that an error becomes a line and not a page
      const response = await fetch(kind === "model" ? `/api/models/${encodeURIComponent(find("model").value)}/file` : find(`export-${kind}`).href);
      if (!response.ok) throw new Error((await response.json()).error);
      const name = decodeURIComponent(response.headers.get("Content-Disposition").split("''")[1]);
      const link = make("a", { href: URL.createObjectURL(await response.blob()), download: name });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      fail(error);
    }
  });
}
find("training-folder").addEventListener("click", async () => {
  try {
    const { path, images: names, ignore } = await send("/api/training-folder");
    const setting = ignore === null ? "" : ` --set data.ignore_label=${ignore}`;
    find("training-text").textContent = `${names.length} ${names.length === 1 ? "image" : "images"} in ${path}. Next: septa train ${path}${setting}`;
  } catch (error) {
    fail(error);
  }
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("septa-theme", theme);
  } catch { /* the browser keeps nothing */ }
}
function flipTheme() {
  const isDark = getComputedStyle(document.documentElement).colorScheme === "dark";
  setTheme(isDark ? "light" : "dark");
}
try {
  const theme = localStorage.getItem("septa-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch { /* the browser keeps nothing */ }
find("theme").addEventListener("click", flipTheme);

// --- keys --------------------------------------------------------------------------------------------------------

const OTHER_KEYS = [
  ["S", "Segment with the chosen model"], ["U", "Suggest which image to check next"], ["Esc", "Cancel the stroke, clear the selection, or cancel what runs"],
  ["N", "New object with the next stroke"], ["Delete", "Delete the selected object"],
  ["Ctrl+Z, Ctrl+Shift+Z", "Undo, redo"], ["[ ]", "Smaller or larger brush"], ["Page Up, Page Down", "Previous or next image"],
  [", .", "Page before, next page of a stack"], ["C", "Mark the labels as checked"], ["L", "Outlines, fills or no labels"], ["I", "Invert the image"], ["Alt+1 to Alt+9", "Channels on or off"],
  ["+ − 0 1", "Zoom in, zoom out, whole image, one to one"], ["Arrows", "Move the image"],
  ["Shift+arrows", "Move the cursor"], ["Enter", "Use the tool at the cursor: click, begin or end a stroke, set a corner"],
  ["Space and drag", "Move the image with any tool"], ["T", "Light or dark"], ["?", "This list"],
];

function showKeys() {
  const rows = [...TOOLS.map((tool) => [tool.key, `${tool.name}: ${tool.text}`]), ...OTHER_KEYS];
  document.querySelector("#keys dl").replaceChildren(
    ...rows.flatMap(([key, text]) => [make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: text })]),
  );
  find("keys").showModal();
  find("keys").scrollTop = 0; // the focus on its button has scrolled it
}
find("help").addEventListener("click", showKeys);

function nextStyle() {
  const radios = [...document.querySelectorAll('[name="style"]')];
  radios[(radios.findIndex((radio) => radio.checked) + 1) % radios.length].click();
}

function changeRadius(by) {
  find("radius").value = Number(find("radius").value) + by;
  showRadius();
}

function escape() {
  if (toolbox.points) toolbox.cancel();
  else if (!isLocked() && (state.selected || viewer.cursor)) {
    select(0);
    viewer.cursor = null;
    viewer.draw();
  } else cancelJob();
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const KEYS = {
  s: segment, u: () => !find("suggest").disabled && learn.search("suggestions"), escape, n: newObject, "[": () => changeRadius(-1), "]": () => changeRadius(1), l: nextStyle,
  i: () => find("invert").click(), c: () => !find("checked").disabled && find("checked").click(), t: flipTheme, "?": showKeys,
  "+": () => viewer.zoomBy(1.25), "=": () => viewer.zoomBy(1.25), "-": () => viewer.zoomBy(0.8),
  0: () => state.picture && viewer.fit(), 1: () => viewer.setScale(1),
  ",": () => pages.step(-1), ".": () => pages.step(1),
  pageup: () => images.step(-1), pagedown: () => images.step(1),
  delete: () => state.selected && change("edit", { tool: "delete", label: state.selected }),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  const isTyping = event.target.matches("select, input[type=number], input[type=text], input[type=color]");
  const isRange = event.target.matches("input[type=range], input[type=radio]");
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y")) {
    event.preventDefault();
    change(key === "y" || event.shiftKey ? "redo" : "undo");
    return;
  }
  if (event.altKey && /^Digit[1-9]$/.test(event.code)) {
    event.preventDefault();
    channels.toggle(Number(event.code.slice(5)) - 1);
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping) return;
  const arrow = ARROWS[event.key];
  if (arrow && !isRange) {
    event.preventDefault();
    if (event.shiftKey) {
      const point = viewer.moveCursor(...arrow);
      if (point) toolbox.move(point);
    } else viewer.panBy(-arrow[0] * 60, -arrow[1] * 60);
    return;
  }
  if (event.target === find("view") && (key === "enter" || key === " ")) {
    event.preventDefault();
    if (key === " ") viewer.holdsSpace = true;
    else if (viewer.cursor && state.picture) toolbox.enter(viewer.cursor);
    return;
  }
  const tool = TOOLS.find((one) => one.key.toLowerCase() === key);
  const action = tool ? () => chooseTool(tool.id) : KEYS[key];
  if (!action || (isRange && key.startsWith("page"))) return;
  event.preventDefault();
  action();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") viewer.holdsSpace = false;
});

// Looks for what has changed meanwhile: files in the folder, labels and predictions of other windows, a restart.
async function lookAround() {
  if (document.hidden || document.body.dataset.ready !== "true") return;
  try {
    if (state.isLost) {
      await checkSession();
      say("");
      jobs.jobs = [];
      await Promise.all([refreshImages(), reloadModels(), learn.load()]);
    }
    state.isLost = false;
    if (!jobs.isFollowing) await jobs.load();
    if (jobs.hasActive) jobs.follow();
    if (!state.waiting && !isLocked()) await refreshLabels();
  } catch (error) {
    if (error.status) await checkSession().catch(() => {});
    else if (!state.isLost) {
      state.isLost = true;
      fail(error);
    }
  }
}

// The server may have been started again, with another folder.
async function checkSession() {
  if ((await openSession()).path !== state.folder) location.reload();
}
setInterval(lookAround, PAUSE_MS);
window.addEventListener("focus", () => refreshImages().then(lookAround).catch(() => {}));

// --- start -------------------------------------------------------------------------------------------------------

async function start() {
  try {
    const session = await openSession();
    find("folder").textContent = session.folder;
    find("folder").title = session.path;
    document.title = `${session.folder} - septa`;
    state.folder = session.path;
    await learn.load();
    await reloadModels();
    await refreshImages();
    for (const kind of ["suggest", "suspects"]) await learn.showFound(kind);
    const asked = decodeURIComponent(location.hash.slice(1));
    const file = images.images.find((one) => asked === one.name || asked.startsWith(`${one.name}#`));
    const first = file ? asked : images.images[0]?.name;
    if (first) await openImage(first);
    jobs.follow(); // the page was reloaded meanwhile, or the server was started again
  } catch (error) {
    fail(error);
  }
  document.body.dataset.ready = "true";
}
start();
