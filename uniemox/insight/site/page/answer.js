// An answer as it is drawn: the image with boxes, bars, people, faces.

import { element, find, percent, sorted } from "./elements.js";
import { offerMaps } from "./maps.js";
import { schema } from "./table.js";

const KINDS = { evoked: "What the scene evokes", felt: "What the people in it feel", expressed: "What the face shows" };

const DRAWN = [ // in ways of their own, or left out
  "sha256", "name", "scene", "kind", "valence", "arousal", "dominance", "valence_interval", "arousal_interval", "affect_from",
  "familiarity", "is_unfamiliar", "is_colourless", "view", "persons", "faces", "likely", "assigned_labels", "unmapped", "width_px", "height_px", "label_set",
  "model",
];

const SHOWN_PX = 400; // at least, of the longer side of an image

function amount(model, value) { return model.task === "affect" ? value.toFixed(1) : percent(value); }

function people(answer) {
  if (answer.persons === null) return ""; // nobody was looked for
  const count = answer.persons.length;
  return count === 0 ? "Nobody found." : count === 1 ? "1 person found." : `${count} people found.`;
}

// What an answer says first: the two most probable labels, or all that a model of several labels gives.
function first(answer) {
  const given = answer.assigned_labels;
  return given?.length ? given.map((label) => [label, answer.scene[label]]) : sorted(answer.scene).slice(0, 2);
}

// One sentence.
export function summary(model, answer, isOneOfSeveral) {
  const top = first(answer).map(([label, value]) => `${label} ${amount(model, value)}`).join(", ");
  return `${isOneOfSeveral ? `${model.name}: ` : ""}${top}. ${people(answer)}`.trim();
}

// What a tile says of an image.
export function short(model, answer) {
  const [[label, value]] = sorted(answer.scene);
  return `${label} ${amount(model, value).replace(" ", "\u00a0")}`;
}

export function article(model, answer, item) {
  const made = find("#result").content.cloneNode(true).firstElementChild;
  find(".model", made).textContent = model.name === "embedded" ? "Built-in model" : model.name;
  made.setAttribute("aria-label", `Answer of ${model.name}`);
  const image = find(".picture", made);
  image.src = item.url;
  image.alt = item.name;
  const scale = Math.min(SHOWN_PX / answer.width_px, SHOWN_PX / answer.height_px);
  if (scale > 1) image.style.width = `${Math.round(scale * answer.width_px)}px`; // small images are enlarged
  const size = `${answer.width_px} x ${answer.height_px} px`;
  const note = item.sent === item.file ? "" : ` (sent as a JPEG of ${size})`;
  find(".file", made).textContent = item.name + note;
  image.addEventListener("error", () => {
    find(".frame", made).hidden = true;
    find(".file", made).textContent = `${item.name} (this browser can't show its format; the heat map can be seen)`;
  });
  drawBoxes(made, answer);
  find(".answer", made).append(...bars(model, answer, item.share));
  drawPeople(made, answer);
  drawFaces(made, answer);
  drawOthers(made, answer);
  offerMaps(made, model, answer, item);
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
}

const PROBABILITIES = [0, 1];
const RATINGS = [1, 9];

// What an answer says of the scene: a table of bars, ratings, warnings, and which labels are likely.
export function bars(model, answer, share) {
  const isAffect = model.task === "affect";
  const given = answer.assigned_labels || [];
  const likely = answer.likely || given;
  const word = answer.likely ? "likely" : "given";
  const what = KINDS[answer.kind];
  const caption = isAffect ? `${what}: ${model.labels.join(" and ")}, 1 to 9` : what;
  const rows = sorted(answer.scene).map(([label, value]) => {
    const words = likely.includes(label) ? [label, " ", element("span", word, "mark")] : [label];
    const made = row(words, barOf(value, isAffect ? RATINGS : PROBABILITIES), amount(model, value));
    made.classList.toggle("is-likely", likely.includes(label));
    return made;
  });
  const parts = [table(caption, ["Emotion", isAffect ? "Value" : "Probability"], rows), ...ratings(answer), judged(answer)];
  if (answer.assigned_labels) parts.push(element("p", givenSentence(given), "likely note"));
  if (answer.likely?.length) {
    const sentence = `Likely: ${likely.join(", ")}. The true label is in such a set for ${Math.round(100 * Number(share))} % of images like those of training.`;
    parts.push(element("p", sentence, "likely note"));
  }
  return parts;
}

