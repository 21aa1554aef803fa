"""Projects for the tests, with images that need no search."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import insert

from tests.drawn import draw_image, jpeg_of
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import account_of, invite, join
from uniemox_curate.annotate.serving import address_of, server
from uniemox_curate.collect.screen import screen
from uniemox_curate.decisions import Change, append, undo
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.project import Project, create_project
from uniemox_curate.store import Store
from uniemox_serve.server import listen

LABELS = ("awe", "fear")
WORDS = {"a": "awe", "f": "fear", "n": "none"}
PLAN = CollectionPlan(keywords={"awe": ("Wonder",), "fear": ("Panic",)}, check_every=0)


def project_of(
    folder: Path,
    labels: Sequence[str],
    plan: CollectionPlan = PLAN,
    *,
    looks: bool = False,
    about: Mapping[str, str] | None = None,
) -> Project:
    """An image for each label that it was searched for, all of them kept. Image i has number i + 1.

    looks: screen them in earnest.  about: fields of every candidate.
    """
    project = create_project(folder, plan)
    fields = {"source": "csv", "page": "", "licence": "by 2.0", "licence_address": "", "author": ""}
    fields |= {"title": "<img src=x onerror=alert(1)>", "keyword": "</script>", **(about or {})}
    with project.store.write() as connection:
        for number, label in enumerate(labels, start=1):
            data = jpeg_of(draw_image(number, (160, 140)))
            sha256 = project.keep_file(data, "JPEG")
            image = {"sha256": sha256, "format": "JPEG", "bytes": len(data), "width": 160, "height": 140}
            connection.execute(insert(t.images).values(id=number, added_at=0.0, **image))
            address = f"https://pictures.example/{number}.jpg"
            row = {**fields, "address": address, "label": label, "rank": number, "found_at": 0.0, "fetched_at": 0.0}
            connection.execute(insert(t.candidates).values(**row, state="fetched", picture_id=number))
        if not looks:
            changes = [Change(i + 1, "screen", "keep") for i in range(len(labels))]
            append(connection, actor="screen", step="screen", note="", changes=changes)
    if looks:
        screen(project)
    return project


def take_back(store: Store, batch: int) -> int:
    with store.write() as connection:
        return undo(connection, batch, actor="owner")


def say(project: Project, words: Mapping[str, str] = WORDS, /, **answers: str) -> None:
    """Answers by annotator, a letter an image: one of words, anything else no answer."""
    with project.store.write() as connection:
        for name, letters in answers.items():
            row = {"name": name, "role": "annotator", "token_hash": name, "invited_at": 0.0}
            person = connection.execute(insert(t.people).values(**row)).inserted_primary_key[0]
            for image, letter in enumerate(letters, start=1):
                if letter in words:
                    values = {"person_id": person, "picture_id": image, "given_at": 1.0}
                    task = connection.execute(insert(t.tasks).values(**values)).inserted_primary_key[0]
                    fields = {"client_id": f"{name}-{image}", "label": words[letter], "seconds": 1.5, "at": 0.0}
                    connection.execute(insert(t.answers).values(person_id=person, task_id=task, **fields))


@contextmanager
def served(project: Project) -> Iterator[str]:
    """Serve in a thread while the context lasts; yields the address."""
    sock = listen("127.0.0.1", 0)
    running = server(project, sock)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [sock]}, name="curate", daemon=True)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield address_of(sock)
    finally:
        running.should_exit = True
        thread.join()
        sock.close()


def number_of(project: Project, name: str) -> int:
    """The number of a new annotator."""
    person = account_of(project.store, str(join(project.store, invite(project, name))))
    assert person is not None
    return person.id


def answer(task: int, label: str = "awe", number: int = 0) -> dict[str, object]:
    return {"id": f"answer-{task}-{number}", "task": task, "label": label, "seconds": 1.5}
