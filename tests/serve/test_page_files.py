"""Files that the page accepts, by name and bytes: its modules in node, with files of empty type, as in Firefox."""

import base64
import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.colours import BT2020, D65, HLG, PQ, hdr_values, icc_profile
from tests.images import every_file, save
from tests.io.test_colour import IN_ADOBE, PHOTO, adobe_exif, png_with, with_nclx
from uniemox.io.images import ENDINGS, HEIF_ENDINGS
from uniemox.io.system_folders import SYSTEM_FOLDERS
from uniemox.predict.images import FOREIGN

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node: apt-get install nodejs")
# A drop of entries, as browsers give it: a name and its children, or the bytes of a file.
DROP = """
const bytes = (text) => Uint8Array.from(Buffer.from(text, "base64"));
function entryOf([name, content]) {
  if (content === null) return { name, isFile: true, isDirectory: false, file: (_, no) => no(new Error("gone")) };
  if (typeof content === "string") {
    const file = new File([bytes(content)], name, { type: "" });
    return { name, isFile: true, isDirectory: false, file: (yes) => yes(file), content: file };
  }
  const parts = [content.map(entryOf), []];
  const createReader = () => ({ readEntries: (yes) => yes(parts.shift()) });
  return { name, isFile: false, isDirectory: true, createReader };
}
const entries = JSON.parse(process.argv[2]).map(entryOf);
const items = entries.map((entry) => ({ kind: "file", webkitGetAsEntry: () => entry }));
const transfer = { items, files: entries.map((entry) => entry.content).filter(Boolean), getData: () => "" };
const skipped = [];
const found = await given(transfer, skipped);
console.log(JSON.stringify({ found: found.map(({ name }) => name), skipped }));
"""


