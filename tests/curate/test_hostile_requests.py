"""Hostile JSON and queries at every route of the annotators' server."""

from urllib.parse import quote

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from tests.curate.conftest import ADDRESS, Browser
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import Role, invite
from uniemox_curate.project import Project

VALUES = (
    *("null", "true", "-1", "0", "1e999", "NaN", "-Infinity", "1" * 400, "1" * 5000, str(2**53), "0.5", "[]", "{}"),
    *('"\\ud800"', '"\\u0000"', '"<img src=x onerror=alert(1)>"', f'"{"x" * 5000}"', '"\\u202e"', '" owner"'),
    *("[" * 5000 + "]" * 5000, '{"a":' * 5000 + "1" + "}" * 5000, "[null, 1, [], {}]"),
)  # fmt: skip
BODIES = {
    "join": ("token",),
    "answers": ("answers", 'answers": [{"id": "answer-1", "task": 1, "label": "awe", "seconds'),
    "changes": ("changes", 'changes": [{"picture": 1, "field": "style", "value', 'changes": [{"picture'),
    "undo": ("batch",),
    **dict.fromkeys(("people", "people/leave-out", "people/revoke"), ("name",)),
    **dict.fromkeys(("leave", "consent"), ("x",)),
}
QUERIES = (
    "tasks?after",
    "tasks?limit",
    "answers?limit",
    "grid?page",
    "grid?label",
    "grid?shown",
    "disputed?x",
    "form?x",
)


def test_a_body_without_a_limit_is_refused(client: TestClient) -> None:
    """With both headers, the body could be far longer than its Content-Length says."""
    headers = {"Origin": ADDRESS, "Content-Type": "application/json"}
    both = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    assert client.post("/api/join", content="{}", headers=headers | both).status_code == 411


def test_cookies_of_others_are_not_parsed(
    project: Project, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its unquoting takes 2 s for 32 KB of backslashes; FastAPI calls it for every route."""
    ada = Browser(client, invite(project, "Ada"))

    def unquote(value: str) -> str:
        assert "\\" not in value
        return value

    monkeypatch.setattr("http.cookies._unquote", unquote)

    def status(cookie: str) -> int:
        return ada.get("/api/me", Cookie=cookie).status_code

    quoted = '"' + "\\" * 30_000 + '"'
    session = f"uniemox_curate={ada.cookie}"
    assert [status(f"a={quoted}; {session}"), status(f"{session};b={quoted}")] == [200, 200]
    for wrong in (f"a={quoted}", f"uniemox_curate={quoted}", f"x{session}", f"{session}x", f"{session}=", "", ";;"):
        assert status(wrong) == 401, wrong[:99]
    assert ada.get("/annotate", Cookie=f"a={quoted}").status_code == 200
    assert ada.post("/api/leave", {}).status_code == 200
    assert status(session) == 401


def test_bodies_of_strangers_are_not_parsed(project: Project, client: TestClient) -> None:
    headers = {"Origin": ADDRESS, "Content-Type": "application/json"}
    large = '{"token": "' + "x" * 1100 + '"}'
    assert client.post("/api/join", content=large, headers=headers).status_code == 413
    for path in ("answers", "consent", "changes", "nowhere"):
        assert client.post(f"/api/{path}", content="{", headers=headers).status_code == 401
    ada = Browser(client, invite(project, "Ada"))
    ada.me["csrf"] = "wrong"
    assert ada.send("/api/answers", "{").status_code == 403


def test_at_most_ten_errors_are_named(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))

    def sent(count: int) -> str:
        fields = ", ".join(f'"x{number}": 0' for number in range(count))
        response = ada.send("/api/answers", "{" + fields + "}")
        assert response.status_code == 422
        return str(response.json()["detail"])

    assert sent(15).count("; ") == 9
    assert "more than 20 fields" in sent(20_000)


@pytest.mark.thorough
@pytest.mark.parametrize("role", ["annotator", "owner"])
def test_hostile_json_and_queries_break_no_route(project: Project, client: TestClient, role: Role) -> None:
    """The client raises what the application raises: a traceback fails here."""

    def join_again() -> Browser:
        return Browser(client, invite(project, "owner" if role == "owner" else "Ada", role))

    browser = join_again()
    statuses = set()
    for path, fields in BODIES.items():
        for value in VALUES:
            for body in (value, *(f'{{"{field}": {value}{"}]" * field.count("{")}}}' for field in fields)):
                response = browser.send(f"/api/{path}", body)
                statuses.add(response.status_code)
                response.json()
                if response.status_code == 401:
                    browser = join_again()
    for route in (*(f"{query}=" for query in QUERIES), "pictures/", "originals/"):
        statuses |= {browser.get(f"/api/{route}{quote(value[:1000])}").status_code for value in VALUES}
    assert statuses <= {200, 400, 401, 403, 404, 409, 413, 422}
    assert all(0 <= row.seconds <= 86400 for row in project.rows(select(t.answers)))
