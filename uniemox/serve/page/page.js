"use strict";
// One file, no library. Whatever a client or the server sends is put into the page as text, never as HTML.

const find = (selector, within = document) => within.querySelector(selector);
let models = [];
let asked = 0; // which image is the newest: answers for older ones are passed over
let pictureUrl = null;
const urls = new Set();

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text) { find("#status").textContent = text; }
function complain(text) { find("#error").textContent = text; }

function keyHeader() {
  const key = find("#key").value;
  if (/[^\x20-\x7e]/.test(key)) throw new Error("The key holds a sign that no key of a server has.");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function ask(path, options = {}) {
  const headers = { ...keyHeader(), ...(options.headers || {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch {
    throw new Error("The server can't be reached; is it still running?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (answer.status === 401) find("#key-setting").hidden = false;
  const failure = new Error(told.error);
  failure.status = answer.status;
  throw failure;
}

function form(file) {
  const body = new FormData();
  body.append("pictures", file, file.name || "pasted");
  return body;
}

function address(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return `${path}?${query}`;
}

async function readModels() {
  try {
    models = await (await ask("/models")).json();
  } catch (failure) {
    complain(failure.message);
    return false;
  }
  complain("");
  offerCoverage(Math.max(...models.map((model) => model.max_coverage)));
  const felt = models.every((model) => model.kind === "felt");
  if (felt) find("#kind-note").textContent = "The bars tell what the people in the image feel. That is not what it evokes in those who look at it.";
  return true;
}

function offerCoverage(most) {
  const setting = find("#coverage");
  find("#coverage-setting").hidden = most === 0;
  for (const option of setting.options) option.disabled = Number(option.value) > most;
  if (Number(setting.value) > most) setting.value = "";
}

function percent(value) { return `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`; }

function show(url) {
  urls.add(url);
  return url;
}

function forget() {
  for (const url of urls) URL.revokeObjectURL(url);
  urls.clear();
}

async function take(file) {
  if (!file) return;
  const turn = ++asked;
  complain("");
  find("#results").replaceChildren();
  if (!models.length && !(await readModels())) return;
  forget();
  pictureUrl = show(URL.createObjectURL(file));
  const name = file.name || "the pasted image";
  say(`Looking at ${name} …`);
  const share = find("#coverage").value;
  const answers = await Promise.allSettled(models.map(async (model) => {
    const coverage = Number(share) <= model.max_coverage ? share : "";
    const path = address("/predict", { model: model.name, coverage });
    return (await (await ask(path, { method: "POST", body: form(file) })).json())[0];
  }));
  if (turn !== asked) return;
  const told = [];
  answers.forEach((answer, i) => {
    if (answer.status === "rejected") {
      complain(answer.reason.message);
      return;
    }
    find("#results").append(result(models[i], answer.value, { file, name, share, turn }));
    told.push(summary(models[i], answer.value));
  });
  say(told.length ? `${name}: ${told.join(" ")}` : `${name} could not be answered.`);
}

function sorted(scene) { return Object.entries(scene).sort((a, b) => b[1] - a[1]); }

function amount(model, value) { return model.task === "affect" ? value.toFixed(1) : percent(value); }

function summary(model, answer) {
  const top = sorted(answer.scene).slice(0, 2).map(([label, value]) => `${label} ${amount(model, value)}`).join(", ");
  const who = models.length > 1 ? `${model.name}: ` : "";
  return `${who}${top}. ${people(answer)}`;
}

function people(answer) {
  if (answer.persons === null) return "This server does not look for people.";
  const count = answer.persons.length;
  return count === 0 ? "Nobody found." : count === 1 ? "1 person found." : `${count} people found.`;
}

function result(model, answer, asking) {
  const { file, name } = asking;
  const made = find("#result").content.cloneNode(true).firstElementChild;
  find(".model", made).textContent = model.name;
  made.setAttribute("aria-label", `Answer of ${model.name}`);
  const image = find(".picture", made);
  image.src = pictureUrl;
  image.alt = name;
  image.addEventListener("error", () => {
    find(".frame", made).hidden = true;
    find(".file", made).textContent = `${name} (this browser can't show its format; the heat map can be seen)`;
  });
  find(".file", made).textContent = name;
  drawBoxes(made, answer);
  drawBars(made, model, answer, asking.share);
  drawPeople(made, answer);
  drawFaces(made, answer);
  heatMap(made, model, answer, image, asking);
  return made;
}

function drawBoxes(made, answer) {
  const top = (face) => (face.expressions ? sorted(face.expressions)[0][0] : "?");
  const boxes = (answer.persons || []).map((person, i) => [person.box, String(i + 1), "box"]);
  boxes.push(...(answer.faces || []).map((face) => [face.box, top(face), "box face"]));
  for (const [[x1, y1, x2, y2], words, look] of boxes) {
    const box = element("div", undefined, look);
    box.append(element("span", words));
    box.style.left = `${(100 * x1) / answer.width_px}%`;
    box.style.top = `${(100 * y1) / answer.height_px}%`;
    box.style.width = `${(100 * (x2 - x1)) / answer.width_px}%`;
    box.style.height = `${(100 * (y2 - y1)) / answer.height_px}%`;
    find(".boxes", made).append(box);
  }
  find(".boxes", made).setAttribute("aria-hidden", "true"); // the list of people says the same
}

function drawBars(made, model, answer, share) {
  const affect = model.task === "affect";
  const kinds = { evoked: "What the scene evokes", felt: "What the people in it feel", expressed: "What the face shows" };
  const what = kinds[answer.kind];
  find("caption", made).textContent = affect ? `${what}: valence and arousal, 1 to 9` : what;
  find("th.number", made).textContent = affect ? "Value" : "Probability";
  const likely = answer.likely || [];
  for (const [label, value] of sorted(answer.scene)) {
    const row = element("tr");
    const head = element("th", label);
    head.scope = "row";
    if (likely.includes(label)) {
      row.className = "is-likely";
      head.append(" ", element("span", "likely", "mark"));
    }
    const cell = element("td");
    const bar = element("span", undefined, "bar");
    bar.style.width = `${100 * (affect ? (value - 1) / 8 : value)}%`;
    cell.append(bar);
    row.append(head, cell, element("td", amount(model, value), "number"));
    find("tbody", made).append(row);
  }
  const notes = [];
  if (answer.is_unfamiliar) notes.push("This image is unlike those that the model was trained on: its answer is a guess.");
  if (!affect && answer.valence !== null) {
    notes.push(`Valence ${answer.valence.toFixed(1)} (1 negative, 9 positive), arousal ${answer.arousal.toFixed(1)} (1 calm, 9 excited).`);
  }
  find(".judged", made).textContent = notes.join(" ");
  find(".likely", made).textContent = likely.length
    ? `Likely: ${likely.join(", ")}. The true label is in such a set for ${Math.round(100 * Number(share))} % of images like those of training.`
    : "";
}

function drawPeople(made, answer) {
  find(".people-note", made).textContent = people(answer);
  for (const person of answer.persons || []) {
    const felt = person.emotions
      ? `feels ${sorted(person.emotions).slice(0, 2).map(([label, p]) => `${label} ${percent(p)}`).join(", ")}`
      : "what they feel is not known to this model";
    find(".people", made).append(element("li", `found with confidence ${percent(person.confidence)}; ${felt}`));
  }
}

function drawFaces(made, answer) {
  find(".faces-part", made).hidden = answer.faces === null;
  const faces = answer.faces || [];
  const read = faces.filter((face) => face.expressions);
  const counts = new Map();
  for (const face of read) {
    const [label] = sorted(face.expressions)[0];
    counts.set(label, (counts.get(label) || 0) + 1);
  }
  const shown = [...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => `${label} ${count}`).join(", ");
  const small = faces.length - read.length;
  find(".faces-note", made).textContent = faces.length === 0
    ? "No face found."
    : `${faces.length} found${shown ? `: ${shown}` : ""}${small ? `; ${small} too small to tell` : ""}. What a face shows is not what its owner feels.`;
  for (const face of faces) {
    const words = face.expressions
      ? sorted(face.expressions).slice(0, 2).map(([label, p]) => `${label} ${percent(p)}`).join(", ")
      : "too small to tell";
    const whose = face.person === null ? "" : `person ${face.person + 1}: `;
    find(".faces", made).append(element("li", whose + words));
  }
}

function heatMap(made, model, answer, image, { file, name, turn }) {
  const button = find(".heat", made);
  const choice = find(".heat-label", made);
  for (const label of model.labels) choice.append(new Option(label, label));
  const [top] = sorted(answer.scene)[0];
  if (model.labels.includes(top)) choice.value = top;
  const kept = new Map();

  async function put() {
    const label = choice.value;
    if (button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true"); // not disabled: that would take the keyboard's focus away
    try {
      if (!kept.has(label)) {
        say(`Drawing the heat map for ${label} …`);
        const path = address("/explain", { model: model.name, label });
        const picture = await (await ask(path, { method: "POST", body: form(file) })).blob();
        if (turn !== asked) return; // another image has taken its place
        kept.set(label, show(URL.createObjectURL(picture)));
      }
      complain("");
      image.src = kept.get(label);
      image.alt = `${name}, with the places that speak for ${label} in bright colours`;
      find(".frame", made).hidden = false;
      button.setAttribute("aria-pressed", "true");
      say(`Heat map of ${model.name}: bright places speak for ${label}.`);
    } catch (failure) {
      if (turn === asked) complain(failure.message);
    }
    button.setAttribute("aria-busy", "false");
    if (choice.value !== label) put(); // another one was chosen meanwhile
  }

  button.addEventListener("click", () => {
    if (button.getAttribute("aria-pressed") === "true") {
      image.src = pictureUrl;
      image.alt = name;
      button.setAttribute("aria-pressed", "false");
      say("The heat map is hidden.");
    } else {
      put();
    }
  });
  choice.addEventListener("change", () => { if (button.getAttribute("aria-pressed") === "true") put(); });
}

function start() {
  for (const id of ["choose", "take"]) {
    const input = find(`#${id}`);
    find(`[data-opens=${id}]`).addEventListener("click", () => input.click());
    input.addEventListener("change", () => { const [file] = input.files; input.value = ""; take(file); });
  }
  const drop = find("#drop");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // an image dropped beside the field would replace the page
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop") take([...event.dataTransfer.files].find(Boolean));
    });
  }
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) { event.preventDefault(); take(file); }
  });
  find("#key").addEventListener("change", readModels);
  readModels();
}

start();
