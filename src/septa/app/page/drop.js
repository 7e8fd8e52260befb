// Files dropped on the page, or chosen with the button: sent to the folder one after the other.

import { upload } from "./api.js";
import { find } from "./panels.js";

const MOST_FILES = 2000;

async function listEntry(entry, found) {
  if (found.length >= MOST_FILES) return;
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a reader gives its entries in parts
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) return;
    if (part.some((one) => ["zarr.json", ".zattrs", ".zgroup", ".zarray"].includes(one.name))) {
      throw new Error(`${entry.name} is a zarr folder, which a browser cannot send whole. Copy it into the folder of the images.`);
    }
    for (const one of part) if (!one.name.startsWith(".")) await listEntry(one, found);
  }
}

export class DropZone {
  // onDone(names, errors) is called when all files are sent
  constructor(onDone, onError) {
    this.onDone = onDone;
    this.onError = onError;
    this.depth = 0;
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    document.addEventListener("dragenter", (event) => { if (hasFiles(event)) this.show(1); });
    document.addEventListener("dragleave", (event) => { if (hasFiles(event)) this.show(-1); });
    document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
    document.addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      this.show(-this.depth);
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
      this.take(entries.length ? this.list(entries) : Promise.resolve([...event.dataTransfer.files]));
    });
    find("add").addEventListener("click", () => find("files").click());
    find("files").addEventListener("change", () => {
      this.take(Promise.resolve([...find("files").files]));
      find("files").value = "";
    });
  }

  show(by) {
    this.depth = Math.max(0, this.depth + by);
    find("drop").hidden = this.depth === 0;
  }

  async list(entries) {
    const found = [];
    for (const entry of entries) await listEntry(entry, found);
    return found;
  }

  async take(listing) {
    const names = [], errors = [];
    try {
      const files = await listing;
      for (const [place, file] of files.entries()) {
        find("adding").textContent = `Adding ${place + 1} of ${files.length}: ${file.name}`;
        try {
          names.push((await upload(file.name, file)).name);
        } catch (error) {
          errors.push(error.message);
        }
      }
    } catch (error) {
      errors.push(error.message);
    }
    find("adding").textContent = "";
    this.onDone(names, errors);
  }
}
