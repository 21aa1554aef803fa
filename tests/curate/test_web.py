"""Who may do what, and what forged requests get."""

import hashlib
import io
import json
import logging
import time
from typing import NoReturn

import pytest
from PIL import Image
from sqlalchemy import insert, select
from starlette.testclient import TestClient

from tests.curate.conftest import ADDRESS, Browser
from tests.curate.places import answer, served
from uniemox.errors import ConfigError, DataError, UnavailableError
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import account_of, invite, join, revoke
from uniemox_curate.annotate.serving import served_at, server
from uniemox_curate.annotate.verdicts import read_answers
from uniemox_curate.annotate.web import PAGES, create_app
from uniemox_curate.decisions import decisions
from uniemox_curate.project import Project
from uniemox_curate.store import Store
from uniemox_serve.server import listen


def test_no_access_without_an_invitation(client: TestClient) -> None:
    for path in ("/api/me", "/api/tasks", "/api/pictures/1", "/api/answers", "/api/status", "/api/grid"):
        assert client.get(path).status_code == 401, path
    for path in ("/api/answers", "/api/changes", "/api/undo", "/api/people", "/api/people/revoke", "/api/leave"):
        assert client.post(path, json={}, headers={"Origin": ADDRESS}).status_code == 401, path
    for token in ("", "nonsense", "x" * 200):
        assert client.post("/api/join", json={"token": token}, headers={"Origin": ADDRESS}).status_code == 401


