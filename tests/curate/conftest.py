"""A project with a web application, and people in their browsers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.curate.places import project_of
from uniemox_curate.annotate.web import create_app
from uniemox_curate.project import Project

ADDRESS = "http://127.0.0.1:8000"
LABELS = ("awe", "fear", "awe", "fear")


class Browser:
    """A session of one person."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client = client
        client.cookies.clear()
        answer = client.post("/api/join", json={"token": token}, headers={"Origin": ADDRESS})
        assert answer.status_code == 200, answer.text
        self.cookie = client.cookies["uniemox_curate"]
        self.set_cookie = answer.headers["set-cookie"]
        client.cookies.clear()
        self.me = self.get("/api/me").json()

    def get(self, path: str, **headers: str):
        return self.client.get(path, headers={"Cookie": f"uniemox_curate={self.cookie}", **headers})

    def post(self, path: str, body: object, **headers: str):
        session = {"Cookie": f"uniemox_curate={self.cookie}", "X-CSRF": self.me["csrf"], "Origin": ADDRESS}
        return self.client.post(path, json=body, headers={**session, **headers})

    def send(self, path: str, content: str | bytes, kind: str = "application/json"):
        """Raw bytes instead of JSON."""
        session = {"Cookie": f"uniemox_curate={self.cookie}", "X-CSRF": self.me["csrf"], "Origin": ADDRESS}
        return self.client.post(path, content=content, headers={**session, "Content-Type": kind})

    def tasks(self, after: int = 0) -> list[int]:
        return [task["id"] for task in self.get(f"/api/tasks?after={after}").json()["tasks"]]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_of(tmp_path / "p", LABELS)


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    with TestClient(create_app(project, [ADDRESS]), base_url=ADDRESS) as client:
        yield client
