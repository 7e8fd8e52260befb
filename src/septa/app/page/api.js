// Calls of the server: one function for each way to ask it. An error has the server's line as its message.

let pageToken = "";

export class ServerError extends Error {
  constructor(line, { confirm = false, stale = false, status = 0 } = {}) {
    super(line);
    this.confirm = confirm; // true if the request may be sent again with replace: true
    this.stale = stale; // true if the labels are others than those that the page shows
    this.status = status; // 0 if there was no answer
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ServerError("septa app does not answer. Start it again, and this page continues.");
  }
  if (response.ok) return response;
  let answer = {};
  try {
    answer = await response.json();
  } catch { /* not an answer of septa */ }
  const line = answer.error || `The server failed (${response.status}). Look at its terminal.`;
  throw new ServerError(line, { confirm: answer.confirm === true, stale: answer.stale === true, status: response.status });
}

export async function read(path) {
  return (await ask(path)).json();
}

// Sends a change; a server that was started again has another token, which is asked for once.
async function post(path, type, body) {
  const options = () => ({ method: "POST", headers: { "X-Septa-Token": pageToken, "Content-Type": type }, body });
  try {
    return (await ask(path, options())).json();
  } catch (error) {
    if (error.status !== 403) throw error;
    const before = pageToken;
    await openSession();
    if (pageToken === before) throw error;
    return (await ask(path, options())).json();
  }
}

export const send = (path, body) => post(path, "application/json", JSON.stringify(body ?? {}));

export const upload = (name, file) => post(`/api/files/${encodeURIComponent(name)}`, "application/octet-stream", file);

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
