// Images as people give them: files, folders, addresses; and large ones made smaller before they are sent.

import { isAppleDouble, isHidden, isImage, isSystemFolder, typeOfFile } from "./names.js";

const MAX_PX = 2048; // of the longer side
const MAX_BYTES = 2 ** 20; // smaller files are sent as they are
const MAX_UNCHANGED_BYTES = 9 * 2 ** 20; // below the 10 MiB that the server takes if it is not set otherwise
const HEADER_BYTES = 2 ** 16;
// Colours that browsers draw otherwise than the server: Adobe RGB by EXIF; PQ and HLG in PNG, in a profile, in AVIF.
const OTHER_COLOURS = /R03\0|cICP.[\x10\x12]|cicp\0{4}.[\x10\x12]|colrnclx..\0[\x10\x12]/s;
const READ = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"];

// The images of a drop or a paste, as { file, name }: files, those in folders with their paths, what an address leads to.
// skipped: gets { name, error } of what was not read and why.
export async function given(transfer, skipped = []) {
  const entries = [...transfer.items].map((item) => item.kind === "file" && item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files]; // both at once: a transfer is empty after the first wait
  const address = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).trim();
  if (entries.some((entry) => entry.isDirectory)) return inFolders(entries, skipped);
  if (files.length) return chosen(files);
  if (!/^(https?|data):/.test(address)) return [];
  const file = await fetched(address.split("\n")[0].trim());
  return [{ file, name: file.name }];
}

// Files that were chosen one by one: all are sent, because the server says what is wrong with one.
export function chosen(files) {
  return files.filter((file) => !isAppleDouble(file.name)).map((file) => ({ file, name: file.name }));
}

async function inFolders(entries, skipped) {
  const [found, system] = [[], []];
  for (const entry of entries) await inside(entry, "", { found, skipped, system });
  if (system.length) {
    const names = [...new Set(system.map((path) => path.split("/").pop()))].join(", ");
    skipped.push({ name: names, error: `left out: ${system.length} of these folders, which hold thumbnails or deleted files` });
  }
  return found;
}

// Adds what an entry holds: a file or folder that can't be read costs itself alone.
async function inside(entry, folder, taken) {
  const name = folder + entry.name;
  if (folder && entry.isDirectory && isSystemFolder(entry.name)) {
    taken.system.push(name);
    return;
  }
  if (isAppleDouble(entry.name) || (folder && isHidden(entry.name))) return; // as the command line does
  try {
    if (entry.isFile) await addFile(entry, name, taken);
    else for (const each of await listed(entry)) await inside(each, `${name}/`, taken);
  } catch (failure) {
    taken.skipped.push({ name, error: `can't be read (${failure.message || failure.name})` });
  }
}

async function addFile(entry, name, taken) {
  const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
  if (await isImage(file, entry.name)) taken.found.push({ file, name });
  else taken.skipped.push({ name, error: "not an image, by its name and its first bytes" });
}

async function listed(entry) {
  const reader = entry.createReader();
  const entries = [];
  for (;;) { // it gives a hundred at a time
    const part = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!part.length) return entries;
    entries.push(...part);
  }
}

async function fetched(address) {
  const refusal = "it can't be reached, or its site does not let other pages read it; save the image and drop the file";
  const name = address.startsWith("data:") ? "image" : decodeURI(new URL(address).pathname.split("/").pop()) || "image";
  let answer;
  try {
    answer = await fetch(address, { credentials: "omit", referrerPolicy: "no-referrer" });
  } catch {
    throw new Error(`${name} can't be fetched: ${refusal}`);
  }
  if (!answer.ok) throw new Error(`${name} can't be fetched: its site answered ${answer.status}`);
  const blob = await answer.blob();
  if (!(await isImage(blob, name))) throw new Error(`${name} is not an image (${blob.type || "unknown type"})`);
  return new File([blob], name, { type: blob.type });
}

// What is sent for a file: a smaller JPEG where it is large or of a format that the server may not read, else itself.
export async function prepared(file) {
  await file.slice(0, 1).arrayBuffer().catch(() => { throw new Error("it can't be read any more; choose it again"); });
  const type = await typeOfFile(file); // file.type is empty for many images
  const isRead = READ.includes(type);
  if (isRead && (file.size <= MAX_BYTES || type === "image/gif" || !drawsTruly())) return file;
  if (isRead && file.size <= MAX_UNCHANGED_BYTES && await hasOtherColours(file)) return file;
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    return file; // the server says what is wrong with it
  }
  const scale = Math.min(1, MAX_PX / Math.max(image.width, image.height));
  if (isRead && scale === 1) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(image.width * scale);
  canvas.height = Math.round(image.height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind what is transparent, as the server has it
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  image.close();
  return (await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.92); })) || file;
}

async function hasOtherColours(file) {
  const header = await file.slice(0, HEADER_BYTES).arrayBuffer();
  return OTHER_COLOURS.test(new TextDecoder("iso-8859-1").decode(header));
}

// Browsers that hide who they are give noise for what was drawn.
function drawsTruly() {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = "rgb(10, 120, 230)";
  context.fillRect(0, 0, 2, 2);
  return [...context.getImageData(0, 0, 2, 2).data].every((value, i) => value === [10, 120, 230, 255][i % 4]);
}
