"""Several images on the page, scaling, web addresses, the table; and /docs."""

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.serve.serving import Running, gated, image, predictor_of, running
from tests.serve.visits import GIVE, Visit, expect
from uniemox.predict.tables import write_csv

pytestmark = pytest.mark.browser
FOUR = {f"{i}.jpg": image(i, 200, 100) for i in range(4)}


def test_several_images_become_tiles_and_one_is_shown(visit: Visit) -> None:
    visit.choose_all(FOUR)
    expect(visit.status).to_contain_text("4 images answered: ")
    tiles = visit.page.locator(".tile")
    assert [text.split("\n")[-1] for text in tiles.all_inner_texts()] == list(FOUR)
    caption = visit.page.locator("article figcaption")
    assert caption.inner_text() == "0.jpg"
    tops = [text.split("\n")[0].split()[0] for text in tiles.all_inner_texts()]
    counts = visit.status.inner_text().partition(": ")[2].rstrip(".")
    assert {part.split()[1]: int(part.split()[0]) for part in counts.split(", ")} == {
        label: tops.count(label) for label in tops
    }
    tiles.nth(2).click()
    expect(visit.status).to_contain_text("2.jpg: ")
    assert caption.inner_text() == "2.jpg"
    visit.page.keyboard.press("ArrowRight")
    expect(visit.status).to_contain_text("3.jpg: ")
    visit.choose(image(9), name="later.jpg")
    expect(visit.status).to_contain_text("later.jpg: ")
    expect(tiles).to_have_count(5)
    visit.page.get_by_role("button", name="Clear").click()
    expect(tiles).to_have_count(0)
    assert visit.page.get_by_role("article").count() == 0


def test_an_unreadable_image_removes_no_answer(open_page: Callable[..., Visit], server: Running) -> None:
    visit = open_page(server)
    visit.choose(image(1, 200, 100))
    expect(visit.status).to_contain_text("beach.jpg: ")
    visit.choose(b"nothing", name="notes.txt", kind="text/plain")
    expect(visit.page.get_by_role("alert")).to_contain_text("notes.txt: not an image of a known format")
    expect(visit.status).to_contain_text("No prediction for notes.txt")
    assert visit.page.locator("article figcaption").inner_text() == "beach.jpg"
    visit.choose_all(FOUR | {"bad.jpg": b"\xff\xd8 no more"})
    expect(visit.page.get_by_role("alert")).to_contain_text("bad.jpg: ")
    expect(visit.status).to_contain_text("4 images answered")
    expect(visit.status).to_contain_text("; no prediction for 1.")
    expect(visit.page.locator(".tile")).to_have_count(5)
    visit.page.get_by_role("button", name="Heat map").click()
    expect(visit.page.locator("#error")).to_be_empty()
    # The list of failures stays.
    visit.page.get_by_text("No prediction for 2 files").click()
    assert [line.partition(":")[0] for line in visit.page.locator("#failed li").all_inner_texts()] == [
        "notes.txt",
        "bad.jpg",
    ]


def test_the_table_equals_that_of_the_command(visit: Visit, server: Running, tmp_path: Path) -> None:
    names = ["0.jpg", "=1+1.jpg", 'a"b, c.jpg', "grüße 喜.jpg"]
    visit.choose_all(dict(zip(names, FOUR.values(), strict=True)) | {"bad.jpg": b"no image"})
    expect(visit.status).to_contain_text("4 images answered")
    # The browser has logged the refusal.
    visit.wrong.clear()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download the table").click()
    content = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "answers.csv"
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))

    lines = tmp_path / "lines.jsonl"
    table = tmp_path / "table.csv"
    answers = [server.post("/predict?coverage=0.9", data).json[0] for data in FOUR.values()]
    records = [json.dumps(answer | {"path": name}) + "\n" for name, answer in zip(names, answers, strict=True)]
    error = rows[-1][-1]
    assert error.startswith("not an image of a known format")
    records.append(json.dumps({"path": "bad.jpg", "error": error}) + "\n")
    lines.write_text("".join(records), encoding="utf-8")
    write_csv(lines, table, tuple(answers[0]["scene"]), of_film=False, encoding="utf-8")
    expected = list(csv.reader(io.StringIO(table.read_text(encoding="utf-8"), newline="")))
    assert rows[0] == expected[0]
    for row, other in zip(rows[1:], expected[1:], strict=True):
        assert list(map(number_or_text, row)) == list(map(number_or_text, other))


def number_or_text(cell: str) -> object:
    try:
        return float(cell)
    except ValueError:
        return cell


def test_a_map_for_each_label(visit: Visit) -> None:
    visit.choose(image(1, 200, 100))
    expect(visit.status).to_contain_text("beach.jpg: ")
    visit.page.get_by_role("button", name="All labels").click()
    expect(visit.status).to_contain_text("for all 8 labels")
    labels = [row.split()[0] for row in visit.page.get_by_role("row").all_inner_texts()[1:]]
    captions = visit.page.locator(".maps figcaption").all_inner_texts()
    assert [caption.split()[0] for caption in captions] == labels
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name=f"Save the heat map for {labels[1]}").click()
    assert download.value.suggested_filename == f"beach-{labels[1]}.png"
    with Image.open(download.value.path()) as drawn:
        assert drawn.size == (200, 100)


