"""Previews of images for annotators: made once, in turns, and without holding up others."""

import asyncio
import errno
import os
import threading
import time
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from starlette.requests import ClientDisconnect
from starlette.types import Message

from uniemox_curate import tables as t
from uniemox_curate.annotate.previews import PIECE_BYTES, Previews, draw_check, preview_response
from uniemox_curate.project import Project
from uniemox_curate.release.takedown import take_down


def test_previews_are_made_two_at_a_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = 0
    limit = 0
    lock = threading.Lock()

    def slow(path: Path, _: object) -> bytes:
        nonlocal inside, limit
        with lock:
            inside += 1
            limit = max(limit, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        return path.read_bytes()

    monkeypatch.setattr("uniemox_curate.annotate.previews._make_preview", slow)

    async def ask() -> list[BinaryIO | bytes | None]:
        previews = Previews(project)
        return await asyncio.gather(*map(previews.of, [1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4] * 2))

    previews = asyncio.run(ask())
    assert limit == 2
    contents = [preview if isinstance(preview, bytes) else preview.read() for preview in previews if preview]
    assert len(contents) == 8
    assert contents[:4] == contents[4:]


def test_one_person_s_previews_leave_a_decoder_to_others(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    others = project.rows(select(t.images.c.sha256).where(t.images.c.id == 4))[0].sha256
    started = threading.Event()
    may_end = threading.Event()

    def slow(path: Path, _: object) -> bytes:
        if path.stem != others:
            started.set()
            may_end.wait(60)
        return path.read_bytes()

    monkeypatch.setattr("uniemox_curate.annotate.previews._make_preview", slow)

    async def ask() -> list[BinaryIO | bytes | None]:
        previews = Previews(project)
        hers = [asyncio.create_task(previews.of(image, 1)) for image in (1, 2, 3)]
        try:
            await asyncio.to_thread(started.wait, 60)
            await asyncio.sleep(0.1)
            return [await asyncio.wait_for(previews.of(4, 2), 20)]
        finally:
            may_end.set()
            await asyncio.gather(*hers)

    assert all(asyncio.run(ask()))


def test_a_preview_is_made_once_and_an_unreadable_image_is_not_tried_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))[0].sha256
    images: list[str] = []

    def shrunk(path: Path, _: object) -> bytes | None:
        images.append(path.stem)
        return None if path.stem == broken else path.read_bytes()

    monkeypatch.setattr("uniemox_curate.annotate.previews._make_preview", shrunk)

    async def ask() -> list[BinaryIO | bytes | None]:
        previews = Previews(project)
        return await asyncio.gather(*(previews.of(image, image) for image in [1, 2] * 9))

    previews = asyncio.run(ask())
    assert len(images) == 2
    assert previews[::2] == [None] * 9
    assert all(previews[1::2])


def test_an_image_is_shown_if_its_preview_cannot_be_saved(project: Project) -> None:
    (project.folder / "previews").touch()  # a file, where the folder must be
    preview = asyncio.run(Previews(project).of(1, 1))
    assert isinstance(preview, bytes)
    assert preview.startswith(b"\xff\xd8")


def test_an_image_that_is_taken_down_while_its_preview_is_made_leaves_none(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))[0]

    def shrunk(path: Path, _: object) -> bytes:
        content = path.read_bytes()
        take_down(project, row.sha256, because="asked")
        return content

    monkeypatch.setattr("uniemox_curate.annotate.previews._make_preview", shrunk)
    assert asyncio.run(Previews(project).of(1, 1)) is None
    assert not project.preview_path(row.sha256).exists()


