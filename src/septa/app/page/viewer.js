// The view of an image: pan, zoom, the tiles that are seen, and the stroke that is being drawn.

import { ImageTiles, LabelTiles, colorOf } from "./tiles.js";

const MOST_SCALE = 64;

// The rectangle of whole pixels between two points.
export function boundArea([x0, y0], [x1, y1]) {
  return [Math.floor(Math.min(y0, y1)), Math.floor(Math.min(x0, x1)), Math.floor(Math.max(y0, y1)) + 1, Math.floor(Math.max(x0, x1)) + 1];
}

export class Viewer {
  constructor(canvas, { onError, onHover, onTool }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onError = onError;
    this.onHover = onHover;
    this.onTool = onTool; // { down, move, up, click } with points of the image, or null to pan
    this.picture = null;
    this.look = null;
    this.lookNumber = 0;
    this.labelLook = { style: "outlines", opacity: 0.9, selected: 0, colorFor: colorOf, isPixels: false };
    this.labelVersion = -1;
    this.stroke = null; // { kind, points, radius, label }
    this.areas = []; // checked rectangles: first row and column, and the ones after the last
    this.cursor = null; // point of the keyboard's cursor
    this.scale = 1;
    this.center = [0, 0];
    this.pointers = new Map();
    this.pending = false;
    this.frames = [];
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
    this.resize();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    this.ratio = ratio;
    if (this.picture && this.isFitted) this.fit();
    this.draw();
  }

  open(picture, keepsPlace = false) {
    const [height, width] = this.picture?.levels[0] ?? [0, 0];
    const isSame = keepsPlace && picture.levels[0][0] === height && picture.levels[0][1] === width;
    this.picture = picture;
    this.cursor = null;
    this.stroke = null;
    this.areas = [];
    const again = () => this.draw();
    this.tiles = new ImageTiles(picture, again, this.onError);
    this.labels = picture.labels ? new LabelTiles(picture.name, again, this.onError) : null;
    this.labelVersion = picture.labels ? picture.labels.version : -1;
    if (isSame) this.draw();
    else this.fit();
  }

  close() {
    this.picture = null;
    this.draw();
  }

  setLook(look) {
    this.look = look;
    this.lookNumber += 1;
    this.draw();
  }

  setLabelLook(values) {
    Object.assign(this.labelLook, values);
    this.lookNumber += 1;
    this.draw();
  }

  setLabels(version) {
    this.labelVersion = version;
    this.draw();
  }

  // --- place -----------------------------------------------------------------------------------------------------

  fit() {
    const [height, width] = this.picture.levels[0];
    this.scale = Math.min(this.canvas.width / width, this.canvas.height / height) * 0.96;
    this.center = [width / 2, height / 2];
    this.isFitted = true;
    this.draw();
  }

  zoomBy(factor, at) {
    if (!this.picture) return;
    const fixed = at ?? [this.canvas.width / 2, this.canvas.height / 2];
    const before = this.toImage(fixed);
    const [height, width] = this.picture.levels[0];
    const least = Math.min(1, Math.min(this.canvas.width / width, this.canvas.height / height) * 0.5);
    this.scale = Math.min(MOST_SCALE, Math.max(least, this.scale * factor));
    const after = this.toImage(fixed);
    this.moveTo([this.center[0] + before[0] - after[0], this.center[1] + before[1] - after[1]]);
  }

  setScale(scale) {
    this.zoomBy(scale / this.scale);
  }

  moveTo(center) {
    const [height, width] = this.picture.levels[0];
    this.center = [Math.min(width, Math.max(0, center[0])), Math.min(height, Math.max(0, center[1]))];
    this.isFitted = false;
    this.draw();
  }

  show(point) { // moves only if the point is not well inside the view
    const [x, y] = this.toCanvas(point);
    const inside = (value, size) => value > size * 0.08 && value < size * 0.92;
    if (!inside(x, this.canvas.width) || !inside(y, this.canvas.height)) this.moveTo(point);
  }

  panBy(dx, dy) {
    if (this.picture) this.moveTo([this.center[0] - dx / this.scale, this.center[1] - dy / this.scale]);
  }

  toImage([x, y]) {
    return [(x - this.canvas.width / 2) / this.scale + this.center[0], (y - this.canvas.height / 2) / this.scale + this.center[1]];
  }

  toCanvas([x, y]) {
    return [(x - this.center[0]) * this.scale + this.canvas.width / 2, (y - this.center[1]) * this.scale + this.canvas.height / 2];
  }

