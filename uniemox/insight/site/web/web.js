// Takes the place of server.js on a page without a server: the network runs in this browser, and nothing is sent.

import { element, find } from "./elements.js";
import { boxMeans, resize, sceneBox, sceneParts, sceneView } from "./resize.js";

const SITE = new URL("..", import.meta.url);
const MAX_MEGAPIXELS = 100;
const MAX_MAP_PX = 1024; // of the longer side
const BLANK_STD = 4; // of 255
const MIN_SIDE_PX = 16; // as uniemox/predict/network.py
const [GRID, MAX_SPREAD] = [16, 1.6]; // as uniemox/predict/colour.py
const [UNFAMILIAR, ROUNDING] = [0.05, 1e-5]; // as uniemox/predict/confidence.py
const COLOURS = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];
const [OPACITY, UNSEEN] = [0.6, 0.45]; // of heat; brightness of what the network does not look at

let opened = null; // a promise of { info, ort, session }
let last = Promise.resolve(); // a session computes one image at a time

export const prepared = async (file) => file; // nothing is sent, so nothing is made smaller

export const ask = (path) => fetch(new URL(path === "models" ? "models.json" : path, SITE));

async function open() {
  const info = await (await ask("model.json")).json();
  const gpu = await navigator.gpu?.requestAdapter().catch(() => null);
  if (gpu) {
    try {
      return await openWith(info, "webgpu");
    } catch (failure) {
      console.warn(`WebGPU is not used: ${failure.message}`);
    }
  }
  return openWith(info, "wasm");
}

async function openWith(info, provider) {
  const ort = await import(new URL(info.runtime[provider][0], SITE));
  ort.env.wasm.wasmPaths = new URL("runtime/", SITE).href;
  const session = await ort.InferenceSession.create(new URL("model.onnx", SITE).href, { executionProviders: [provider] });
  globalThis.caches?.open(info.version).then((cache) => cache.addAll(info.runtime[provider].map((path) => new URL(path, SITE)))).catch(() => {});
  return { info, ort, session };
}

async function decode(file) {
  const image = await createImageBitmap(file).catch(() => {
    throw new Error("this browser can't read it; save it as JPEG or PNG");
  });
  const { width, height } = image;
  if (width * height > MAX_MEGAPIXELS * 1e6) throw new Error(`it has more than ${MAX_MEGAPIXELS} megapixels; make it smaller`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0);
  image.close();
  return context.getImageData(0, 0, width, height);
}

// Standard deviation of the channel that varies most.
function spread({ data }) {
  const count = data.length / 4;
  return Math.max(...[0, 1, 2].map((channel) => {
    let [sum, squares] = [0, 0];
    for (let i = channel; i < data.length; i += 4) {
      sum += data[i];
      squares += data[i] * data[i];
    }
    return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
  }));
}

// Whether the colour depends on the brightness alone, as uniemox/predict/colour.py has it.
function isColourless(image) {
  const cells = boxMeans(image, GRID);
  const brightness = cells.map(([red, green, blue]) => (0.299 * red + 0.587 * green + 0.114 * blue) / 255);
  return [0, 1, 2].every((channel) => {
    const values = cells.map((cell) => cell[channel]);
    const [a, b, c] = fitCurve(brightness, values);
    const errors = values.map((value, i) => (value - a - b * brightness[i] - c * brightness[i] ** 2) ** 2);
    return Math.sqrt(errors.reduce((sum, error) => sum + error, 0) / errors.length) < MAX_SPREAD;
  });
}

// The curve a + b x + c x² with the least squared errors. Without differences in x, the mean.
function fitCurve(x, y) {
  const rows = [0, 1, 2].map((i) => [0, 1, 2, 3].map((j) => {
    return x.reduce((sum, value, k) => sum + value ** i * (j < 3 ? value ** j : y[k]), 0) + (i === j ? 1e-9 : 0);
  }));
  for (let i = 0; i < 3; i += 1) { // Gauss and Jordan
    const pivot = rows[i][i];
    rows[i] = rows[i].map((value) => value / pivot);
    for (let j = 0; j < 3; j += 1) {
      const factor = rows[j][i];
      if (j !== i) rows[j] = rows[j].map((value, k) => value - factor * rows[i][k]);
    }
  }
  return rows.map((row) => row[3]);
}