def test_requests_that_cannot_be_saved_get_status_503(
    project: Project, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = Browser(client, invite(project, "Ada"))
    token = invite(project, "Ben")
    owner = Browser(client, invite(project, "owner", "owner"))
    body = {"answers": [answer(ada.tasks()[0])]}

    def full(store: Store) -> NoReturn:
        raise UnavailableError("sqlite:///p/project.db: can't be written")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", full)
        for refused in (
            client.post("/api/join", json={"token": token}, headers={"Origin": ADDRESS}),
            ada.post("/api/answers", body),
            owner.post("/api/people", {"name": "Cyd"}),
            owner.post("/api/undo", {"batch": 1}),
        ):
            assert refused.status_code == 503
            assert "project.db" not in refused.text
    assert ada.post("/api/answers", body).json()["saved"]


def test_a_database_that_cannot_be_read_is_answered_with_503(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    with project.store.write() as connection:
        connection.exec_driver_sql("ALTER TABLE people RENAME TO nobody")
    for refused in (client.get("/api/tasks"), ada.post("/api/answers", {"answers": []})):
        assert refused.status_code == 503
        assert "people" not in refused.text


def test_annotators_see_their_own_tasks_and_owners_everything(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    ben = Browser(client, invite(project, "Ben"))
    owner = Browser(client, invite(project, "owner", "owner"))
    mine = ada.tasks()
    his = ben.tasks()
    assert len(mine) == len(his) == 4
    assert not set(mine) & set(his)
    assert ada.get(f"/api/pictures/{mine[0]}").headers["content-type"] == "image/jpeg"
    assert ada.get(f"/api/pictures/{his[0]}").status_code == 404
    assert owner.get(f"/api/pictures/{mine[0]}").status_code == 403
    result = ada.post("/api/answers", {"answers": [answer(mine[0]), answer(his[0]), answer(999)]}).json()
    assert result == {"saved": [f"answer-{mine[0]}-0"], "refused": [f"answer-{his[0]}-0", "answer-999-0"]}
    assert ada.get("/api/answers").json() == {"answers": [{"task": mine[0], "label": "awe", "details": {}}]}
    assert ben.get("/api/answers").json() == {"answers": []}
    for path in ("/api/status", "/api/grid", "/api/disputed", "/api/originals/1"):
        assert ada.get(path).status_code == 403, path
        assert owner.get(path).status_code == 200, path
    for path, body in (("/api/changes", {}), ("/api/undo", {"batch": 1}), ("/api/people", {"name": "x"})):
        assert ada.post(path, body).status_code in (403, 422), path
    assert read_answers(project).by_image.keys() == {1, 2, 3, 4} & read_answers(project).by_image.keys()
    assert ada.me["answered"] == 0
    assert ada.get("/api/me").json()["answered"] == 1


def test_row_numbers_out_of_range_are_refused(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    owner = Browser(client, invite(project, "owner", "owner"))
    for number in (2**53, 2**63, 2**70, -1):
        assert ada.get(f"/api/tasks?after={number}").status_code == 422
        assert ada.get(f"/api/pictures/{number}").status_code == 422
        assert owner.get(f"/api/originals/{number}").status_code == 422
        assert owner.post("/api/undo", {"batch": number}).status_code == 422
    assert ada.get(f"/api/tasks?after={2**53 - 1}").json() == {"tasks": []}
    assert ada.get(f"/api/pictures/{2**53 - 1}").status_code == 404
    assert owner.get(f"/api/grid?page={2**70}").json()["pictures"] == []


def test_annotators_see_no_keyword_title_or_metadata(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    text = ada.get("/api/tasks").text + ada.get("/api/me").text
    for secret in ("Wonder", "script", "onerror", "pictures.example"):
        assert secret not in text
    image = Image.open(io.BytesIO(ada.get(f"/api/pictures/{ada.tasks()[0]}").content))
    assert not image.getexif()


def test_forged_requests_are_refused(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    body = {"answers": [answer(ada.tasks()[0])]}
    assert ada.post("/api/answers", body, **{"X-CSRF": ""}).status_code == 403
    assert ada.post("/api/answers", body, **{"X-CSRF": "wrong"}).status_code == 403
    assert ada.post("/api/answers", body, Origin="https://evil.example").status_code == 403
    assert ada.post("/api/answers", body, Origin="null").status_code == 403
    assert ada.send("/api/answers", "{}", "text/plain").status_code == 415
    assert ada.send("/api/answers", b"x" * 300_000).status_code == 413
    assert ada.get("/api/me", Host="evil.example").status_code == 421
    assert "HttpOnly" in ada.set_cookie
    assert "SameSite=strict" in ada.set_cookie
    assert ada.get("/api/answers").json() == {"answers": []}
    assert ada.post("/api/answers", body).status_code == 200


@pytest.mark.parametrize("address", ["http://127.0.0.1:80", "HTTP://Example.org", "https://example.org:443"])
def test_default_ports_and_capitals_are_not_sent_by_browsers(project: Project, address: str) -> None:
    sent = address.lower().removesuffix(":80").removesuffix(":443")
    with TestClient(create_app(project, [address]), base_url=sent) as client:
        assert client.get("/join").status_code == 200


@pytest.mark.parametrize("body", [{}, {"answers": "x"}, {"answers": [answer(1)] * 501}])
def test_invalid_bodies_are_refused(project: Project, client: TestClient, body: object) -> None:
    assert Browser(client, invite(project, "Ada")).post("/api/answers", body).status_code == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *[("/api/join", f'{{"token": {value}}}') for value in ('"\\ud800"', "NaN", '"x", "\\ud800": 1', "1e999")],
        *[("/api/join", "{"), ("/api/answers", "[" * 100_000)],
        *[("/api/answers", f'{{"answers": {value}}}') for value in ('"\\ud800"', "NaN")],
    ],
)
def test_unprintable_values_are_refused_with_a_sentence(
    project: Project, client: TestClient, path: str, body: str
) -> None:
    response = Browser(client, invite(project, "Ada")).send(path, body)
    assert response.status_code in (400, 422)
    assert isinstance(response.json()["detail"], str)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"seconds": value} for value in (float("nan"), float("inf"), "nan", -1)),
        *({"task": "1"}, {"task": 10**30}, {"label": "\ud800"}, {"comment": "\ud800"}, {"person": 2}, {"label": None}),
    ],
)
def test_an_invalid_answer_is_refused_alone(project: Project, client: TestClient, wrong: dict[str, object]) -> None:
    ada = Browser(client, invite(project, "Ada"))
    good, other = (answer(task) for task in ada.tasks()[:2])
    body = json.dumps({"answers": [good, {**answer(3, number=9), **wrong}, 7, None, {"id": "<script>"}, other]})
    response = ada.send("/api/answers", body)
    assert response.status_code == 200
    assert response.json() == {"saved": [good["id"], other["id"]], "refused": ["answer-3-9"]}
    assert {row.client_id for row in project.rows(select(t.answers))} == {good["id"], other["id"]}


