"use strict";
// The annotators' page: what it asks is the plan's form, what it says is in words.json.

let words = {};
let language = "en";

function say(key, values = {}) {
  return words[language][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// Text of a label: in another language than the plan's, followed by the plan's own word, which attention checks use.
function named(label) {
  if (label === "none") return say("none");
  const own = new Map(Object.entries(words.labels[language] || {})).get(label);
  return own === undefined || own === label ? label : `${own} (${label})`;
}

// ---- answers that the server has not acknowledged yet: one entry of localStorage each

const pending = {
  prefix: () => `curate:${me.project}:${me.id}:`,
  keys() {
    return Object.keys(localStorage).filter((key) => key.startsWith(this.prefix())).sort();
  },
  count() {
    return this.keys().length;
  },
  add(answer) {
    const at = String(Date.now()).padStart(15, "0");
    const number = String((this.number = (this.number || 0) + 1)).padStart(6, "0");
    localStorage.setItem(`${this.prefix()}${at}-${number}-${answer.id}`, JSON.stringify(answer));
  },
  tasks() {
    return new Set(this.keys().map((key) => JSON.parse(localStorage.getItem(key)).task));
  },
};

let sending = false;
let wait = 1000;
let again = 0;
const MAX_BYTES = 200 * 1024; // of answers in one request; the server accepts 256 KiB

async function send() {
  if (sending) return;
  sending = true;
  try {
    for (let keys = pending.keys(); keys.length > 0; keys = pending.keys()) {
      let size = 0;
      const measure = (key) => new TextEncoder().encode(localStorage.getItem(key)).length;
      const part = keys.slice(0, 200).filter((key) => (size += measure(key)) <= MAX_BYTES);
      const answers = part.map((key) => JSON.parse(localStorage.getItem(key))).filter((answer) => answer !== null);
      const { saved, refused } = await ask("/api/answers", { answers });
      const over = new Set([...saved, ...refused]);
      if (over.size === 0) throw new Error("nothing was acknowledged");
      part.forEach((key) => over.has(key.split("-").pop()) && localStorage.removeItem(key));
      if (refused.length > 0) show(say("refused", { count: refused.length }));
      wait = 1000;
      tellSaved();
    }
  } catch (error) {
    if (error instanceof Refused && error.status < 500) {
      show(`${error.message}. ${say("kept")}`);
    }
    tellSaved();
    clearTimeout(again);
    again = setTimeout(send, wait);
    wait = Math.min(wait * 2, 8000);
  } finally {
    sending = false;
  }
}

function tellSaved() {
  const count = pending.count();
  const told = count === 0 ? say("saved") : count === 1 ? say("waits") : say("wait", { count });
  if (byId("saved").textContent !== told) byId("saved").textContent = told;
}

// ---- questions besides the label: scales, each value with a figure, and words

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A figure for a share from 1 (lowest) to 9: a face that frowns or smiles, one that sleeps or bursts, or a bar that grows.
function figure(kind, value) {
  const made = drawn("svg", { viewBox: "0 0 40 40", "aria-hidden": "true", class: "scale-figure" });
  const line = (path) => made.append(drawn("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linecap": "round" }));
  const dot = (x, y, r) => made.append(drawn("circle", { cx: x, cy: y, r, fill: "currentColor" }));
  const ring = (r) => made.append(drawn("circle", { cx: 20, cy: 20, r, fill: "none", stroke: "currentColor", "stroke-width": "2" }));
  if (kind === "bar") {
    made.append(drawn("rect", { x: 13, y: 36 - 3.6 * value, width: 14, height: 3.6 * value, fill: "currentColor" }));
    return made;
  }
  if (kind === "face") {
    ring(16);
    dot(14, 16, 2);
    dot(26, 16, 2);
    const bend = 2.2 * (value - 5); // of the mouth
    line(`M 12 ${27 - bend / 3} Q 20 ${27 + bend} 28 ${27 - bend / 3}`);
    return made;
  }
  ring(9);
  if (value <= 2) { line("M 15 19 h 4"); line("M 21 19 h 4"); } // asleep
  else { dot(17, 19, 0.6 + value / 6); dot(23, 19, 0.6 + value / 6); }
  line(value <= 4 ? "M 17 24 h 6" : `M 17 24 q 3 ${value - 3} 6 0`);
  for (let ray = 0; ray < value + 3 && value > 2; ray += 1) {
    const angle = (2 * Math.PI * ray) / (value + 3);
    const [x, y] = [Math.sin(angle), -Math.cos(angle)];
    line(`M ${20 + 12 * x} ${20 + 12 * y} L ${20 + (12 + 0.75 * (value - 1)) * x} ${20 + (12 + 0.75 * (value - 1)) * y}`);
  }
  return made;
}

// Texts of a question, in English where it has none in this language.
function textsOf(question) {
  return question.texts[language] || question.texts.en;
}

function drawScales(scales) {
  byId("scales").replaceChildren(...scales.map((question) => {
    const { name, scale } = question;
    const { ask: text, low, high } = textsOf(question);
    const group = element("fieldset", undefined, { class: "scale", "data-scale": name });
    group.style.setProperty("--steps", scale);
    group.append(element("legend", text));
    for (let value = 1; value <= scale; value += 1) {
      const choice = element("label");
      const end = { 1: low, [scale]: high }[value] || "";
      choice.append(element("input", undefined, { type: "radio", name, value, "aria-label": end === "" ? value : `${value}, ${end}` }));
      choice.append(figure(question.figure, 1 + (8 * (value - 1)) / (scale - 1)));
      group.append(choice);
    }
    group.append(element("span", low, { class: "low" }), element("span", high, { class: "high" }));
    return group;
  }));
}

function drawTexts(questions) {
  byId("texts").replaceChildren(...questions.map((question) => {
    const part = element("p");
    const area = element("textarea", undefined, { id: `words-${question.name}`, maxlength: 2000, rows: 2 });
    part.append(element("label", textsOf(question).ask, { for: area.id }), " ", area);
    return part;
  }));
}

// ---- annotate

const AHEAD = 30; // images loaded before they are needed: ten at once, and enough for a minute without the server
const BEHIND = 10;

async function annotatePage() {
  words = await ask("/words.json");
  const form = await ask("/api/form");
  const scales = form.questions.filter((question) => question.scale !== null);
  const texts = form.questions.filter((question) => question.scale === null);
  const isPlain = !form.several && form.questions.length === 0;
  const queue = []; // {id, check, suggested, answer, url, loading}
  let at = 0;
  let shownAt = 0;
  let newest = 0;
  let isAsking = false;
  let isOver = false;
  let later = 0; // timer after which tasks are asked for again
  let retry = 0; // timer after which images are asked for again; until then none is
  let answered = me.answered;
  let chosen = []; // labels of the image that is shown
  let buttons = new Map();
  document.body.dataset.form = isPlain ? "plain" : "long";

  async function more() {
    if (isAsking || isOver || queue.length - at > AHEAD) return;
    isAsking = true;
    try {
      const { tasks } = await ask(`/api/tasks?after=${newest}&limit=${AHEAD}`);
      const waiting = pending.tasks();
      for (const task of tasks) {
        newest = Math.max(newest, task.id);
        if (!waiting.has(task.id)) queue.push({ ...task, answer: null, url: null, loading: false });
      }
      isOver = tasks.length === 0;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) show(error.message);
      else {
        clearTimeout(later);
        later = setTimeout(more, 2000);
      }
    } finally {
      isAsking = false;
    }
    preload();
    draw();
  }

  async function recall() { // the last answers, so that one can go back to them after loading the page again
    const { answers } = await ask(`/api/answers?limit=${BEHIND}`);
    const latest = new Map(answers.reverse().map((one) => [one.task, one]));
    const kept = (one) => ({ label: one.label, ...one.details });
    latest.forEach((one, id) => queue.push({ id, check: null, suggested: null, answer: kept(one), url: null, loading: false }));
    at = queue.length;
  }

  function preload() {
    if (retry !== 0) return;
    queue.slice(at, at + AHEAD).filter((task) => task.url === null && !task.loading).slice(0, 10).forEach(load);
    for (const task of queue.slice(0, Math.max(0, at - BEHIND))) {
      if (task.url !== null) URL.revokeObjectURL(task.url);
      task.url = null;
    }
  }

  async function load(task) {
    if (task.loading || retry !== 0) return;
    task.loading = true;
    let isRefused = false;
    try {
      const response = await fetch(`/api/pictures/${task.id}`, { credentials: "same-origin" });
      if (response.ok) task.url = URL.createObjectURL(await response.blob());
      else if (response.status === 404) drop(task);
      else isRefused = response.status === 401;
    } catch {
      // no connection: as below
    }
    task.loading = false;
    if (task.url === null && queue.includes(task)) { // never straight back
      if (isRefused) show(say("ended"));
      else if (retry === 0) retry = setTimeout(() => { retry = 0; preload(); }, 2000);
      return;
    }
    draw();
    preload();
    more();
  }

  function drop(task) { // its image was taken down, or left out
    const place = queue.indexOf(task);
    if (place >= 0) queue.splice(place, 1);
    if (place >= 0 && place < at) at -= 1;
  }

  function draw() {
    const task = queue[at];
    const image = byId("picture");
    byId("progress").textContent = say("progress", { answered, total: me.total });
    const end = task === undefined && isOver;
    byId("over").hidden = !end;
    byId("last").hidden = queue.length === 0;
    byId("work").hidden = end;
    trace();
    if (task === undefined) {
      image.hidden = true;
      if (end) tell(say("thanks"));
      return;
    }
    if (task.url === null) {
      image.hidden = true;
      load(task);
      return;
    }
    if (image.dataset.task !== String(task.id) || image.hidden) {
      image.src = task.url;
      image.alt = task.check ? say("check", { label: task.check }) : say("image", { number: at + 1 });
      image.dataset.task = String(task.id);
      image.hidden = false;
      shownAt = performance.now();
      fill(task);
      tell(task.check || task.answer === null ? image.alt : say("answered", { number: at + 1, label: task.answer.label === "skip" ? say("skip") : named(task.answer.label) }));
    }
  }

  function trace() { // the answer just given, which Backspace opens again
    const { answer, url } = queue[at - 1] || {};
    byId("trace").hidden = !answer;
    if (!answer) return;
    const labels = answer.label === "skip" ? say("skip") : (answer.labels || [answer.label]).map(named).join(", ");
    byId("trace-words").textContent = say("answered", { number: at, label: labels });
    byId("trace-image").hidden = url === null;
    if (url !== null) byId("trace-image").src = url;
  }

  function fill(task) { // what was answered before, or nothing
    const answer = task.answer || {};
    chosen = answer.labels || (answer.label && answer.label !== "skip" ? [answer.label] : []);
    press(chosen);
    for (const { name } of scales) {
      for (const input of document.getElementsByName(name)) input.checked = Number(input.value) === answer[name];
    }
    for (const { name } of texts) byId(`words-${name}`).value = answer[name] || "";
    byId("reason").value = "";
    byId("skip").disabled = true;
    warn([]);
    byId("suggested").hidden = !task.suggested;
    if (task.suggested) byId("suggested").textContent = say("suggested", { label: named(task.suggested) });
  }

  function tell(sentence) {
    byId("announce").textContent = sentence;
  }

  function isShown(task) {
    return task !== undefined && !byId("picture").hidden && byId("picture").dataset.task === String(task.id);
  }

  function choose(label) {
    const task = queue[at];
    if (!isShown(task)) return;
    if (isPlain || task.check) {
      answer({ label });
      return;
    }
    if (chosen.includes(label)) chosen = chosen.filter((one) => one !== label);
    else chosen = form.several && label !== "none" ? [...chosen.filter((one) => one !== "none"), label] : [label];
    press(chosen);
  }

  function next() {
    if (isPlain || !isShown(queue[at])) return;
    const values = {};
    for (const { name } of scales) {
      const input = [...document.getElementsByName(name)].find((one) => one.checked);
      if (input) values[name] = Number(input.value);
    }
    const missing = chosen[0] === "none" ? [] : scales.map(({ name }) => name).filter((name) => !(name in values));
    if (chosen.length === 0) missing.unshift("labels");
    warn(missing);
    if (missing.length > 0) return;
    const several = form.several && chosen[0] !== "none" ? { labels: chosen } : {};
    answer({ label: chosen[0], ...several, ...values, ...written() });
  }

  function warn(missing) { // where something is still to be said
    byId("missing").textContent = missing.length > 0 ? say("missing") : "";
    byId("labels").classList.toggle("missing", missing.includes("labels"));
    for (const group of byId("scales").children) group.classList.toggle("missing", missing.includes(group.dataset.scale));
    document.querySelector("#ask .missing")?.scrollIntoView({ block: "nearest" });
  }

  function written() { // answers in words, where there are any
    const values = texts.map(({ name }) => [name, byId(`words-${name}`).value.trim()]);
    return Object.fromEntries(values.filter(([, text]) => text !== ""));
  }

  function skip() {
    const reason = byId("reason").value;
    if (reason !== "" && isShown(queue[at])) answer({ label: "skip", skip: reason, ...written() });
  }

  function answer(said) {
    const task = queue[at];
    const seconds = Math.min((performance.now() - shownAt) / 1000, 86400);
    const suggested = task.suggested ? { suggested: task.suggested } : {};
    try {
      pending.add({ id: freshId(), task: task.id, seconds, ...said, ...suggested });
    } catch {
      show(say("no storage"));
      return;
    }
    if (task.answer === null && !task.check) answered += 1;
    task.answer = said;
    at += 1;
    tellSaved();
    send();
    preload();
    draw();
    more();
    if (!isPlain) byId("question").scrollIntoView({ block: "nearest" });
  }

  function back() {
    if (at === 0) return;
    at -= 1;
    draw();
  }

  function speak() { // everything in the language that is chosen
    document.documentElement.lang = language;
    document.title = say("title");
    const places = { thanks: "thanks", last: "last", new: "new", next: "next", back: "back", skip: "skip", reread: "instructions", "intro-heading": "instructions" };
    Object.assign(places, { question: me.kind, several: "several", keys: isPlain ? "keys" : "form keys", "agree-words": "agree", begin: "begin" });
    for (const [place, key] of Object.entries(places)) byId(place).textContent = say(key);
    byId("language").setAttribute("aria-label", say("language"));
    const reasons = ["unseen", "upsetting", "unsure", "other"].map((reason) => element("option", say(reason), { value: reason }));
    byId("reason").replaceChildren(element("option", say("why"), { value: "" }), ...reasons);
    byId("reason").setAttribute("aria-label", say("why"));
    buttons = labelButtons(choose, named);
    drawScales(scales);
    drawTexts(texts);
    byId("picture").dataset.task = ""; // drawn anew
    tellSaved();
    draw();
  }

  function offerLanguages() {
    const known = Object.keys(words).filter((one) => one !== "labels");
    const wanted = [localStorage.getItem("curate:language"), ...navigator.languages.map((one) => one.slice(0, 2))];
    language = wanted.find((one) => known.includes(one)) || "en";
    byId("language").replaceChildren(...known.map((one) => element("option", words[one].name, { value: one, lang: one })));
    byId("language").value = language;
    byId("language").addEventListener("change", () => {
      language = byId("language").value;
      localStorage.setItem("curate:language", language);
      speak();
    });
  }

  const isAsked = () => form.consent !== "" && !form.has_agreed;
  let whenBegun = () => {};

  function introduce() { // instructions, and what is to be agreed to
    byId("instructions").textContent = form.instructions;
    byId("consent").textContent = form.consent;
    byId("agree-part").hidden = !isAsked();
    byId("begin").disabled = isAsked() && !byId("agree").checked;
    byId("intro").hidden = false;
    byId("work").hidden = true;
    byId("reread").hidden = true;
    return new Promise((resolve) => { whenBegun = resolve; });
  }

  async function start() {
    try {
      if (isAsked()) await ask("/api/consent", {});
    } catch (error) {
      show(error.message);
      return;
    }
    form.has_agreed = true;
    byId("intro").hidden = true;
    byId("work").hidden = false;
    byId("reread").hidden = form.instructions === "";
    draw();
    whenBegun();
  }

  offerLanguages();
  byId("several").hidden = !form.several;
  byId("next").hidden = isPlain;
  byId("reread").hidden = form.instructions === "";
  byId("reread").addEventListener("click", introduce);
  byId("begin").addEventListener("click", start);
  byId("agree").addEventListener("change", () => { byId("begin").disabled = !byId("agree").checked; });
  byId("next").addEventListener("click", next);
  byId("back").addEventListener("click", back);
  byId("skip").addEventListener("click", skip);
  byId("reason").addEventListener("change", () => { byId("skip").disabled = byId("reason").value === ""; });
  byId("last").addEventListener("click", back);
  byId("new").addEventListener("click", () => { isOver = false; more(); });
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || event.repeat || !byId("intro").hidden) return;
    const isOnRadio = event.target.type === "radio"; // whose arrows and digits are its own
    if (isOnRadio && /^[1-9]$/.test(event.key)) {
      const input = [...document.getElementsByName(event.target.name)].find((one) => one.value === event.key);
      event.preventDefault();
      if (input === undefined) return; // above the scale
      input.checked = true;
      input.focus();
      return;
    }
    if (event.key === "Backspace" || (event.key === "ArrowLeft" && !isOnRadio)) back();
    else if (event.key === "Enter" && event.target.tagName !== "BUTTON") next();
    else if (buttons.has(event.key)) choose(buttons.get(event.key));
    else return;
    event.preventDefault();
  });
  addEventListener("online", () => {
    clearTimeout(retry);
    retry = 0;
    wait = 1000;
    send();
    preload();
    more();
  });
  speak();
  const seen = `curate:${me.project}:${me.id}-instructions`;
  if (isAsked() || (form.instructions !== "" && !localStorage.getItem(seen))) {
    await introduce();
    if (form.instructions !== "") localStorage.setItem(seen, "read");
  }
  await send();
  await recall();
  await more();
}
