// The table of answers, with the columns of `uniemox predict --out answers.csv`, and the server's description of them.

import { sorted } from "./elements.js";
import { ask } from "./server.js";

let described = null;

// The schema of an answer: `properties` by field, and `x-columns`, each field of a table with its headings, in order.
export async function schema() {
  described ??= (await (await ask("openapi.json")).json()).components.schemas.ImageAnswer;
  return described;
}

// answers: of /predict.  failed: { name, error }.  With the mark that lets spreadsheets know UTF-8.
export async function csv(answers, failed) {
  const labels = [...new Set(answers.flatMap((answer) => Object.keys(answer.scene)))];
  const columns = (await schema())["x-columns"].filter(([field]) => !labels.includes(field));
  const names = columns.flatMap(([field, ...names]) => (field === "scene" ? [...names, ...labels] : names));
  const rows = answers.map((answer) => columns.flatMap(([field, ...names]) => {
    if (field === "path") return [answer.name];
    if (field === "scene") return [...sorted(answer.scene)[0], ...labels.map((label) => answer.scene[label])];
    return cells(answer[field], names.length);
  }).concat([null]));
  rows.push(...failed.map(({ name, error }) => [name, ...Array(names.length - 1).fill(null), error]));
  const headings = [...names, "error"];
  const isKept = headings.map((name, i) => ALWAYS.has(name) || labels.includes(name) || rows.some((row) => !isEmpty(row[i])));
  const kept = [headings, ...rows].map((row) => row.filter((_, i) => isKept[i]));
  return `\ufeff${kept.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

// Columns that a table has even if no row has a value.
const ALWAYS = new Set(["path", "top", "top_value", "error"]);

function isEmpty(value) {
  return value === null || value === undefined || value === "";
}

// The cells of a field: for a list of objects their number and the most probable word of each, if any is known.
function cells(value, count) {
  if (!Array.isArray(value)) return count === 1 ? [value] : [null, ""];
  if (count === 1) return [value.some((one) => typeof one === "object") ? value.length : value.join(";")];
  const words = value.map(topWord);
  return [value.length, words.some((word) => word !== "?") ? words.join(";") : ""];
}

function topWord(element) {
  const shares = Object.values(element).find((part) => part !== null && typeof part === "object" && !Array.isArray(part));
  return shares ? sorted(shares)[0][0] : "?";
}

function cell(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  const text = String(value ?? "");
  const isFormula = typeof value === "string" && /^'*[=+\-@\t\r\n\x1b＝＋－＠]/.test(text); // as uniemox/io/files.py
  const safe = isFormula ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
