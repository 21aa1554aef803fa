// What the page asks of its server.

import { find } from "./elements.js";

export { prepared } from "./files.js";

const MAX_TRIES = 6;

function keyHeader() {
  const key = find("#key").value;
  if (/[^\x20-\x7e]/.test(key)) throw new Error("The key contains a character that is not allowed in a key.");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// The answer to a request; a server whose queue is full is asked again when it says so.
export async function ask(path, options = {}, tries = 1) {
  const headers = { ...keyHeader(), ...(options.headers || {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new Error("The server can't be reached; is it still running?");
  }
  if (answer.ok) return answer;
  if (answer.status === 503 && tries < MAX_TRIES) {
    await new Promise((resolve) => { setTimeout(resolve, 1000 * Number(answer.headers.get("Retry-After") || 1)); });
    options.signal?.throwIfAborted();
    return ask(path, options, tries + 1);
  }
  const told = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (answer.status === 401) find("#key-setting").hidden = false;
  throw new Error(told.error);
}

function address(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return `${path}?${query}`;
}

function post(file, name, signal) {
  const body = new FormData();
  body.append("pictures", file, name);
  return { method: "POST", body, signal };
}

export async function predict(model, item, share, signal) {
  const coverage = Number(share) <= model.max_coverage ? share : "";
  const path = address("predict", { model: model.name, coverage });
  const [answer] = await (await ask(path, post(item.sent, item.name, signal))).json();
  return { ...answer, name: item.name }; // a form changes some signs of it
}

// { url, evidence }: of a PNG, the image with the heat over it; and the evidence at its hottest place.
// scale: evidence of the brightest colour; without it, the most of this map. Kept, so that each is drawn once.
export async function heatMap(model, item, label, scale) {
  const kept = `${model.name} ${label} ${scale}`;
  if (!item.maps.has(kept)) {
    const answer = await ask(address("explain", { model: model.name, label, full_scale: scale }), post(item.sent, item.name));
    const evidence = Number(answer.headers.get("X-Evidence"));
    item.maps.set(kept, { url: URL.createObjectURL(await answer.blob()), evidence });
  }
  return item.maps.get(kept);
}
