// Images as people give them: files, folders, addresses; and large ones made smaller before they are sent.

const MAX_PX = 2048; // of the longer side
const MAX_BYTES = 2 ** 20; // smaller files are sent as they are
const READ = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif"];

// The images of a drop or a paste, as { file, name }: files, those in folders with their paths, what an address leads to.
export async function given(transfer) {
  const entries = [...transfer.items].map((item) => item.kind === "file" && item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...transfer.files]; // both at once: a transfer is empty after the first wait
  const address = (transfer.getData("text/uri-list") || transfer.getData("text/plain")).trim();
  if (entries.some((entry) => entry.isDirectory)) {
    return (await Promise.all(entries.map((entry) => inside(entry, "")))).flat().filter(({ file }) => file.type.startsWith("image/"));
  }
  if (files.length) return files.map((file) => ({ file, name: file.name }));
  if (!/^(https?|data):/.test(address)) return [];
  const file = await fetched(address.split("\n")[0].trim());
  return [{ file, name: file.name }];
}

async function inside(entry, folder) {
  const name = folder + entry.name;
  if (entry.isFile) return [{ file: await new Promise((resolve, reject) => { entry.file(resolve, reject); }), name }];
  const reader = entry.createReader();
  const found = [];
  for (;;) { // it gives a hundred at a time
    const part = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!part.length) return found;
    for (const each of part) found.push(...await inside(each, `${name}/`));
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
  if (!blob.type.startsWith("image/")) throw new Error(`${name} is not an image (${blob.type || "unknown type"})`);
  return new File([blob], name, { type: blob.type });
}

// What is sent for a file: a smaller JPEG where it is large or of a format that the server may not read, else itself.
export async function prepared(file) {
  await file.slice(0, 1).arrayBuffer().catch(() => { throw new Error("it can't be read any more; choose it again"); });
  const isRead = READ.includes(file.type);
  if (isRead && (file.size <= MAX_BYTES || file.type === "image/gif" || !drawsTruly())) return file;
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

// Browsers that hide who they are give noise for what was drawn.
function drawsTruly() {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = "rgb(10, 120, 230)";
  context.fillRect(0, 0, 2, 2);
  return [...context.getImageData(0, 0, 2, 2).data].every((value, i) => value === [10, 120, 230, 255][i % 4]);
}