@pytest.mark.thorough
def test_a_large_image_is_scaled_down_upright_before_it_is_sent(visit: Visit) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 3000, 3), np.uint8)
    data = io.BytesIO()
    exif = Image.Exif()
    # Viewers turn the image by 90 degrees.
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(noise).save(data, "JPEG", quality=90, exif=exif)
    assert data.tell() > 2**20
    visit.choose(data.getvalue())
    expect(visit.status).to_contain_text("1 person found")
    assert visit.page.locator("article figcaption").inner_text() == "beach.jpg (sent as a JPEG of 1024 x 2048 px)"


def test_a_new_coverage_updates_the_shown_image(visit: Visit) -> None:
    visit.choose(image(1, 200, 100))
    expect(visit.page.locator("article .likely")).to_contain_text("for 90 % of images")
    visit.page.locator("#coverage").select_option("0.8")
    expect(visit.page.locator("article .likely")).to_contain_text("for 80 % of images")
    visit.page.locator("#coverage").select_option("")
    expect(visit.page.locator("article .likely")).to_have_count(0)


def test_the_stop_button_ends_the_work(open_page: Callable[..., Visit], tmp_path: Path) -> None:
    slow = gated(predictor_of(tmp_path))
    slow.gate.set()
    with running([slow]) as server:
        slow.gate.clear()
        visit = open_page(server)
        visit.choose_all(FOUR)
        expect(visit.page.get_by_role("progressbar", name="Images answered")).to_be_visible()
        visit.page.get_by_role("button", name="Stop").click()
        expect(visit.status).to_have_text("Stopped.")
        expect(visit.page.locator(".tile")).to_have_count(0)
        slow.gate.set()
        visit.choose(image(7), name="next.jpg")
        expect(visit.status).to_contain_text("next.jpg: ")
        expect(visit.page.get_by_role("progressbar")).to_be_hidden()


class Site(BaseHTTPRequestHandler):
    """Another site: /open lets other pages read its image, /closed does not."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/open.html" else "image/jpeg")
        if self.path.startswith("/open"):
            self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(image(4, 200, 100))

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_image_is_fetched_from_its_web_address(open_page: Callable[..., Visit], server: Running, site: str) -> None:
    visit = open_page(server)
    give = GIVE.replace('new File([new Uint8Array(bytes)], name, { type: "image/jpeg" })', 'name, "text/plain"')
    for kind, holder in (("drop", "dataTransfer"), ("paste", "clipboardData")):
        visit.page.evaluate(give, [kind, holder, f"{site}/open/{kind}%20it.jpg", []])
        expect(visit.status).to_contain_text(f"{kind} it.jpg: ")
    alert = visit.page.get_by_role("alert")
    for address, sentence in (
        (
            f"{site}/closed/a.jpg",
            "a.jpg can't be fetched: it can't be reached, or its site does not let other pages read it",
        ),
        (f"{site}/open.html", "open.html is not an image (text/html)"),
        ("data:image/png;base64,iVBORw0KGgo=", "image: not an image of a known format"),
    ):
        visit.page.evaluate(give, ["drop", "dataTransfer", address, []])
        expect(alert).to_contain_text(sentence)
    visit.page.evaluate(give, ["paste", "clipboardData", "no address", []])
    expect(visit.page.locator("article figcaption")).to_have_text("paste it.jpg")


def test_images_in_a_dropped_folder_are_read(visit: Visit) -> None:
    visit.page.evaluate(
        """async (bytes) => {
          const { given } = await import("/page/files.js");
          const made = (name, type) => new File([new Uint8Array(bytes)], name, { type });
          const file = (...about) => ({ isFile: true, name: about[0], file: (done) => done(made(...about)) });
          const folder = (...parts) => ({ isDirectory: true, name: "f", createReader: () => {
            const rest = [parts.slice(0, 1), parts.slice(1), []];
            return { readEntries: (done) => done(rest.shift()) }; } });
          const inner = folder(file("c.jpg", "image/jpeg"), file("d.jpg", "image/jpeg"));
          const dropped = folder(file("a.jpg", "image/jpeg"), file("b.txt", "text/plain"), inner);
          const items = [{ kind: "file", webkitGetAsEntry: () => dropped }];
          window.found = (await given({ items, files: [], getData: () => "" })).map((one) => one.name);
        }""",
        list(image(0)),
    )
    assert visit.page.evaluate("window.found") == ["f/a.jpg", "f/f/c.jpg", "f/f/d.jpg"]


def test_a_desktop_shows_image_and_bars_side_by_side(open_page: Callable[..., Visit], server: Running) -> None:
    visit = open_page(server, viewport={"width": 1280, "height": 720})
    visit.choose(image(1, 1200, 900))
    expect(visit.status).to_contain_text("1 person found")
    picture = visit.page.locator(".picture").bounding_box()
    bars = visit.page.locator("article table").bounding_box()
    assert picture["x"] + picture["width"] <= bars["x"]
    assert max(box["y"] + box["height"] for box in (picture, bars)) <= 720


def test_the_docs_page_contacts_only_this_server(open_page: Callable[..., Visit], server: Running) -> None:
    visit = open_page(server, "/docs")
    visit.page.locator(".opblock", has_text="/health").first.click()
    visit.page.get_by_role("button", name="Execute").click()
    expect(visit.page.locator(".live-responses-table")).to_contain_text('"ready": true')
    visit.page.locator(".opblock", has_text="/predict").first.click()
    visit.page.locator("input[type=file]").set_input_files(
        {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": image(3)}
    )
    visit.page.locator(".opblock", has_text="/predict").get_by_role("button", name="Execute").click()
    expect(visit.page.locator(".opblock", has_text="/predict").locator(".live-responses-table")).to_contain_text(
        "sha256"
    )
    assert visit.wrong == []
    assert all(url.startswith((server.url, "blob:", "data:")) for url in visit.requested)
