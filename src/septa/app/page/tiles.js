// Tiles of an image and of its labels: fetched when they are seen, coloured here, kept while there is room.

import { imagePath, readPixels } from "./api.js";

const MOST_TILES = 400;
const MOST_REQUESTS = 6;

// A distinct colour for each object: steps of the golden angle around the circle of hues.
export function colorOf(label) {
  const hue = (label * 137.508) % 360;
  const light = 0.52 + 0.14 * ((label * 7) % 3 - 1);
  const chroma = (1 - Math.abs(2 * light - 1)) * 0.9;
  const channel = (shift) => {
    const place = (shift + hue / 30) % 12;
    return Math.round(255 * (light - (chroma / 2) * Math.max(-1, Math.min(place - 3, 9 - place, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

class TileSet {
  constructor(onLoad, onError) {
    this.tiles = new Map(); // "level/row/column" -> { data, canvas, style, version, controller }
    this.onLoad = onLoad;
    this.onError = onError;
    this.active = 0;
    this.wanted = [];
  }

  // Returns the tile if something of it can be drawn, and asks the server for what is missing or out of date.
  get(level, row, column, version) {
    const key = `${level}/${row}/${column}`;
    let tile = this.tiles.get(key);
    if (!tile) {
      tile = { key, data: null, canvas: null, style: -1, version: -1, busy: false };
      this.tiles.set(key, tile);
      if (this.tiles.size > MOST_TILES) this.dropOldest();
    } else { // the order of the map is that of use
      this.tiles.delete(key);
      this.tiles.set(key, tile);
    }
    if (tile.version !== version && !tile.busy) {
      tile.busy = true;
      this.wanted.push([tile, version]);
    }
    return tile;
  }

  dropOldest() {
    for (const [key, tile] of this.tiles) {
      if (!tile.busy) {
        this.tiles.delete(key);
        return;
      }
    }
  }

  // Starts requests for what the last drawing asked for; what it did not ask for any more is forgotten.
  pump() {
    while (this.active < MOST_REQUESTS && this.wanted.length) {
      const [tile, version] = this.wanted.shift();
      this.active += 1;
      readPixels(this.address(tile.key, version))
        .then((pixels) => {
          tile.data = this.decode(pixels);
          tile.version = version;
          tile.style = -1;
        })
        .catch((error) => {
          tile.version = version; // the next change asks again
          this.onError(error);
        })
        .finally(() => {
          tile.busy = false;
          this.active -= 1;
          this.onLoad();
          this.pump();
        });
    }
  }

  forgetWanted() {
    for (const [tile] of this.wanted) tile.busy = false;
    this.wanted = [];
  }

  paint(tile, style, draw) {
    if (!tile.data || tile.style === style) return tile.canvas;
    const [height, width] = this.sizeOf(tile.data);
    if (!tile.canvas) tile.canvas = document.createElement("canvas");
    tile.canvas.width = width;
    tile.canvas.height = height;
    const context = tile.canvas.getContext("2d");
    const picture = context.createImageData(width, height);
    draw(tile.data, new Uint32Array(picture.data.buffer));
    context.putImageData(picture, 0, 0);
    tile.style = style;
    return tile.canvas;
  }
}

export class ImageTiles extends TileSet {
  constructor(picture, onLoad, onError) {
    super(onLoad, onError);
    this.picture = picture;
  }

  address(key) {
    return `${imagePath(this.picture.name)}/tiles/${key}?v=${this.picture.key}`;
  }

  decode({ shape, buffer }) {
    const samples = this.picture.dtype === "uint8" ? new Uint8Array(buffer) : new Uint16Array(buffer);
    return { shape, samples };
  }

  sizeOf(data) {
    return data.shape.slice(1);
  }

  // look: { channels: [{ on, color: [r, g, b], low, high }], gamma, invert }
  color(look) {
    const top = this.picture.dtype === "uint8" ? 256 : 65536;
    const tables = look.channels.map((channel) => {
      if (!channel.on) return null;
      const table = new Float32Array(top);
      const span = Math.max(channel.high - channel.low, 1e-6);
      for (let value = 0; value < top; value += 1) {
        const share = Math.min(1, Math.max(0, (value - channel.low) / span));
        table[value] = share ** look.gamma;
      }
      return table;
    });
    return (data, out) => {
      const count = out.length;
      for (let place = 0; place < count; place += 1) {
        let r = 0, g = 0, b = 0;
        for (let c = 0; c < tables.length; c += 1) {
          const table = tables[c];
          if (table === null) continue;
          const share = table[data.samples[c * count + place]];
          const color = look.channels[c].color;
          r += share * color[0];
          g += share * color[1];
          b += share * color[2];
        }
        r = Math.min(255, r) | 0;
        g = Math.min(255, g) | 0;
        b = Math.min(255, b) | 0;
        if (look.invert) {
          r = 255 - r;
          g = 255 - g;
          b = 255 - b;
        }
        out[place] = (255 << 24) | (b << 16) | (g << 8) | r;
      }
    };
  }

  sampleAt(tile, x, y) {
    const [channels, height, width] = tile.data.shape;
    if (x >= width || y >= height) return null;
    return Array.from({ length: channels }, (_, c) => tile.data.samples[(c * height + y) * width + x]);
  }
}

export class LabelTiles extends TileSet {
  constructor(name, onLoad, onError) {
    super(onLoad, onError);
    this.name = name;
  }

  address(key, version) {
    return `${imagePath(this.name)}/labels/${key}?v=${version}`;
  }

  decode({ shape, buffer }) {
    return { shape, labels: new Int32Array(buffer) };
  }

  sizeOf(data) { // one more pixel lies on each side
    return [data.shape[0] - 2, data.shape[1] - 2];
  }

  color(look) {
    return (data, out) => {
      const wide = data.shape[1];
      const [height, width] = this.sizeOf(data);
      const { labels } = data;
      let lastLabel = 0, lastColor = 0;
      for (let y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1) {
          const at = (y + 1) * wide + x + 1;
          const label = labels[at];
          if (label === 0) continue;
          const isRim = labels[at - 1] !== label || labels[at + 1] !== label || labels[at - wide] !== label || labels[at + wide] !== label;
          if (look.style === "outlines" && !isRim && (look.isPixels || label !== look.selected)) continue;
          if (label !== lastLabel) {
            const [r, g, b] = look.colorFor(label);
            lastColor = (b << 16) | (g << 8) | r;
            lastLabel = label;
          }
          if (look.isPixels) {
            out[y * width + x] = ((isRim && look.style === "outlines" ? 255 : 150) << 24) | lastColor;
          } else if (label === look.selected) {
            out[y * width + x] = isRim ? 0xffffffff : (110 << 24) | lastColor;
          } else {
            out[y * width + x] = ((isRim ? 255 : 140) << 24) | lastColor;
          }
        }
      }
    };
  }

  labelAt(tile, x, y) {
    return tile.data.labels[(y + 1) * tile.data.shape[1] + x + 1];
  }
}
