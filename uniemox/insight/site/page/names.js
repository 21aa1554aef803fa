// What a file is by its name and by its first bytes. Browsers leave the type of many files empty: of HEIC, MPO and
// camera raw, and Firefox of all files in a folder.

// Endings that the server reads, or reports as an image of a format that it can't read; as uniemox/io/images.py.
export const ENDINGS = new Set([
  ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif",
  ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".heic", ".heif", ".hif",
  ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr", ".wdp", ".psd", ".psb", ".xcf", ".exr", ".hdr", ".tga", ".pcx",
  ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw",
  ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
]);

// As uniemox/io/system_folders.py.
export const SYSTEM_FOLDERS = new Set([
  "@eadir", "#recycle", "#snapshot", "@tmp", ".@__thumb", "@__thumb", "@recycle", "@recently-snapshot", "$recycle.bin",
  "recycler", "system volume information", ".thumbnails", ".thumbs", ".trash", "lost+found", ".trashes", "__macosx",
]);

export function isSystemFolder(name) {
  return SYSTEM_FOLDERS.has(name.toLowerCase()) || name.toLowerCase().startsWith(".trash-");
}

export function isHidden(name) { return name.startsWith("."); }

// Beside each photograph, macOS writes a file of this name on drives of other systems.
export function isAppleDouble(name) { return name.startsWith("._"); }

export function hasImageEnding(name) {
  const at = name.lastIndexOf(".");
  return at > 0 && ENDINGS.has(name.slice(at).toLowerCase());
}

const text = (bytes, from, to) => String.fromCharCode(...bytes.slice(from, to));

// The type of an image by its first 16 bytes; "" for none that is known.
export function typeOf(bytes) {
  const start = text(bytes, 0, 16);
  if (start.startsWith("\xff\xd8\xff")) return "image/jpeg";
  if (start.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (start.startsWith("GIF87a") || start.startsWith("GIF89a")) return "image/gif";
  if (start.startsWith("RIFF") && text(bytes, 8, 12) === "WEBP") return "image/webp";
  if (start.startsWith("BM")) return "image/bmp";
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(text(bytes, 0, 4))) return "image/tiff"; // also most camera raw
  if (text(bytes, 4, 8) === "ftyp") {
    const brand = text(bytes, 8, 12);
    if (["avif", "avis"].includes(brand)) return "image/avif";
    if (["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"].includes(brand)) return "image/heic";
    if (brand === "crx ") return "image/x-canon-cr3";
    return ""; // a video
  }
  if (/^P[1-6]\s/.test(start)) return "image/x-portable-anymap";
  if (["IIRO", "IIRS", "MMOR", "IIU\0", "FUJI", "FOVb", "\0MRM"].includes(text(bytes, 0, 4))) return "image/x-raw";
  return "";
}

// The type of a file by its first bytes.
export async function typeOfFile(file) { return typeOf(new Uint8Array(await file.slice(0, 16).arrayBuffer())); }

// By name, or by the type that the browser gives, or by the first bytes where it gives none.
export async function isImage(file, name) {
  if (hasImageEnding(name) || file.type.startsWith("image/")) return true;
  return ["", "application/octet-stream"].includes(file.type) && (await typeOfFile(file)) !== "";
}
