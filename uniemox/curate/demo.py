"""The whole way on synthetic images: a server of images, two annotators that are programs, a release, a page."""

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from uniemox.curate.annotate.access import invite
from uniemox.curate.annotate.figures import agree
from uniemox.curate.annotate.serving import served
from uniemox.curate.annotate.simulate import annotate
from uniemox.curate.annotate.verdicts import verdicts
from uniemox.curate.collect.fetch import FetchConfig
from uniemox.curate.collect.politeness import PolitenessConfig
from uniemox.curate.collect.run import fetch, search
from uniemox.curate.collect.screen import screen
from uniemox.curate.collect.sources.files import AddressTable
from uniemox.curate.project import Progress, create_project, silent
from uniemox.curate.release.run import ReleaseConfig, release
from uniemox.curate.release.splitting import split
from uniemox.curate.status import status
from uniemox.curate.status_page import write_status_page
from uniemox.data.synthetic import synthetic

ANNOTATORS = {"Ada": 0.92, "Ben": 0.88}  # how often each says what is there
RATIOS = {"train": 0.8, "val": 0.1, "test": 0.1}


def demo(folder: Path, *, count: int = 160, schemes: int = 20, progress: Progress = silent) -> dict[str, Any]:
    """Collect from a server on this machine, screen, annotate, agree, split and release; nothing leaves the machine.

    folder: gets the project, the release and status.html.  count: different images; a twelfth more come twice, are
    broken, tiny, or not images at all.
    Returns the figures of the release. Raises ConfigError if a project is there already.
    """
    project = create_project(folder / "project")
    images = demo_images(count)
    with picture_server(images) as address:
        table = folder / "addresses.csv"
        table.write_text(address_table(address, images, count), "utf-8")
        search(project, [AddressTable(table, project.plan)], count, progress)
        fetch(
            project,
            FetchConfig(private_hosts=(urlsplit(address).netloc,)),
            PolitenessConfig(per_host_per_s=1000, tries=1),
            progress,
        )
    screen(project, progress=progress)
    with served(project) as address:
        for seed, (name, accuracy) in enumerate(ANNOTATORS.items()):
            token = invite(project, name)

            def said(done: int, name: str = name) -> None:
                progress(f"{name} answers", min(done, count), count)

            annotate(project, address, token, accuracy=accuracy, seed=seed, on_answer=said)
    found = agree(project)
    split(project, verdicts(project), RATIOS, schemes=schemes)
    made = release(project, folder / "release", ReleaseConfig(name="Synthetic Emo8", licence="CC0-1.0"), progress)
    write_status_page(folder / "status.html", status(project), found, project.folder / "splits.png")
    project.store.close()
    return made


def demo_images(count: int) -> Mapping[str, bytes]:
    """Files by name: synthetic scenes as JPEG, and every twelfth time something that must not pass."""
    files: dict[str, bytes] = {}
    for index, sample in enumerate(synthetic(count).samples):
        image = Image.open(io.BytesIO(sample.image.read()))
        files[f"{index}.jpg"] = _jpeg(image, 88)
        if index % 48 == 0:
            files[f"{index}-copy.jpg"] = files[f"{index}.jpg"]
        elif index % 48 == 12:
            files[f"{index}-smaller.jpg"] = _jpeg(image.resize((288, 216)), 70)
        elif index % 48 == 24:
            files[f"{index}-tiny.jpg"] = _jpeg(image.resize((64, 48)), 88)
        elif index % 48 == 36:
            files[f"{index}-page.jpg"] = b"<html>not an image</html>"
    return files


def address_table(address: str, files: Mapping[str, bytes], count: int) -> str:
    """The table of addresses that collect reads."""
    data = synthetic(count)
    lines = ["address,label,keyword,title,licence,author"]
    for name in files:
        sample = data.samples[int(name.split(".")[0].split("-")[0])]
        label = data.label_of(sample)
        author = f"painter {int(name.split('.')[0].split('-')[0]) // 4}"
        lines.append(f"{address}/{name},{label},{label},{name},CC0 1.0,{author}")
    return "\n".join(lines) + "\n"


@contextmanager
def picture_server(files: Mapping[str, bytes]) -> Iterator[str]:
    """A server of files on this machine; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = files.get(self.path.lstrip("/"))
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