// The outputs of the network for one view, as plain arrays.
async function run({ info, ort, session }, view, names) {
  const plane = info.size ** 2;
  const pixels = new Float32Array(3 * plane);
  for (let channel = 0; channel < 3; channel += 1) {
    const [mean, std] = [255 * info.mean[channel], 255 * info.std[channel]];
    for (let i = 0; i < plane; i += 1) pixels[channel * plane + i] = (view.data[4 * i + channel] - mean) / std;
  }
  const scene = new ort.Tensor("float32", pixels, [1, 3, info.size, info.size]);
  const turn = last.catch(() => {}).then(() => session.run({ scene }, names));
  last = turn;
  const found = await turn;
  return Object.fromEntries(names.map((name) => [name, { values: [...found[name].data], dims: found[name].dims }]));
}

function softmax(logits) {
  const most = Math.max(...logits);
  const values = logits.map((value) => Math.exp(value - most));
  const sum = values.reduce((a, b) => a + b, 0);
  return values.map((value) => value / sum);
}

function sigmoid(value) { return 1 / (1 + Math.exp(-value)); }

function familiarityOf(info, distance) {
  const nearer = info.distances.filter((one) => one < distance).length;
  return distance === Infinity ? 0 : (info.distances.length - nearer + 1) / (info.distances.length + 1);
}

// The outputs of one view, as arrays of numbers by name; the distance of a blank view, or of a tiny image, is infinite.
async function outputsOf(network, view, isTiny) {
  const found = await run(network, view, network.info.outputs.filter((name) => name !== "maps"));
  const outputs = Object.fromEntries(Object.entries(found).map(([name, { values }]) => [name, values]));
  if (outputs.distance && (isTiny || spread(view) < BLANK_STD)) outputs.distance = [Infinity];
  return outputs;
}

// The mean of the outputs for several views; infinite distances count only if all are.
function meanOutputs(several, weights) {
  return Object.fromEntries(Object.keys(several[0]).map((name) => {
    let places = several.map((_, i) => i);
    if (name === "distance" && several.some(({ distance }) => distance[0] < Infinity)) {
      places = places.filter((i) => several[i].distance[0] < Infinity);
    }
    return [name, meanRow(places.map((i) => several[i][name]), places.map((i) => weights[i]))];
  }));
}

// Calibrated probabilities before the smoothing; those of several labels have no sum.
function calibrated(info, logits) {
  const divided = logits.map((value) => value / (info.temperature || 1));
  if (info.task === "multilabel") return divided.map((value, i) => sigmoid(value + (info.offsets[i] || 0)));
  return softmax(divided);
}

// Probabilities, those by which likely labels are chosen, familiarity and ratings.
function judge(info, outputs) {
  const { rules } = info;
  const plain = calibrated(info, outputs.logits);
  let [probabilities, familiarity] = [plain, null];
  if (outputs.distance && info.distances.length) familiarity = familiarityOf(info, outputs.distance[0]);
  if (familiarity !== null && info.task !== "multilabel") {
    const weight = Math.min(1, Math.max(rules.min_weight, familiarity / rules.trusted_familiarity));
    probabilities = plain.map((p) => weight * p + (1 - weight) / plain.length);
  }
  const rated = info.ratings && outputs.features ? rate(info.ratings, outputs.features, outputs.logits) : null;
  return { probabilities, ofSets: rules.sets_from === "answer" ? probabilities : plain, familiarity, rated };
}

// Valence and arousal, 1 to 9.
function rate(head, features, logits) {
  const bytes = Uint8Array.from(atob(head.weights), (sign) => sign.charCodeAt(0));
  const weights = new Float32Array(bytes.buffer);
  const inputs = [...features, ...softmax(logits).map(Math.log)];
  return head.bias.map((bias, i) => {
    const sum = inputs.reduce((total, value, j) => total + value * weights[i * inputs.length + j], bias);
    return Math.min(9, Math.max(1, sum));
  });
}

