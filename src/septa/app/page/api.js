// Calls of the server: one function for each way to ask it. An error has the server's line as its message.

let pageToken = "";

export class ServerError extends Error {
  constructor(line, confirm) {
    super(line);
    this.confirm = confirm; // true if the request may be sent again with replace: true
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ServerError("septa app does not answer. Start it again, then reload this page.", false);
  }
  if (response.ok) return response;
  let answer = {};
  try {
    answer = await response.json();
  } catch { /* not an answer of septa */ }
  throw new ServerError(answer.error || `The server failed (${response.status}). Look at its terminal.`, answer.confirm === true);
}

export async function read(path) {
  return (await ask(path)).json();
}

export async function send(path, body) {
  const headers = { "X-Septa-Token": pageToken, "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) })).json();
}

export async function upload(name, file) {
  const headers = { "X-Septa-Token": pageToken, "Content-Type": "application/octet-stream" };
  return (await ask(`/api/files/${encodeURIComponent(name)}`, { method: "POST", headers, body: file })).json();
}

export async function readPixels(path, signal) {
  const response = await ask(path, { signal });
  const shape = response.headers.get("X-Shape").split(",").map(Number);
  return { shape, buffer: await response.arrayBuffer() };
}

export async function openSession() {
  const session = await read("/api/session");
  pageToken = session["X-Septa-Token"];
  return session;
}

export const imagePath = (name) => `/api/images/${encodeURIComponent(name)}`;
