"""Annotators that are programs: they answer over HTTP as a page does, and mostly see what is there."""

import http.client
import json
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import select

from uniemox.curate import tables as t
from uniemox.curate.project import Project, searched_labels
from uniemox.curate.store import NONE

MAX_PER_REQUEST = 10


class SimulatedAnnotator:
    """A browser's session without a browser.

    address: of the server, such as http://127.0.0.1:8000.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self._cookie, self._csrf = "", ""

    def join(self, token: str) -> None:
        """Begin a session by an invitation."""
        self.post("/api/join", {"token": token})
        self._csrf = self.get("/api/me")["csrf"]

    def get(self, path: str) -> Any:
        """JSON, or the bytes of an image. Raises ConnectionError for any answer but 200."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """What the server answers to JSON. Raises ConnectionError for any answer but 200."""
        return self._ask("POST", path, json.dumps(body))

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None) -> Any:
        headers = {"Cookie": self._cookie, "X-CSRF": self._csrf, "Origin": self.address}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise ConnectionError(f"{method} {path}: {response.status} {data[:200]!r}")
        cookie = response.headers.get("Set-Cookie")
        if cookie:
            self._cookie = cookie.partition(";")[0]
        is_json = response.headers.get("Content-Type", "").startswith("application/json")
        return json.loads(data) if is_json else data


def annotate(
    project: Project,
    address: str,
    token: str,
    *,
    accuracy: float = 0.9,
    seed: int = 0,
    on_answer: Callable[[int], None] = lambda _: None,
) -> int:
    """Answer every image; returns the number of answers.

    accuracy: how often it says the label that an image was searched for; else another one, or none. It looks at each
    image over HTTP, but learns what is on it from the database, because it has no eyes.
    """
    rng, done = random.Random(seed), 0
    seen = searched_labels(project)
    client = SimulatedAnnotator(address)
    client.join(token)
    others = (*project.plan.labels, NONE)
    while tasks := client.get("/api/tasks?limit=60")["tasks"]:
        for start in range(0, len(tasks), MAX_PER_REQUEST):
            part = [task["id"] for task in tasks[start : start + MAX_PER_REQUEST]]
            for task in part:
                client.get(f"/api/pictures/{task}")
            answers = [
                {
                    "id": secrets.token_hex(16),
                    "task": task,
                    "label": wanted if rng.random() < accuracy else rng.choice(others),
                    "seconds": 1.0,
                }
                for task, wanted in zip(part, _wanted(project, part, seen), strict=True)
            ]
            done += len(client.post("/api/answers", {"answers": answers})["saved"])
            on_answer(done)
    client.close()
    return done


def _wanted(project: Project, numbers: Sequence[int], seen: Mapping[int, set[str]]) -> list[str]:
    """What a careful annotator would say of each task."""
    query = select(t.tasks.c.id, t.tasks.c.picture_id, t.tasks.c.check_label).where(t.tasks.c.id.in_(numbers))
    known = {row.id: row.check_label or min(seen.get(row.picture_id, {NONE})) for row in project.rows(query)}
    return [known[number] for number in numbers]
