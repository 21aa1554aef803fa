"use strict";
// Everything that comes from the server is put in as text, never as HTML.

const byId = (name) => document.getElementById(name);
let me = null;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function show(message) {
  const place = byId("message");
  place.textContent = message;
  place.hidden = message === "";
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function ask(path, body) {
  const options = { credentials: "same-origin", signal: AbortSignal.timeout(20000) };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "Content-Type": "application/json", "X-CSRF": me === null ? "" : me.csrf };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const content = await response.json().catch(() => ({}));
  if (!response.ok) {
    const detail = typeof content.detail === "string" ? content.detail : `the server answered ${response.status}`;
    throw new Refused(response.status, detail);
  }
  return content;
}

function freshId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function keyOf(place) {
  return place < 9 ? String(place + 1) : "abcefghijklm"[place - 9]; // without d, n, p, s, u, which do other things
}

function isTyping(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return true;
  return /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !["radio", "checkbox"].includes(event.target.type);
}

function labelButtons(choose, named) {
  const place = byId("labels");
  const buttons = new Map();
  place.replaceChildren();
  const add = (label, key) => {
    const attributes = { type: "button", "aria-keyshortcuts": key, "aria-pressed": "false", "data-label": label };
    const button = element("button", undefined, attributes);
    button.append(element("kbd", key), ` ${named(label)}`);
    button.addEventListener("click", () => choose(label));
    place.append(button);
    buttons.set(key, label);
  };
  me.labels.forEach((label, place) => add(label, keyOf(place)));
  add("none", "0");
  return buttons;
}

function press(labels) {
  for (const button of byId("labels").children) {
    const place = labels.indexOf(button.dataset.label);
    button.setAttribute("aria-pressed", String(place >= 0));
    button.dataset.order = labels.length > 1 && place >= 0 ? String(place + 1) : "";
  }
}

// ---- join: the token stands behind #, so that it is in no log and no referrer

async function joinPage() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", "/join");
  if (token === "") {
    show("Open the whole link of your invitation.");
    return;
  }
  try {
    const { role } = await ask("/api/join", { token });
    location.replace(role === "owner" ? "/status" : "/annotate");
  } catch (error) {
    show(`That did not work: ${error.message}.`);
  }
}

// ---- status

async function statusPage() {
  async function refresh() {
    const status = await ask("/api/status");
    byId("name").textContent = status.folder;
    byId("next").replaceChildren(status.next.startsWith("uniemox ") ? element("code", status.next) : status.next);
    byId("why").textContent = status.why ? `: ${status.why}` : "";
    const shares = done(status.steps);
    byId("steps").replaceChildren(...Object.entries(status.told).map(([name, sentence]) => {
      const item = element("li");
      const track = element("span", undefined, { class: "track", "aria-hidden": "true" });
      const bar = element("i", undefined, { class: "bar" });
      bar.style.width = `${100 * shares[name]}%`;
      track.append(bar);
      item.append(element("b", name), " ", track, element("span", sentence));
      return item;
    }));
    fill("people", status.people.map(personRow));
    fill("history", status.history.map(batchRow));
  }

  function done({ collect, screen, annotate, agree, split, release }) { // the share of each step, 0 to 1
    const share = (count, all) => (all === 0 ? 0 : count / all);
    return {
      collect: share(collect.offered - collect.waiting, collect.offered),
      screen: share(screen["looked at"], screen["looked at"] + screen["to look at"]),
      annotate: share(annotate["answered twice"], annotate["to answer"]),
      agree: "figures" in agree ? (agree.disputed === 0 ? 1 : share(agree.judged, agree.judged + agree.disputed)) : 0,
      split: Number("sizes" in split && !split.change),
      release: Number(release.releases.length > 0 && !release.change),
    };
  }

  function fill(name, rows) { // keeps the keyboard focus: on the new button of the same name, or else on the first
    const place = byId(name);
    const focused = place.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    place.replaceChildren(...rows);
    if (focused === null) return;
    const buttons = [...place.querySelectorAll("button")];
    (buttons.find((button) => button.getAttribute("aria-label") === focused) || buttons[0])?.focus();
  }

  let problem = ""; // of the last refresh: the next one takes it back, and no other message
  async function keepFresh() { // but not under the hands of somebody who is in a table
    if (["people", "history"].some((name) => byId(name).contains(document.activeElement))) return;
    try {
      await refresh();
      if (byId("message").textContent === problem) show("");
      problem = "";
    } catch (error) {
      problem = error.message;
      show(problem);
    }
  }

  function personRow(person) {
    const row = element("tr");
    const time = person.median_s === null ? "–" : `${person.median_s.toFixed(1)} s`;
    const checks = person.checks ? `${person.checks_passed} of ${person.checks}` : "no checks";
    const cells = [person.answered, checks, time];
    row.append(element("th", person.name, { scope: "row" }), ...cells.map((cell) => element("td", String(cell))));
    const access = element("td");
    const offer = (text, path, label, question) =>
      access.append(" ", action(text, () => confirm(question) && ask(path, { name: person.name }), label));
    if (person.is_revoked) access.append("ended");
    else offer("End access", "/api/people/revoke", `End access of ${person.name}`, `End the access of ${person.name}? The link stops working; the answers stay.`);
    if (person.is_left_out) access.append(" answers left out");
    else offer("Leave answers out", "/api/people/leave-out", `Leave answers out: ${person.name}`, `Leave out all answers of ${person.name}?`);
    row.append(access);
    return row;
  }

  function batchRow(batch) {
    const row = element("tr");
    const when = new Date(batch.at * 1000).toLocaleString();
    const cells = [when, batch.actor, batch.step, batch.note, batch.changes];
    row.append(element("th", String(batch.id), { scope: "row" }), ...cells.map((cell) => element("td", String(cell))));
    const last = element("td");
    if (batch.is_undone) row.className = "gone";
    else last.append(action("Undo", () => ask("/api/undo", { batch: batch.id }), `Undo ${batch.id}`));
    row.append(last);
    return row;
  }

  function action(text, act, name = text) {
    const button = element("button", text, { type: "button", "aria-label": name });
    button.addEventListener("click", async () => {
      try {
        await act();
        await refresh();
      } catch (error) {
        show(error.message);
      }
    });
    return button;
  }

  byId("invite").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const name = event.target.elements.name.value;
      const { path } = await ask("/api/people", { name });
      byId("link").textContent = `Give this link to ${name}, it is shown once: ${location.origin}${path}`;
      event.target.reset();
      await refresh();
    } catch (error) {
      show(error.message);
    }
  });
  await refresh();
  setInterval(keepFresh, 5000);
}

