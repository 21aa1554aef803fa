// The page: takes images, has them answered a few at a time, shows one of them with its answers.

import { article, short, summary } from "./answer.js";
import { complain, download, element, find, say, sorted } from "./elements.js";
import { drawExample } from "./example.js";
import { chosen, given } from "./files.js";
import { ask, predict, prepared } from "./server.js";
import { csv } from "./table.js";

const AT_ONCE = 4; // images that wait for an answer
const MAX_NAMED = 8; // of what went wrong
let models = [];
let items = []; // { file, name, url, sent, answers, share, maps, tile }: what has been given and is not refused
let failed = []; // { name, error }
let shown = null; // item whose answers are on the page
let wanted = null; // item to show as soon as it is answered
let taken = 0; // number of calls of `take`
let wantedIn = 0; // the call that last set `wanted`
let stop = new AbortController();
let working = 0; // calls of `answerAll`

async function readModels() {
  try {
    models = await (await ask("models")).json();
  } catch (failure) {
    complain(failure.message);
    return false;
  }
  complain("");
  offerCoverage(Math.max(...models.map((model) => model.max_coverage)));
  find("#results").classList.toggle("compared", models.length > 1);
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

async function take(found, skipped = []) { // see `given`
  complain("");
  taken += 1;
  const call = taken;
  failed.push(...skipped);
  tellFailed();
  offer();
  if (skipped.length) complain(linesOf(skipped));
  if (!found.length || (!models.length && !(await readModels()))) return;
  const added = found.map(({ file, name }) => ({ file, name: name || "the pasted image", url: URL.createObjectURL(file) }));
  items.push(...added);
  if (call > wantedIn) { // of those that wait for the models, a later one may be here first
    [wanted] = added;
    wantedIn = call;
  }
  for (const item of added) addTile(item);
  await answerAll(added);
}

// Ask about images. Those that can't be answered are named and forgotten, or keep the answers that they have.
async function answerAll(asked) {
  const { signal } = stop;
  const queue = [...asked];
  const refused = [];
  working += 1;
  const progress = find("#progress");
  progress.max = working === 1 ? asked.length : progress.max + asked.length;
  progress.value = working === 1 ? 0 : progress.value;
  find("#working").hidden = progress.max === 1;
  say(asked.length === 1 ? `Looking at ${asked[0].name} …` : `Looking at ${asked.length} images …`);

  async function answerSome() {
    for (let item = queue.shift(); item && !signal.aborted; item = queue.shift()) {
      try {
        await answer(item, signal);
      } catch (failure) {
        if (signal.aborted) return;
        refused.push({ name: item.name, error: failure.message.replace(/^image: /, "") });
        if (!item.answers) forget(item);
      }
      progress.value += 1;
    }
  }

  await Promise.all(Array.from({ length: AT_ONCE }, answerSome));
  working -= 1;
  find("#working").hidden = working === 0 || progress.max === 1;
  if (signal.aborted) return;
  report(asked, refused);
}

async function answer(item, signal) {
  const share = find("#coverage").value;
  item.sent ??= await prepared(item.file);
  const answers = await Promise.all(models.map((model) => predict(model, item, share, signal)));
  if (!items.includes(item)) return;
  Object.assign(item, { answers, share, maps: item.maps || new Map() });
  fillTile(item);
  if (item === wanted || shown === null) show(item);
}

function report(asked, refused) {
  const answered = asked.filter((item) => item.answers);
  const not = refused.length ? `; no prediction for ${refused.length}` : "";
  failed.push(...refused);
  tellFailed();
  if (asked.length > 1 && answered.length) say(`${answered.length} images answered: ${counted(answered)}${not}.`);
  else if (!answered.length) say(asked.length === 1 ? `No prediction for ${asked[0].name}.` : "No predictions.");
  if (refused.length) complain(linesOf(refused));
}

// The first few of what went wrong, a line each.
function linesOf(refused) {
  const rest = refused.length > MAX_NAMED ? [`and ${refused.length - MAX_NAMED} more`] : [];
  return [...refused.slice(0, MAX_NAMED).map(({ name, error }) => `${name}: ${error}`), ...rest].join("\n");
}

function tellFailed() { // stays, whatever happens after
  find("#failed").hidden = failed.length === 0;
  find("#failed summary").textContent = failed.length === 1 ? "No prediction for 1 file" : `No prediction for ${failed.length} files`;
  find("#failed ul").replaceChildren(...failed.map(({ name, error }) => element("li", `${name}: ${error}`)));
}

// How many of each label, by the first model; or the means of values.
function counted(answered) {
  const scenes = answered.map((item) => item.answers[0].scene);
  if (models[0].task === "affect") {
    const mean = (label) => scenes.reduce((sum, scene) => sum + scene[label], 0) / scenes.length;
    return models[0].labels.map((label) => `${label} ${mean(label).toFixed(1)} on average`).join(", ");
  }
  const counts = Object.create(null); // a label may be called constructor
  const labels = answered.flatMap((item) => item.answers[0].assigned_labels || [sorted(item.answers[0].scene)[0][0]]);
  for (const label of labels) counts[label] = (counts[label] || 0) + 1;
  return sorted(counts).map(([label, count]) => `${count} ${label}`).join(", ");
}

function show(item) {
  shown = item;
  if (item === wanted) wanted = null;
  find("input", item.tile).checked = true;
  find("#results").replaceChildren(...models.map((model, i) => article(model, item.answers[i], item)));
  const told = models.map((model, i) => summary(model, item.answers[i], models.length > 1));
  say(`${item.name}: ${told.join(" ")}`);
}

function addTile(item) {
  item.tile = element("label", undefined, "tile");
  const choice = element("input");
  choice.type = "radio";
  choice.name = "image";
  choice.disabled = true;
  choice.addEventListener("change", () => { wanted = null; show(item); });
  const image = element("img");
  image.loading = "lazy"; // of hundreds, those that are seen
  image.src = item.url;
  image.alt = "";
  image.addEventListener("error", () => image.remove());
  item.tile.append(choice, image, element("span", "…", "short"), element("span", item.name, "name"));
  find("#images .tiles").append(item.tile);
  offer();
}

function fillTile(item) {
  find("input", item.tile).disabled = false;
  find(".short", item.tile).textContent = short(models[0], item.answers[0]);
  offer();
}

function offer() {
  find("#images").hidden = items.length < 2;
  find("#images legend").textContent = `${items.length} images`;
  find("#example")?.toggleAttribute("hidden", items.length + failed.length > 0);
  find("#keep").hidden = !failed.length && !items.some((item) => item.answers);
}

function forget(item) {
  items = items.filter((one) => one !== item);
  item.tile.remove();
  for (const url of [item.url, ...[...(item.maps?.values() || [])].map(({ url }) => url)]) URL.revokeObjectURL(url);
  if (item === wanted) [wanted = null] = items.filter((one) => !one.answers);
  offer();
}

function halt() {
  stop.abort();
  stop = new AbortController();
  for (const item of items.filter((one) => !one.answers)) forget(item);
}

function clear() {
  halt();
  for (const item of items) forget(item);
  shown = null;
  failed = [];
  tellFailed();
  offer();
  find("#results").replaceChildren();
  complain("");
  say("");
  find("[data-opens=choose]").focus();
}

async function downloadTable() {
  const answers = items.filter((item) => item.answers).flatMap((item) => item.answers);
  const url = URL.createObjectURL(new Blob([await csv(answers, failed)], { type: "text/csv" }));
  download(url, "answers.csv");
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

async function takeGiven(event) {
  if (event.target instanceof HTMLInputElement && event.type === "paste") return; // into the field of the key
  event.preventDefault();
  try {
    const skipped = [];
    await take(await given(event.clipboardData || event.dataTransfer, skipped), skipped);
  } catch (failure) {
    complain(failure.message);
  }
}

function start() {
  for (const id of ["choose", "take"]) {
    const input = find(`#${id}`);
    find(`[data-opens=${id}]`).addEventListener("click", () => input.click());
    input.addEventListener("change", () => { const files = [...input.files]; input.value = ""; take(chosen(files)); });
  }
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault(); // an image dropped beside the field would replace the page
      find("#drop").classList.toggle("over", kind === "dragover");
    });
  }
  document.addEventListener("drop", takeGiven);
  document.addEventListener("paste", takeGiven);
  find("#coverage").addEventListener("change", () => { wanted = shown; answerAll(items.filter((item) => item.answers)); });
  find("#key").addEventListener("change", readModels);
  find("#stop").addEventListener("click", () => { halt(); say("Stopped."); });
  find("#clear").addEventListener("click", clear);
  find("#table").addEventListener("click", downloadTable);
  readModels();
  drawExample(take).catch(() => find("#example").remove()); // the page works without it
}

start();