def run(script: str, folder: Path, *arguments: str) -> Any:
    """Run a script that uses the page's modules, and return the JSON that it prints."""
    for name in ("files.js", "names.js"):
        (folder / name).write_bytes((files("uniemox.insight.site") / "page" / name).read_bytes())
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "script.js").write_text(script)
    assert NODE is not None
    command = [NODE, folder / "script.js", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_page_and_command_accept_the_same_endings(tmp_path: Path) -> None:
    script = 'import { ENDINGS, SYSTEM_FOLDERS } from "./names.js";\n'
    names = run(script + "console.log(JSON.stringify([[...ENDINGS], [...SYSTEM_FOLDERS]]));", tmp_path)
    assert set(names[0]) == {*ENDINGS, *FOREIGN, *HEIF_ENDINGS}
    assert set(names[1]) == SYSTEM_FOLDERS


def test_every_format_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    images = {name: base64.b64encode(data[:16]).decode() for name, data in every_file().items()}
    others = {"text": b"This is a text.", "video": b"\0\0\0\x20ftypisom\0\0\2\0", "empty": b"", "pdf": b"%PDF-1.7 1234"}
    starts = images | {name: base64.b64encode(data).decode() for name, data in others.items()}
    script = (
        'import { typeOf } from "./names.js";\n'
        "const starts = Object.entries(JSON.parse(process.argv[2]));\n"
        'const types = starts.map(([name, text]) => [name, typeOf(Uint8Array.from(Buffer.from(text, "base64")))]);\n'
        "console.log(JSON.stringify(Object.fromEntries(types)));"
    )
    types = run(script, tmp_path, json.dumps(starts))
    assert {name for name, kind in types.items() if not kind} == set(others)
    assert types["jpeg"] == "image/jpeg"
    assert types["mpo-frames"] == "image/jpeg"
    assert types["avif"] == "image/avif"


def test_a_folder_is_read_by_names_and_bytes_and_the_rest_is_listed(tmp_path: Path) -> None:
    jpeg = base64.b64encode(every_file()["jpeg"]).decode()
    text = base64.b64encode(b"some notes").decode()
    album: list[list[object]] = [
        ["a.jpg", jpeg],
        ["IMG_1.HEIC", text],
        ["photo.nef", text],
        ["no-ending", jpeg],
        ["notes.txt", text],
        ["._a.jpg", text],
        [".hidden.jpg", jpeg],
        ["lost.jpg", None],
        ["@eaDir", [["a.jpg", jpeg]]],
        ["summer", [["b.mpo", jpeg], ["@eaDir", [["b.jpg", jpeg]]], ["#recycle", [["c.jpg", jpeg]]]]],
    ]
    script = 'import { given } from "./files.js";\n' + DROP
    taken = run(script, tmp_path, json.dumps([["album", album], ["._x.jpg", text], ["more.bin", jpeg]]))
    names = ["a.jpg", "IMG_1.HEIC", "photo.nef", "no-ending", "summer/b.mpo"]
    assert taken["found"] == [*(f"album/{name}" for name in names), "more.bin"]
    assert taken["skipped"] == [
        {"name": "album/notes.txt", "error": "not an image, by its name and its first bytes"},
        {"name": "album/lost.jpg", "error": "can't be read (gone)"},
        {"name": "@eaDir, #recycle", "error": "left out: 3 of these folders, which hold thumbnails or deleted files"},
    ]


def test_single_files_are_all_sent_because_the_server_reports_problems(tmp_path: Path) -> None:
    script = 'import { given } from "./files.js";\n' + DROP
    taken = run(script, tmp_path, json.dumps([["a.heic", ""], ["b.txt", ""], ["._a.heic", ""]]))
    assert taken == {"found": ["a.heic", "b.txt"], "skipped": []}


# A browser whose canvas draws what it is given, and counts.
DRAWS = """
import { prepared } from "./files.js";
globalThis.createImageBitmap = async () => ({ width: 3000, height: 2000, close() {} });
const context = { fillRect() {}, drawImage() {}, getImageData: () => ({ data: [10, 120, 230, 255] }) };
const drawn = new Blob(["drawn"]);
globalThis.document = { createElement: () => ({ getContext: () => context, toBlob: (give) => give(drawn) }) };
const sent = [];
for (const [start, size] of JSON.parse(process.argv[2])) {
  const bytes = new Uint8Array(size);
  bytes.set(Buffer.from(start, "base64"));
  const file = new File([bytes], "a", { type: "" });
  sent.push((await prepared(file)) === file ? "file" : "drawn");
}
console.log(JSON.stringify(sent));
"""
ADOBE = save(IN_ADOBE, "JPEG", exif=adobe_exif(65535, "R03"))
HDR = (hdr_values(PHOTO, PQ) >> 8).astype("u1")
HDR_AVIF = save(Image.fromarray(HDR), "AVIF")
HDR_PROFILE = icc_profile(BT2020, D65, 2.2, extra=b"cicp\0\0\0\0" + bytes([9, PQ, 0, 1]))
UNCHANGED = {
    "Adobe RGB": ADOBE,
    "PQ in PNG": png_with(HDR, (b"cICP", bytes([9, PQ, 0, 1]))),
    "HLG in PNG": png_with(HDR, (b"cICP", bytes([9, HLG, 0, 1]))),
    "PQ in AVIF": with_nclx(HDR_AVIF, 9, PQ),
    "HLG in AVIF": with_nclx(HDR_AVIF, 9, HLG),
    "PQ in a profile": save(Image.fromarray(HDR), "JPEG", icc_profile=HDR_PROFILE),
}
DRAWN = {
    "sRGB": save(PHOTO, "JPEG"),
    "AVIF": HDR_AVIF,
    "sRGB in PNG": png_with(HDR, (b"cICP", bytes([1, 13, 0, 1]))),
    "EXIF of sRGB": save(PHOTO, "JPEG", exif=adobe_exif(1, "R98")),
}


def test_images_with_colours_that_browsers_draw_wrongly_are_sent_unchanged(tmp_path: Path) -> None:
    large = 2 * 2**20
    too_large = 10 * 2**20
    images = [(data, large) for data in (*UNCHANGED.values(), *DRAWN.values())]
    images += [(ADOBE, too_large), (DRAWN["sRGB"], 2**20)]
    starts = [(base64.b64encode(data[: 2**16]).decode(), size) for data, size in images]
    sent = run(DRAWS, tmp_path, json.dumps(starts))
    assert dict(zip(UNCHANGED, sent, strict=False)) == dict.fromkeys(UNCHANGED, "file")
    assert dict(zip(DRAWN, sent[len(UNCHANGED) :], strict=False)) == dict.fromkeys(DRAWN, "drawn")
    assert sent[-2:] == ["drawn", "file"]
