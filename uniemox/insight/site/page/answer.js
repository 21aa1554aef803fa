// An answer as it is drawn: the image with boxes, bars, people, faces.

import { element, find, percent, sorted } from "./elements.js";
import { offerMaps } from "./maps.js";
import { schema } from "./table.js";

const KINDS = { evoked: "What the scene evokes", felt: "What the people in it feel", expressed: "What the face shows" };

const DRAWN = [ // in ways of their own, or left out
  "sha256", "name", "scene", "kind", "valence", "arousal", "valence_interval", "arousal_interval", "affect_from",
  "familiarity", "is_unfamiliar", "is_colourless", "view", "persons", "faces", "likely", "unmapped", "width_px", "height_px", "label_set",
  "model",
];

const SHOWN_PX = 400; // at least, of the longer side of an image

function amount(model, value) { return model.task === "affect" ? value.toFixed(1) : percent(value); }

function people(answer) {
  if (answer.persons === null) return "No person detector was run.";
  const count = answer.persons.length;
  return count === 0 ? "Nobody found." : count === 1 ? "1 person found." : `${count} people found.`;
}

// One sentence.
export function summary(model, answer, isOneOfSeveral) {
  const top = sorted(answer.scene).slice(0, 2).map(([label, value]) => `${label} ${amount(model, value)}`).join(", ");
  return `${isOneOfSeveral ? `${model.name}: ` : ""}${top}. ${people(answer)}`;
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
  drawBars(made, model, answer, item.share);
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

function drawBars(made, model, answer, share) {
  const isAffect = model.task === "affect";
  const what = KINDS[answer.kind];
  find("caption", made).textContent = isAffect ? `${what}: valence and arousal, 1 to 9` : what;
  find("th.number", made).textContent = isAffect ? "Value" : "Probability";
  const likely = answer.likely || [];
  for (const [label, value] of sorted(answer.scene)) {
    const row = element("tr");
    const head = element("th", label);
    head.scope = "row";
    if (likely.includes(label)) {
      row.className = "is-likely";
      head.append(" ", element("span", "likely", "mark"));
    }
    const track = element("span", undefined, "track");
    const bar = element("span", undefined, "bar");
    bar.style.width = `${100 * (isAffect ? (value - 1) / 8 : value)}%`;
    track.append(bar);
    const cell = element("td");
    cell.append(track);
    row.append(head, cell, element("td", amount(model, value), "number"));
    find("tbody", made).append(row);
  }
  const notes = [];
  if (answer.is_colourless) notes.push("This image has no colour: answers for such images are less reliable.");
  if (answer.is_unfamiliar) notes.push("This image is unlike those that the model was trained on: its answer is a guess.");
  if (answer.affect_from === "ratings") {
    const rated = (name, ends) => {
      const [low, high] = answer[`${name}_interval`];
      return `${name} ${answer[name].toFixed(1)} (scale 1 to 9; ${ends}; 90 % interval ${low.toFixed(1)} to ${high.toFixed(1)})`;
    };
    notes.push(`People would rate: ${rated("valence", "9 = positive")}, ${rated("arousal", "9 = excited")}.`);
  } else if (answer.affect_from === "norms") {
    notes.push(`Valence ${answer.valence.toFixed(1)} (scale 1 to 9), estimated from how positive the label words are.`);
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
