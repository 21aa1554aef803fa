// The table of answers, with the columns of `uniemox predict --out answers.csv`.

import { sorted } from "./elements.js";

const JUDGED = ["familiarity", "is_unfamiliar"];
const FOUND = ["people", "people_feel", "faces", "faces_show"];
const ABOUT = ["kind", "label_set", "model", "width_px", "height_px"];

// answers: of /predict.  failed: { name, error }.  With the mark that lets spreadsheets know UTF-8.
export function csv(answers, failed) {
  const labels = [...new Set(answers.flatMap((answer) => Object.keys(answer.scene)))];
  const affect = ["valence", "arousal"].filter((name) => !labels.includes(name));
  const head = ["path", "top", "top_value", ...labels, ...affect, ...JUDGED, "likely", ...FOUND, ...ABOUT, "error"];
  const rows = answers.map((answer) => [
    answer.name,
    ...sorted(answer.scene)[0],
    ...labels.map((label) => answer.scene[label]),
    ...[...affect, ...JUDGED].map((name) => answer[name]),
    (answer.likely || []).join(";"),
    ...found(answer.persons, "emotions"),
    ...found(answer.faces, "expressions"),
    ...ABOUT.map((name) => answer[name]),
    null,
  ]);
  rows.push(...failed.map(({ name, error }) => [name, ...Array(head.length - 2).fill(null), error]));
  return `\ufeff${[head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

function found(several, what) {
  if (several === null) return [null, ""];
  return [several.length, several.map((one) => (one[what] ? sorted(one[what])[0][0] : "?")).join(";")];
}

function cell(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  const text = String(value ?? "");
  const isFormula = typeof value === "string" && /^'*[=+\-@\t\r\n\x1b＝＋－＠]/.test(text); // as uniemox/io/csv_files.py
  const safe = isFormula ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