  // The part of the image that is seen: first row and column, and the ones after the last.
  get visible() {
    const [height, width] = this.picture.levels[0];
    const [left, top] = this.toImage([0, 0]).map(Math.floor);
    const [right, bottom] = this.toImage([this.canvas.width, this.canvas.height]).map(Math.ceil);
    return [Math.max(0, top), Math.max(0, left), Math.min(height, bottom), Math.min(width, right)];
  }

  moveCursor(dx, dy) {
    if (!this.picture) return null;
    const [height, width] = this.picture.levels[0];
    const step = Math.max(1, Math.round(8 / this.scale));
    const from = this.cursor ?? [Math.floor(this.center[0]) + 0.5, Math.floor(this.center[1]) + 0.5];
    this.cursor = [Math.min(width - 0.5, Math.max(0.5, from[0] + dx * step)), Math.min(height - 0.5, Math.max(0.5, from[1] + dy * step))];
    const [x, y] = this.toCanvas(this.cursor);
    if (x < 0 || y < 0 || x > this.canvas.width || y > this.canvas.height) this.moveTo(this.cursor);
    this.onHover(this.cursor);
    this.draw();
    return this.cursor;
  }

  // --- drawing ---------------------------------------------------------------------------------------------------

  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.drawNow();
    });
  }

  levelFor(scale) { // the smallest level with at least one pixel for each of the screen
    const full = this.picture.levels[0][1];
    let best = 0;
    this.picture.levels.forEach(([, width], level) => {
      if (width / full >= scale * 0.99) best = level;
    });
    return best;
  }

  drawNow() {
    const { context, canvas } = this;
    const started = performance.now();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.picture || !this.look) return;
    const level = this.levelFor(this.scale);
    const last = this.picture.levels.length - 1;
    this.tiles.forgetWanted();
    context.imageSmoothingEnabled = this.scale < 2;
    const color = this.tiles.color(this.look);
    if (level !== last) this.drawLevel(this.tiles, last, 0, color, this.lookNumber);
    this.drawLevel(this.tiles, level, 0, color, this.lookNumber);
    this.tiles.pump();
    if (this.labels) this.drawLabels(level);
    for (const area of this.areas) this.drawArea(area, "#3ddc84");
    if (this.stroke?.kind === "area") this.drawArea(boundArea(this.stroke.points[0], this.stroke.points[this.stroke.points.length - 1]), "#fff");
    else if (this.stroke) this.drawStroke();
    if (this.cursor) this.drawCursor();
    this.frames.push(performance.now() - started);
    if (this.frames.length > 240) this.frames.shift();
  }

  drawLabels(level) {
    this.labels.forgetWanted();
    if (this.labelLook.style !== "none") {
      this.context.globalAlpha = this.labelLook.opacity;
      this.context.imageSmoothingEnabled = false;
      this.drawLevel(this.labels, level, this.labelVersion, this.labels.color(this.labelLook), this.lookNumber);
      this.context.globalAlpha = 1;
    }
    this.labels.pump();
  }

  drawLevel(tiles, level, version, color, style) {
    const [fullHeight, fullWidth] = this.picture.levels[0];
    const [height, width] = this.picture.levels[level];
    const side = this.picture.tile;
    const [fx, fy] = [width / fullWidth, height / fullHeight];
    const [left, top] = this.toImage([0, 0]);
    const [right, bottom] = this.toImage([this.canvas.width, this.canvas.height]);
    const first = (value) => Math.max(0, Math.floor(value / side));
    const end = (value, size) => Math.min(Math.ceil(size / side), Math.ceil(value / side));
    for (let row = first(top * fy); row < end(bottom * fy, height); row += 1) {
      for (let column = first(left * fx); column < end(right * fx, width); column += 1) {
        const tile = tiles.get(level, row, column, version);
        const drawn = tiles.paint(tile, style, color);
        if (!drawn) continue;
        const [x0, y0] = this.toCanvas([(column * side) / fx, (row * side) / fy]).map(Math.round);
        const [x1, y1] = this.toCanvas([(column * side + drawn.width) / fx, (row * side + drawn.height) / fy]).map(Math.round);
        this.context.drawImage(drawn, x0, y0, x1 - x0, y1 - y0);
      }
    }
  }

  drawStroke() {
    const { context, stroke } = this;
    const points = stroke.points.map((point) => this.toCanvas(point));
    const css = stroke.kind === "eraser" ? "rgb(255 255 255 / 60%)" : `rgb(${this.labelLook.colorFor(stroke.label).join(" ")} / 70%)`;
    context.beginPath();
    points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (stroke.kind === "brush" || stroke.kind === "eraser") {
      context.lineCap = context.lineJoin = "round";
      context.lineWidth = Math.max(1, 2 * stroke.radius * this.scale);
      context.strokeStyle = css;
      if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
      context.stroke();
      return;
    }
    context.lineWidth = 2 * this.ratio;
    context.strokeStyle = "#fff";
    context.setLineDash(stroke.kind === "split" ? [6, 4] : []);
    context.stroke();
    context.setLineDash([]);
    if (stroke.kind === "polygon") {
      context.fillStyle = css;
      context.fill();
      for (const [x, y] of points) context.fillRect(x - 3, y - 3, 6, 6);
    }
  }

  drawArea([top, left, bottom, right], color) {
    const { context } = this;
    const [x, y] = this.toCanvas([left, top]);
    const [width, height] = [(right - left) * this.scale, (bottom - top) * this.scale];
    for (const [thick, css, dash] of [[4, "#000", []], [2, color, [8, 5]]]) {
      context.lineWidth = thick * this.ratio;
      context.strokeStyle = css;
      context.setLineDash(dash);
      context.strokeRect(x, y, width, height);
    }
    context.setLineDash([]);
  }

  // Shows a rectangle of the image with some of what lies around it.
  showBox([top, left, bottom, right]) {
    const room = 1.6;
    const scale = Math.min(this.canvas.width / (right - left) / room, this.canvas.height / (bottom - top) / room);
    this.setScale(Math.min(scale, 16));
    this.moveTo([(left + right) / 2, (top + bottom) / 2]);
  }

  drawCursor() {
    const [x, y] = this.toCanvas(this.cursor);
    const { context } = this;
    for (const [width, color] of [[4, "#000"], [2, "#fff"]]) {
      context.lineWidth = width;
      context.strokeStyle = color;
      context.beginPath();
      context.moveTo(x - 14, y);
      context.lineTo(x + 14, y);
      context.moveTo(x, y - 14);
      context.lineTo(x, y + 14);
      context.stroke();
    }
  }

  // --- what lies under a point -------------------------------------------------------------------------------------

  lookUp([x, y]) {
    const [height, width] = this.picture.levels[0];
    if (!(x >= 0 && y >= 0 && x < width && y < height)) return null;
    const side = this.picture.tile;
    const level = this.levelFor(this.scale);
    const [h, w] = this.picture.levels[level];
    const [px, py] = [Math.floor((x * w) / width), Math.floor((y * h) / height)];
    const key = `${level}/${Math.floor(py / side)}/${Math.floor(px / side)}`;
    const tile = this.tiles.tiles.get(key);
    const own = this.labels?.tiles.get(key);
    return {
      samples: tile?.data ? this.tiles.sampleAt(tile, px % side, py % side) : null,
      label: own?.data ? this.labels.labelAt(own, px % side, py % side) : 0,
    };
  }

  // --- pointers ----------------------------------------------------------------------------------------------------

  listen() {
    const { canvas } = this;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.zoomBy(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), place(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (!this.picture) return;
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.cursor = null;
      const at = place(event);
      this.pointers.set(event.pointerId, at);
      if (this.pointers.size === 2) { // a pinch ends what one finger began
        if (this.drag === "tool") this.onTool.cancel();
        this.drag = "pinch";
        return;
      }
      const pans = event.button !== 0 || event.altKey || this.holdsSpace;
      this.drag = pans || !this.onTool.down(this.toImage(at)) ? "pan" : "tool";
      this.start = at;
      this.moved = false;
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.picture) return;
      const at = place(event);
      const before = this.pointers.get(event.pointerId);
      if (before && this.drag === "pinch" && this.pointers.size === 2) this.pinch(event.pointerId, at);
      else if (before && this.drag === "pan") this.panBy(at[0] - before[0], at[1] - before[1]);
      else if (this.drag === "tool") {
        const steps = event.getCoalescedEvents?.() ?? [];
        for (const step of steps.length ? steps : [event]) this.onTool.move(this.toImage(place(step)));
      }
      if (this.start && Math.hypot(at[0] - this.start[0], at[1] - this.start[1]) > 4 * this.ratio) this.moved = true;
      if (before) this.pointers.set(event.pointerId, at);
      this.onHover(this.toImage(at));
    });
    const end = (event) => {
      if (!this.pointers.delete(event.pointerId)) return;
      const drag = this.drag;
      if (this.pointers.size === 0) this.drag = null;
      if (event.type === "pointercancel") {
        if (drag === "tool") this.onTool.cancel();
      } else if (drag === "tool") this.onTool.up();
      else if (drag === "pan" && !this.moved && event.button === 0) this.onTool.click(this.toImage(place(event)));
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", () => this.onHover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  pinch(id, at) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, point]) => point);
    const before = this.pointers.get(id);
    const middle = [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2];
    this.panBy((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    this.zoomBy(Math.hypot(at[0] - other[0], at[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), middle);
  }
}
