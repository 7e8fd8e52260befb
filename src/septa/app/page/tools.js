// The tools: each turns what the pointer, or the keyboard's cursor, does into one request of an edit.

export const TOOLS = [
  { id: "select", key: "V", name: "Select", text: "Click an object to select it. Drag to move the image." },
  { id: "brush", key: "B", name: "Brush", text: "Paint more of the selected object. Without a selection, each stroke draws a new object." },
  { id: "eraser", key: "E", name: "Eraser", text: "Erase the selected object where you paint; without a selection, erase all objects." },
  { id: "polygon", key: "P", name: "Polygon", text: "Click the corners of a new object, or of more of the selected one. Double-click, click the first corner, or press Enter twice to close it." },
  { id: "split", key: "X", name: "Split", text: "Draw a line across an object to cut it in two." },
  { id: "merge", key: "M", name: "Merge", text: "Select an object, then click another one, which becomes part of it." },
  { id: "fill", key: "F", name: "Fill", text: "Click an object to fill its holes, or click one hole." },
  { id: "area", key: "A", name: "Check area", text: "Drag a rectangle in which all labels are right: a training learns from it, and ignores the rest. Click inside one to take its mark away." },
  { id: "class", key: "K", name: "Class", text: "Choose a class under Labels, then click objects to give it to them." },
  { id: "delete", key: "D", name: "Delete", text: "Click objects to delete them. The key Delete removes the selected object." },
];

export class Toolbox {
  // host: { viewer, edit(request), checkArea(from, to), select(label), selected, paints, classValue, radius, over, say(text) }
  constructor(host) {
    this.host = host;
    this.tool = TOOLS[0];
    this.points = null;
    this.lastClick = 0;
  }

  choose(id) {
    this.cancel();
    this.tool = TOOLS.find((tool) => tool.id === id);
  }

  get draws() {
    return this.tool.id !== "select";
  }

  show() {
    const { host } = this;
    const label = host.paints || host.nextLabel;
    host.viewer.stroke = this.points && { kind: this.tool.id, points: this.points, radius: host.radius, label };
    host.viewer.draw();
  }

  cancel() {
    this.points = null;
    this.isDown = false;
    this.show();
  }

  // Returns false if the pointer should move the image instead.
  down(point) {
    if (!this.host.canEdit || this.tool.id === "select") return false;
    if (["brush", "eraser", "split", "area"].includes(this.tool.id)) {
      this.points = [point];
      this.isDown = true;
      this.show();
    } else if (this.tool.id === "polygon") this.addCorner(point);
    else this.click(point);
    return true;
  }

  move(point) {
    if (!this.isDown) return;
    const [x, y] = this.points[this.points.length - 1];
    if (Math.hypot(point[0] - x, point[1] - y) < 0.5) return;
    if (["split", "area"].includes(this.tool.id) && this.points.length > 1) this.points.pop();
    this.points.push(point);
    this.show();
  }

  up() {
    if (!this.isDown) return;
    const { host } = this;
    const [points, tool] = [this.points, this.tool.id];
    this.isDown = false;
    this.points = null;
    if (tool === "area") {
      host.checkArea(points[0], points[points.length - 1]);
      this.cancel();
      return;
    }
    if (tool === "split") {
      if (points.length > 1) host.edit({ tool, points });
      else this.cancel();
      return;
    }
    const request = { tool, points: thin(points), radius: host.radius, over: host.over };
    if (host.paints) request.label = host.paints;
    host.edit(request); // the stroke stays until the labels are there
  }

  click(point) {
    const { host } = this;
    const label = host.labelAt(point);
    const tool = this.tool.id;
    if (tool === "select") host.select(label);
    else if (tool === "fill") host.edit({ tool, points: [point] });
    else if (!label) host.say("There is no object here. Click inside an object.");
    else if (tool === "class") host.edit({ tool, label, value: host.classValue });
    else if (tool === "delete") host.edit({ tool, label });
    else if (!host.selected) host.select(label);
    else if (label !== host.selected) host.edit({ tool, label, into: host.selected });
  }

  addCorner(point) {
    const now = performance.now();
    const { points } = this;
    const near = (other) => Math.hypot(point[0] - other[0], point[1] - other[1]) * this.host.viewer.scale < 9;
    if (points && points.length > 2 && (near(points[0]) || (now - this.lastClick < 350 && near(points[points.length - 1])))) {
      this.closePolygon();
      return;
    }
    this.lastClick = now;
    if (points && near(points[points.length - 1])) return;
    this.points = [...(points ?? []), point];
    this.show();
  }

  closePolygon() {
    const { host, points } = this;
    if (!points || points.length < 3) return;
    this.points = null;
    const request = { tool: "polygon", points, over: host.over };
    if (host.paints) request.label = host.paints;
    host.edit(request);
  }

  // Enter at the keyboard's cursor: a click, the begin and the end of a stroke, or a corner.
  enter(point) {
    if (this.tool.id === "polygon") {
      const last = this.points?.[this.points.length - 1];
      if (last && last[0] === point[0] && last[1] === point[1]) this.closePolygon();
      else this.addCorner(point);
    } else if (this.isDown) {
      this.move(point);
      this.up();
    } else if (this.tool.id === "select" || !this.down(point)) this.click(point);
  }
}

function thin(points) { // a stroke of a long minute still fits in one request
  const step = Math.ceil(points.length / 10000);
  return points.filter((_, place) => place % step === 0 || place === points.length - 1);
}