def test_a_preview_of_an_image_that_cannot_be_read_any_more_is_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was taken down is in the database, not in the folder, which may be away for a moment."""

    def shrunk(path: Path, _: object) -> bytes:
        (project.folder / "pictures").rename(project.folder / "away")
        return b"made"

    monkeypatch.setattr("uniemox_curate.annotate.previews._make_preview", shrunk)
    preview = asyncio.run(Previews(project).of(1, 1))
    assert isinstance(preview, BufferedReader)
    with preview:
        assert preview.read() == b"made"


def test_a_preview_that_cannot_be_removed_after_a_takedown_is_not_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))[0]

    def refused(*_: object, **__: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    def shrunk(path: Path, _: object) -> bytes:
        take_down(project, row.sha256, because="asked")
        monkeypatch.setattr(Path, "unlink", refused)
        return b"made"

    monkeypatch.setattr("uniemox_curate.annotate.previews._make_preview", shrunk)
    monkeypatch.setattr("uniemox_curate.annotate.previews.write_file", Path.write_bytes)
    project.preview_path(row.sha256).parent.mkdir(parents=True)
    previews = Previews(project)
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(previews.of(1, 1))
    assert refusal.value.status_code == 503
    assert asyncio.run(previews.of(1, 1)) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("read_limited", PermissionError(errno.EACCES, "Permission denied")),
        ("open_regular", PermissionError(errno.EACCES, "Permission denied")),
        ("DecoderPool.decode", RuntimeError("the decoder does not start")),
    ],
)
def test_images_that_cannot_be_read_now_are_not_reported_missing(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, problem: Exception
) -> None:
    """The page leaves out what is missing, and would say that all images are answered."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise problem

    monkeypatch.setattr(f"uniemox_curate.annotate.previews.{name}", refused)
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(Previews(project).of(1, 1))
    assert refusal.value.status_code == 503


def test_images_whose_folder_is_away_are_not_reported_missing(project: Project) -> None:
    (project.folder / "pictures").rename(project.folder / "away")
    previews = Previews(project)
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(previews.of(1, 1))
    assert refusal.value.status_code == 503
    (project.folder / "away").rename(project.folder / "pictures")
    preview = asyncio.run(previews.of(1, 1))
    assert isinstance(preview, BufferedReader)
    preview.close()


@pytest.mark.parametrize("kind", ["pictures", "previews"])
def test_a_link_out_of_the_project_is_no_error_of_the_server(project: Project, tmp_path: Path, kind: str) -> None:
    row = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))[0]
    folder = project.folder / kind / row.sha256[:2]
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(HTTPException) as refusal:
        asyncio.run(Previews(project).of(1, 1))
    assert refusal.value.status_code == 503


def test_a_preview_is_read_piece_by_piece(tmp_path: Path) -> None:
    """Thousands of clients that do not read must not hold a copy each; one that is removed meanwhile arrives whole."""
    content = os.urandom(2 * PIECE_BYTES + 1)
    path = tmp_path / "large.jpg"
    path.write_bytes(content)
    response = preview_response(path.open("rb"))
    assert isinstance(response, StreamingResponse)
    assert response.headers["Content-Length"] == str(len(content))

    async def read() -> list[bytes]:
        pieces = []
        async for piece in response.body_iterator:
            assert isinstance(piece, bytes)
            path.unlink(missing_ok=True)
            pieces.append(piece)
        return pieces

    pieces = asyncio.run(read())
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= PIECE_BYTES


def test_the_file_of_a_preview_is_closed_when_the_client_has_gone(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes(3 * PIECE_BYTES))
    file = (tmp_path / "a.jpg").open("rb")

    async def leave(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client has gone")

    async def ask() -> None:
        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        await preview_response(file)(scope, asyncio.Event().wait, leave)  # type: ignore[arg-type] # never asked

    with pytest.raises(ClientDisconnect):
        asyncio.run(ask())
    assert file.closed


def test_an_attention_check_is_drawn_once() -> None:
    assert draw_check("awe") is draw_check("awe")


def test_a_stranger_s_previews_do_not_hang_the_server(project: Project) -> None:
    row = project.rows(select(t.images.c.sha256).where(t.images.c.id == 1))[0]
    path = project.preview_path(row.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    assert asyncio.run(Previews(project).of(1, 1)) is None
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**34)
    assert asyncio.run(Previews(project).of(1, 1)) is None