// ---- screen

async function screenPage() {
  const form = byId("filter");
  const grid = byId("grid");
  let found = { pictures: [], pages: 0, page: 0, count: 0 };
  let at = 0;
  const batches = [];
  const styleKeys = new Map(me.styles.map((style, place) => [String(place + 1), style]));
  me.labels.forEach((label) => form.elements.label.append(element("option", label, { value: label })));
  for (const [key, style] of styleKeys) {
    const words = element("span", ` ${style}`, { class: "key-words" });
    words.prepend(element("kbd", key));
    byId("styles").append(words, " ");
  }
  byId("style").append(element("option", "none", { value: "" }), ...me.styles.map((style) => element("option", style)));

  async function load(page) {
    const query = new URLSearchParams({ shown: form.elements.shown.value, label: form.elements.label.value, page });
    found = await ask(`/api/grid?${query}`);
    at = 0;
    byId("place").textContent = `page ${found.pages === 0 ? 0 : found.page + 1} of ${found.pages}, ${found.count} ${found.count === 1 ? "image" : "images"}`;
    grid.replaceChildren(...found.pictures.map(cell));
    select(0, false);
    showControls();
  }

  function showControls() { // each button says what it does to the selected image, and is off where it does nothing
    const picture = found.pictures[at];
    byId("before").disabled = found.page === 0;
    byId("after").disabled = found.page + 1 >= found.pages;
    byId("undo").disabled = batches.length === 0;
    byId("drop").disabled = byId("style").disabled = picture === undefined;
    byId("drop").textContent = picture?.screen === "drop" ? "Keep" : "Drop";
    byId("style").value = picture?.style ?? "";
  }

  function cell(picture, place) {
    const box = element("div", undefined, { role: "option", tabindex: "-1", id: `cell-${place}` });
    const labels = picture.labels.join(", ");
    const keyword = picture.keyword && picture.keyword !== labels ? ` (${picture.keyword})` : "";
    box.append(element("img", undefined, { src: `/api/originals/${picture.picture}`, alt: `Image ${picture.picture}`, loading: "lazy" }));
    box.append(element("p", labels + keyword), element("p", picture.title));
    box.append(element("p", "", { class: "state" }));
    box.addEventListener("click", () => select(place, true));
    describe(box, picture);
    return box;
  }

  function describe(box, picture) { // "kept" only where an image has come back
    box.className = picture.screen;
    let state = form.elements.shown.value === "drop" ? "kept" : "";
    if (picture.screen === "drop") state = `dropped, ${picture.reason}`;
    const score = picture.score === null ? "" : picture.score.toFixed(2);
    box.querySelector(".state").textContent = [state, score, picture.style].filter((part) => part !== "").join(" ");
  }

  function told(picture) {
    const state = picture.screen === "drop" ? `dropped, ${picture.reason}` : "kept";
    return `Image ${picture.picture}, ${state} ${picture.style}`;
  }

  function select(place, focus) {
    if (found.pictures.length === 0) return;
    at = Math.min(Math.max(place, 0), found.pictures.length - 1);
    [...grid.children].forEach((box, number) => {
      box.setAttribute("aria-selected", String(number === at));
      box.tabIndex = number === at ? 0 : -1;
    });
    if (focus) grid.children[at].focus();
    showControls();
  }

  async function change(field, value) {
    const picture = found.pictures[at];
    if (picture === undefined) return;
    const { batch } = await ask("/api/changes", { changes: [{ picture: picture.picture, field, value }] });
    batches.push(batch);
    picture[field] = value;
    if (field === "screen") picture.reason = "by hand";
    describe(grid.children[at], picture);
    byId("announce").textContent = told(picture);
    if (field === "screen") select(at + 1, true);
    else showControls();
  }

  async function undo() {
    if (batches.length === 0) return;
    await ask("/api/undo", { batch: batches.pop() });
    const place = at;
    await load(found.page);
    select(place, true);
    byId("announce").textContent = "Undone";
  }

  const columns = () => getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const actions = {
    ArrowRight: () => select(at + 1, true),
    ArrowLeft: () => select(at - 1, true),
    ArrowDown: () => select(at + columns(), true),
    ArrowUp: () => select(at - columns(), true),
    Home: () => select(0, true),
    End: () => select(found.pictures.length - 1, true),
    d: () => change("screen", found.pictures[at]?.screen === "drop" ? "keep" : "drop"),
    u: undo,
    n: () => found.page + 1 < found.pages && load(found.page + 1).then(() => select(0, true)),
    p: () => found.page > 0 && load(found.page - 1).then(() => select(0, true)),
  };
  const guarded = (act) => Promise.resolve().then(act).then(() => show(""), (error) => show(error.message));
  document.addEventListener("keydown", (event) => {
    if (isTyping(event)) return;
    const act = actions[event.key] || (styleKeys.has(event.key) && (() => change("style", styleKeys.get(event.key))));
    if (!act) return;
    event.preventDefault();
    guarded(act);
  });
  form.addEventListener("change", () => guarded(() => load(0)));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("before").addEventListener("click", () => guarded(actions.p));
  byId("after").addEventListener("click", () => guarded(actions.n));
  byId("drop").addEventListener("click", () => guarded(actions.d));
  byId("style").addEventListener("change", (event) => guarded(() => change("style", event.target.value)));
  byId("undo").addEventListener("click", () => guarded(undo));
  await load(0);
}