// Low and high end of each rating; each data set of the fit has ends of its own, see uniemox/predict/ratings.py.
function intervals(head, rated, familiarity, isColourless) {
  const isStrange = familiarity !== null && familiarity < UNFAMILIAR;
  const all = isColourless ? [...head.ends, ...head.colourless_ends] : head.ends;
  return rated.map((value, i) => {
    const [lows, highs] = [0, 1].map((end) => all.map((ends) => value + ends[i][end][0] + ends[i][end][1] * value));
    let [low, high] = [Math.min(value, ...lows), Math.max(value, ...highs)];
    const isCutOff = value <= 1 || value >= 9;
    if (isStrange || isCutOff) [low, high] = [Math.min(low, head.spread[i][0]), Math.max(high, head.spread[i][1])];
    return [Math.max(1, low), Math.min(9, high)];
  });
}

function likelyLabels(info, probabilities, coverage) {
  const scores = info.conformal_scores;
  const limit = scores[Math.ceil((scores.length + 1) * coverage - 1e-9) - 1];
  const order = probabilities.map((p, i) => [p, i]).sort((a, b) => b[0] - a[0]);
  return order.filter(([p], n) => n === 0 || 1 - p <= limit + ROUNDING).map(([, i]) => info.labels[i]);
}

// The labels above their thresholds, most probable first; null for a model that gives one label.
function assignedLabels(info, probabilities) {
  if (info.task !== "multilabel") return null;
  const pairs = probabilities.map((p, i) => [p, i]).filter(([p, i]) => p > info.thresholds[i]);
  return pairs.sort((a, b) => b[0] - a[0]).map(([, i]) => info.labels[i]);
}

// The weighted mean of rows of numbers.
function meanRow(rows, weights) {
  const total = weights.reduce((a, b) => a + b, 0);
  return rows[0].map((_, i) => rows.reduce((sum, row, j) => sum + weights[j] * row[i], 0) / total);
}

// The answer for the squares of an image.
function judgeAll(info, several, weights) {
  if (info.rules.long_images === "blend") return judge(info, meanOutputs(several, weights));
  const judged = several.map((outputs) => judge(info, outputs)); // files of version 0.2 average the answers
  const mean = (name) => judged[0][name] && meanRow(judged.map((one) => one[name]), weights);
  const familiarity = judged[0].familiarity === null ? null : meanRow(judged.map((one) => [one.familiarity]), weights)[0];
  return { probabilities: mean("probabilities"), ofSets: mean("ofSets"), familiarity, rated: mean("rated") };
}

// The answer, with the fields of the server's.
export async function predict(model, item, share) {
  const network = await (opened ??= open());
  const { info } = network;
  const image = await decode(item.file);
  const parts = sceneParts(image, info.rules.long_images);
  const isTiny = Math.min(image.width, image.height) < MIN_SIDE_PX;
  const several = [];
  for (const part of parts) {
    several.push(await outputsOf(network, sceneView(part.image, info.size, info.crop_fraction), isTiny));
  }
  const { probabilities, ofSets, familiarity, rated } = judgeAll(info, several, parts.map(({ weight }) => weight));
  const [valence, arousal] = rated || [null, null];
  const colourless = isColourless(image);
  const ends = rated ? intervals(info.ratings, rated, familiarity, colourless) : [null, null];
  return {
    name: item.name,
    scene: Object.fromEntries(info.labels.map((label, i) => [label, probabilities[i]])),
    assigned_labels: assignedLabels(info, probabilities),
    ...{ kind: info.kind, valence, arousal, valence_interval: ends[0], arousal_interval: ends[1] },
    affect_from: rated ? "ratings" : null,
    ...{ familiarity, is_unfamiliar: familiarity !== null && familiarity < UNFAMILIAR, is_colourless: colourless },
    ...{ view: null, persons: null, faces: null },
    likely: share && Number(share) <= model.max_coverage ? likelyLabels(info, ofSets, Number(share)) : null,
    ...{ width_px: image.width, height_px: image.height, label_set: info.label_set, model: info.name },
  };
}

