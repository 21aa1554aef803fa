"""A project with a web application, and people in their browsers."""

from collections.abc import Hashable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from tests.curate.places import project_of
from uniemox_curate.annotate.web import create_app
from uniemox_curate.project import Project

ADDRESS = "http://127.0.0.1:8000"
LABELS = ("awe", "fear", "awe", "fear")


class Statements(dict[Hashable, Any]):
    """SQL of statements for all engines of a process: to compile it is two fifths of the time of many tests.

    Keys of SQLAlchemy begin with the engine's dialect, which is SQLite's in all of them.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key[1:], value)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        create = partial(create_engine, execution_options={"compiled_cache": Statements()})
        patch.setattr("uniemox_curate.store.create_engine", create)
        yield


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