function givenSentence(given) {
  const labels = given.length ? given.join(", ") : "none";
  return `Given: ${labels}. Each label has a probability and a threshold of its own; several or none may be given.`;
}

// As `bars` of uniemox/io/macros.html.
function table(caption, headings, rows) {
  const made = find("#bars").content.cloneNode(true).firstElementChild;
  find("caption", made).textContent = caption;
  [...made.querySelectorAll("thead th")].forEach((cell, i) => { cell.textContent = headings[i]; });
  find("tbody", made).append(...rows);
  return made;
}

function row(words, parts, number, small = "") {
  const made = element("tr");
  const [name, fill, figure] = [element("th"), element("td", undefined, "fill"), element("td", number, "number")];
  name.scope = "row";
  name.append(...words);
  const track = element("span", undefined, "track");
  track.append(...parts);
  fill.append(track);
  if (small) figure.append(" ", element("small", small));
  made.append(name, fill, figure);
  return made;
}

function placeOn(value, [low, high]) { return (100 * (value - low)) / (high - low); }

function barOf(value, scale) {
  const bar = element("i", undefined, "bar");
  bar.style.width = `${placeOn(value, scale)}%`;
  return [bar];
}

// How people would rate the image, if a model has learned it from ratings.
function ratings(answer) {
  if (answer.affect_from !== "ratings") return [];
  const rows = Object.entries({ valence: "positive", arousal: "excited" }).map(([name, most]) => {
    const [low, high] = answer[`${name}_interval`];
    const [range, dot] = [element("i", undefined, "range"), element("i", undefined, "dot")];
    range.style.left = `${placeOn(low, RATINGS)}%`;
    range.style.width = `${placeOn(high, RATINGS) - placeOn(low, RATINGS)}%`;
    dot.style.left = `${placeOn(answer[name], RATINGS)}%`;
    return row([`${name} (${most})`], [range, dot], answer[name].toFixed(1), `${low.toFixed(1)} to ${high.toFixed(1)}`);
  });
  return [table("How people would rate it, 1 to 9, with 90 % intervals", ["Rating", "Value"], rows)];
}

function judged(answer) {
  const made = element("div", undefined, "judged");
  if (answer.is_colourless) made.append(element("p", "This image has no colour: answers for such images are less reliable.", "notice"));
  if (answer.is_unfamiliar) made.append(element("p", "This image is unlike those that the model was trained on: its answer is a guess.", "notice"));
  if (answer.affect_from === "norms") {
    made.append(element("p", `Valence ${answer.valence.toFixed(1)} (scale 1 to 9), estimated from how positive the label words are.`, "note"));
  }
  return made;
}

function drawPeople(made, answer) {
  find(".people-part", made).hidden = answer.persons === null;
  find(".people-note", made).textContent = people(answer);
  for (const person of answer.persons || []) {
    const felt = person.emotions
      ? `feels ${felt(person).map(([label, p]) => `${label} ${percent(p)}`).join(", ")}`
      : "what they feel is not known to this model";
    find(".people", made).append(element("li", `found with confidence ${percent(person.confidence)}; ${felt}`));
  }
}

function felt(person) {
  const given = person.assigned_labels;
  return given?.length ? given.map((label) => [label, person.emotions[label]]) : sorted(person.emotions).slice(0, 2);
}

function drawFaces(made, answer) {
  find(".faces-part", made).hidden = answer.faces === null;
  const faces = answer.faces || [];
  const read = faces.filter((face) => face.expressions);
  const counts = {};
  for (const face of read) {
    const [[label]] = sorted(face.expressions);
    counts[label] = (counts[label] || 0) + 1;
  }
  const shown = sorted(counts).map(([label, count]) => `${label} ${count}`).join(", ");
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

// Fields that this page does not know: each with its value, and with its meaning as the server describes it.
async function drawOthers(made, answer) {
  const others = Object.entries(answer).filter(([name]) => !DRAWN.includes(name));
  if (!others.length) return;
  const list = element("ul", undefined, "others");
  find(".judged", made).after(list);
  const { properties } = await schema();
  for (const [name, value] of others) {
    const line = element("li", `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
    line.title = properties[name]?.description || "";
    list.append(line);
  }
}