// As server.js: the image in grey with the heat over it, dimmed where the network does not look.
export async function heatMap(model, item, label, scale) {
  const kept = `${label} ${scale}`;
  if (item.maps.has(kept)) return item.maps.get(kept);
  const network = await (opened ??= open());
  const { info } = network;
  if (!info.outputs.includes("maps")) throw new Error("this model has no class-activation maps");
  const image = await decode(item.file);
  const parts = sceneParts(image, info.rules.long_images);
  const maps = [];
  for (const part of parts) maps.push((await run(network, sceneView(part.image, info.size, info.crop_fraction), ["maps"])).maps);
  const [, , rows, columns] = maps[0].dims;
  const index = info.labels.indexOf(label);
  const size = Math.min(1, MAX_MAP_PX / Math.max(image.width, image.height));
  const sheet = resize(image, Math.max(1, Math.round(size * image.width)), Math.max(1, Math.round(size * image.height)));
  const boxes = parts.map(({ image: part, left, top }) => {
    return sceneBox(part.width, part.height, info.size, info.crop_fraction).map((side, i) => side + [left, top][i % 2]);
  });
  const ofLabel = maps.map(({ values }) => values.slice(index * rows * columns, (index + 1) * rows * columns));
  const evidenceAt = (x, y) => parts.reduce((sum, { weight }, i) => {
    const [left, top, right, bottom] = boxes[i];
    if (x < left || x >= right || y < top || y >= bottom) return sum;
    return sum + weight * interpolated(ofLabel[i], rows, columns, (x - left) / (right - left), (y - top) / (bottom - top));
  }, 0);
  const seen = outline(boxes).map((side) => Math.round(size * side));
  const evidence = paint(sheet, seen, (x, y) => evidenceAt(x / size, y / size), scale);
  const canvas = new OffscreenCanvas(sheet.width, sheet.height);
  canvas.getContext("2d").putImageData(new ImageData(sheet.data, sheet.width), 0, 0);
  item.maps.set(kept, { url: URL.createObjectURL(await canvas.convertToBlob()), evidence });
  return item.maps.get(kept);
}

// The smallest box around boxes.
function outline(boxes) {
  const sides = (i) => boxes.map((box) => box[i]);
  return [Math.min(...sides(0)), Math.min(...sides(1)), Math.max(...sides(2)), Math.max(...sides(3))];
}

// evidence: at a place in px of the sheet.  scale: of the brightest colour, or undefined for the largest in the box.
// Returns the largest.
function paint({ data, width, height }, [left, top, right, bottom], evidence, scale) {
  const heat = new Float32Array(width * height);
  for (let y = Math.max(0, top); y < Math.min(height, bottom); y += 1) {
    for (let x = Math.max(0, left); x < Math.min(width, right); x += 1) {
      heat[y * width + x] = Math.max(0, evidence(x + 0.5, y + 0.5));
    }
  }
  const largest = heat.reduce((a, b) => Math.max(a, b), 0);
  const most = scale || largest || 1;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const at = 4 * (y * width + x);
      const isSeen = x >= left && x < right && y >= top && y < bottom;
      const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      const hot = isSeen ? colourOf(heat[y * width + x] / most) : null;
      for (let channel = 0; channel < 3; channel += 1) {
        data[at + channel] = hot ? (1 - OPACITY) * grey + OPACITY * hot[channel] : UNSEEN * data[at + channel];
      }
      data[at + 3] = 255;
    }
  }
  return largest;
}

function interpolated(map, rows, columns, x, y) {
  const between = (value, count) => Math.min(count - 1, Math.max(0, value * count - 0.5));
  const [row, column] = [between(y, rows), between(x, columns)];
  const [above, before] = [Math.floor(row), Math.floor(column)];
  const at = (i, j) => map[Math.min(i, rows - 1) * columns + Math.min(j, columns - 1)];
  const mix = (a, b, share) => a + (b - a) * share;
  const [down, along] = [row - above, column - before];
  return mix(mix(at(above, before), at(above, before + 1), along), mix(at(above + 1, before), at(above + 1, before + 1), along), down);
}

function colourOf(heat) {
  const place = Math.min(1, Math.max(0, heat)) * (COLOURS.length - 1);
  const step = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[step].map((value, channel) => value + (COLOURS[step + 1][channel] - value) * (place - step));
}

function adapt() {
  find("#where").textContent = "Images do not leave this device.";
  for (const id of ["#by-address", "#for-programs"]) find(id).remove(); // no other site may be asked
  const manifest = element("link");
  manifest.rel = "manifest";
  manifest.href = new URL("manifest.webmanifest", SITE);
  document.head.append(manifest);
  navigator.serviceWorker?.register(new URL("sw.js", SITE));
}

adapt();