// ---- judge

async function judgePage() {
  let open = [];
  const skipped = new Set();
  const batches = [];

  async function refresh() {
    const found = await ask("/api/disputed");
    open = found.pictures.filter((one) => !skipped.has(one.picture));
    if (open.length === 0 && found.count > 0) { // all were skipped: from the first one again
      skipped.clear();
      open = found.pictures;
    }
    byId("place").textContent = `${found.count} without agreement by the rule ${found.rule}`;
    byId("skip").disabled = open.length === 0;
    byId("undo").disabled = batches.length === 0;
    const image = byId("picture");
    image.hidden = open.length === 0;
    byId("said").textContent = open.length === 0 ? "Nothing to judge." : `Annotators said: ${open[0].answers.join(", ")}`;
    if (open.length > 0) {
      image.src = `/api/originals/${open[0].picture}`;
      image.alt = `Image ${open[0].picture}`;
    }
  }

  const guarded = (act) => Promise.resolve().then(act).then(refresh).then(() => show(""), (error) => show(error.message));
  const choose = (label) => open.length > 0 && guarded(async () => {
    const change = { picture: open[0].picture, field: "verdict", value: label };
    batches.push((await ask("/api/changes", { changes: [change] })).batch);
  });
  const skip = () => open.length > 0 && guarded(() => skipped.add(open[0].picture));
  const undo = () => batches.length > 0 && guarded(() => ask("/api/undo", { batch: batches.pop() }));
  const buttons = labelButtons(choose, (label) => (label === "none" ? "leave out" : label));
  byId("skip").addEventListener("click", skip);
  byId("undo").addEventListener("click", undo);
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || event.repeat) return;
    if (buttons.has(event.key)) choose(buttons.get(event.key));
    else if (event.key === "s") skip();
    else if (event.key === "u") undo();
    else return;
    event.preventDefault();
  });
  await refresh();
}

async function begin() {
  const page = document.body.dataset.page;
  if (page === "join") return joinPage();
  try {
    me = await ask("/api/me");
    if (page === "annotate" && me.role === "owner") return location.replace("/status");
    await { annotate: () => annotatePage(), status: statusPage, screen: screenPage, judge: judgePage }[page]();
  } catch (error) {
    show(error.message);
  }
}

addEventListener("DOMContentLoaded", begin); // once annotate.js is there too