def test_only_the_pages_files_are_served_and_all_answers_carry_strict_headers(client: TestClient) -> None:
    for path in ("/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/curate.js", "/project.db", "/pictures/"):
        response = client.get(path, follow_redirects=False)
        assert response.status_code == 404, path
        assert response.headers["x-content-type-options"] == "nosniff"
    for path in PAGES:
        response = client.get(path)
        assert response.status_code == 200
        assert "script-src 'self'" in response.headers["content-security-policy"]
        assert "<script>" not in response.text
        assert "onclick" not in response.text
    assert client.get("/", follow_redirects=False).headers["location"] == "/annotate"


def test_repeated_answers_count_once_and_the_last_one_holds(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    task = ada.tasks()[0]
    for _ in range(2):
        assert ada.post("/api/answers", {"answers": [answer(task)]}).json()["refused"] == []
    assert len(project.rows(select(t.answers))) == 1
    ada.post("/api/answers", {"answers": [answer(task, "fear", 1)]})
    (label_by_name,) = read_answers(project).by_image.values()
    assert label_by_name == {"Ada": "fear"}
    refused = ada.post("/api/answers", {"answers": [answer(task, "joy", 2)]}).json()
    assert refused == {"saved": [], "refused": [f"answer-{task}-2"]}
    assert task not in ada.tasks()


def test_access_ends_and_a_new_invitation_replaces_the_old(project: Project, client: TestClient) -> None:
    token = invite(project, "Ada")
    ada = Browser(client, token)
    revoke(project, "Ada")
    assert ada.get("/api/me").status_code == 401
    assert join(project.store, token) is None
    again = Browser(client, invite(project, "Ada"))
    assert again.me["id"] == ada.me["id"]
    assert again.post("/api/leave", {}).status_code == 200
    assert again.get("/api/me").status_code == 401
    assert join(project.store, token) is None
    assert account_of(project.store, "") is None
    with pytest.raises(DataError, match="nobody named"):
        revoke(project, "Zoe")
    with pytest.raises(ConfigError, match="owner is reserved"):
        invite(project, "Ada", "owner")
    for name in ("", "  ", "x" * 101, "a\x00b", "owner", " owner "):
        with pytest.raises(ConfigError):
            invite(project, name)


def test_a_second_owner_has_no_access_and_is_listed(project: Project, client: TestClient) -> None:
    """A stranger's project may hold one, with an invitation and a session."""
    digest = hashlib.sha256(b"secret").hexdigest()
    with project.store.write() as connection:
        row = {"name": "Eve", "role": "owner", "token_hash": digest, "invited_at": 0.0}
        number = connection.execute(insert(t.people).values(**row)).inserted_primary_key[0]
        session = {"token_hash": digest, "person_id": number, "csrf": "c", "began_at": time.time()}
        connection.execute(insert(t.sessions).values(**session))
    assert join(project.store, "secret") is None
    assert account_of(project.store, "secret") is None
    owner = Browser(client, invite(project, "owner", "owner"))
    assert [(listed["name"], listed["is_revoked"]) for listed in owner.get("/api/status").json()["people"]] == [
        ("Eve", True)
    ]


def test_the_owner_can_not_end_their_own_access(project: Project, client: TestClient) -> None:
    owner = Browser(client, invite(project, "owner", "owner"))
    response = owner.post("/api/people/revoke", {"name": "owner"})
    assert (response.status_code, response.json()["detail"]) == (409, "you can't end your own access; leave instead")
    assert owner.get("/api/status").status_code == 200


def test_invalid_addresses_of_the_server(project: Project) -> None:
    with listen("0.0.0.0", 0) as sock:
        with pytest.raises(ConfigError, match="--address"):
            server(project, sock)
        with pytest.raises(ConfigError, match="must begin with http"):
            server(project, sock, "curate.example.org")
    with listen("127.0.0.1", 0) as sock, pytest.raises(ConfigError, match="can't listen"):
        listen("127.0.0.1", sock.getsockname()[1])


def test_the_owner_screens_judges_and_undoes(project: Project, client: TestClient) -> None:
    ada = Browser(client, invite(project, "Ada"))
    owner = Browser(client, invite(project, "owner", "owner"))
    first = ada.tasks()
    change = {"picture": 1, "field": "screen", "value": "drop"}
    batch = owner.post("/api/changes", {"changes": [change]}).json()["batch"]
    assert len(ada.tasks()) == 3
    grid = owner.get("/api/grid?shown=drop").json()
    assert (grid["count"], grid["pictures"][0]["reason"]) == (1, "mismatch: by hand")
    assert grid["pictures"][0]["title"] == "<img src=x onerror=alert(1)>"
    assert owner.get("/api/grid?label=fear").json()["count"] == 2
    assert owner.get("/api/grid?shown=all").status_code == 422
    owner.post("/api/undo", {"batch": batch})
    assert ada.tasks() == first
    assert owner.post("/api/undo", {"batch": batch}).status_code == 409
    owner.post("/api/changes", {"changes": [{"picture": 2, "field": "style", "value": "cartoon"}]})
    assert owner.get("/api/grid").json()["pictures"][2]["style"] == "cartoon"
    for field, value in (("style", "loud"), ("verdict", "joy"), ("screen", "x"), ("taken", "yes")):
        body = {"changes": [{"picture": 1, "field": field, "value": value}]}
        assert owner.post("/api/changes", body).status_code == 422, field
    assert owner.post("/api/changes", {"changes": [{**change, "picture": 99}]}).status_code == 404
    with project.store.read() as connection:
        assert decisions(connection, "style")[2].value == "cartoon"


def test_the_owner_invites_annotators_and_judges_disputed_images(project: Project, client: TestClient) -> None:
    owner = Browser(client, invite(project, "owner", "owner"))
    people = {}
    for name in ("Ada", "Ben"):
        path = owner.post("/api/people", {"name": name}).json()["path"]
        people[name] = Browser(client, path.partition("#")[2])
    for name, label in (("Ada", "awe"), ("Ben", "fear")):
        tasks = people[name].tasks()
        people[name].post("/api/answers", {"answers": [answer(task, label) for task in tasks]})
    disputed = owner.get("/api/disputed").json()
    assert disputed["count"] == 4
    assert disputed["pictures"][0] == {"picture": 1, "answers": ["awe", "fear"]}
    owner.post("/api/changes", {"changes": [{"picture": 1, "field": "verdict", "value": "fear"}]})
    assert owner.get("/api/disputed").json()["count"] == 3
    state = owner.get("/api/status").json()
    assert state["steps"]["agree"]["judged"] == 1
    assert [(annotator["name"], annotator["answered"]) for annotator in state["people"]] == [("Ada", 4), ("Ben", 4)]
    batch = owner.post("/api/people/leave-out", {"name": "Ben"}).json()["batch"]
    assert owner.get("/api/disputed").json()["count"] == 0
    assert {tuple(names) for names in read_answers(project).by_image.values()} == {("Ada",)}
    assert [annotator["is_left_out"] for annotator in owner.get("/api/status").json()["people"]] == [False, True]
    owner.post("/api/undo", {"batch": batch})
    assert owner.get("/api/disputed").json()["count"] == 3
    assert owner.post("/api/people/leave-out", {"name": "Zoe"}).status_code == 404
    owner.post("/api/people/revoke", {"name": "Ada"})
    assert people["Ada"].get("/api/me").status_code == 401
    assert owner.post("/api/people/revoke", {"name": "Zoe"}).status_code == 404


def test_a_session_from_a_clock_that_was_ahead_has_ended(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 10 * 365 * 86400)
    secret = join(project.store, invite(project, "Ada"))
    assert secret is not None
    assert account_of(project.store, secret) is not None
    monkeypatch.setattr(time, "time", right)
    assert account_of(project.store, secret) is None


@pytest.mark.parametrize("text", ["\x1b[2Jhttps://evil.example", "file:///etc/passwd", "https://a b"])
def test_an_address_with_control_characters_is_refused(project: Project, text: str) -> None:
    (project.folder / "address.txt").write_text(text)
    with pytest.raises(DataError, match="not an address"):
        served_at(project)


def test_serving_leaves_other_log_handlers_open(project: Project) -> None:
    """absl's, which mlcroissant brings, closes with it the file that was standard error when it was imported."""
    closed: list[bool] = []
    handler = logging.NullHandler()
    handler.close = lambda: closed.append(True)
    with served(project):
        logging.getLogger("uvicorn.error").warning("as it serves")
    assert closed == []
