"""The web application: annotators answer, the owner screens, judges and sees how far everything is."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import Field

from uniemox.curate.annotate.access import SESSION_S, join, leave, who
from uniemox.curate.annotate.answering import AnswerWriter
from uniemox.curate.annotate.assignment import TaskAssigner
from uniemox.curate.annotate.guard import READ_TIMEOUT_S, RequestGuard
from uniemox.curate.annotate.permits import COOKIE, Anybody, Strict
from uniemox.curate.annotate.previews import Previews
from uniemox.curate.annotate.web_annotator import add_annotator_routes
from uniemox.curate.annotate.web_owner import add_owner_routes
from uniemox.curate.project import Project

PAGES = {  # address to file; nothing else of the disk is served
    "/annotate": ("annotate.html", "text/html"),
    "/join": ("join.html", "text/html"),
    "/status": ("status.html", "text/html"),
    "/screen": ("screen.html", "text/html"),
    "/judge": ("judge.html", "text/html"),
    "/curate.js": ("curate.js", "text/javascript"),
    "/annotate.js": ("annotate.js", "text/javascript"),
    "/words.json": ("words.json", "application/json"),
    "/curate.css": ("curate.css", "text/css"),
}


class TokenIn(Strict):
    """An invitation."""

    token: str = Field(max_length=200)


def create_app(project: Project, addresses: Iterable[str], *, read_timeout_s: float = READ_TIMEOUT_S) -> FastAPI:
    """The application.

    addresses: where its pages are, such as http://127.0.0.1:8000; requests for others are refused.
    read_timeout_s: for the body of a request.
    """
    addresses = tuple(addresses)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.writer = AnswerWriter(project.store)
        yield
        app.state.previews.close()
        app.state.writer.close()

    app = FastAPI(title="uniemox curate", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RequestGuard, addresses=addresses, read_timeout_s=read_timeout_s)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.state.project, app.state.giver, app.state.previews = project, TaskAssigner(project), Previews(project)
    app.state.is_secure = all(address.startswith("https://") for address in addresses)
    _add_pages(app)
    _add_session_routes(app)
    add_annotator_routes(app)
    add_owner_routes(app)
    return app


async def _invalid(request: Request, error: Exception) -> Response:
    """Say what is wrong without the value, which JSON might not hold: NaN, or half a character."""
    assert isinstance(error, RequestValidationError)
    sentence = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return JSONResponse({"detail": sentence.encode("ascii", "backslashreplace").decode()}, 422)


def _add_pages(app: FastAPI) -> None:
    folder = files("uniemox.curate.annotate").joinpath("page")
    contents = {address: (folder.joinpath(name).read_bytes(), kind) for address, (name, kind) in PAGES.items()}

    def page(request: Request) -> Response:
        content, kind = contents[request.url.path]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    for address in PAGES:
        app.add_api_route(address, page, methods=["GET"])
    app.add_api_route("/", lambda: RedirectResponse("/annotate"), methods=["GET"])


def _add_session_routes(app: FastAPI) -> None:
    project: Project = app.state.project
    project_id = project.store.setting("id")

    @app.post("/api/join")
    def begin(invitation: TokenIn) -> Response:
        secret = join(project.store, invitation.token)
        if secret is None:
            raise HTTPException(401, "this invitation is not valid, or was replaced or taken back; ask for a new one")
        person = who(project.store, secret)
        response = JSONResponse({"role": None if person is None else person.role})
        settings = {"httponly": True, "samesite": "strict", "secure": app.state.is_secure}
        response.set_cookie(COOKIE, secret, max_age=SESSION_S, path="/", **settings)
        return response

    @app.post("/api/leave")
    def end(request: Request, person: Anybody) -> Response:
        leave(project.store, request.cookies[COOKIE])
        response = JSONResponse({})
        response.delete_cookie(COOKIE, path="/")
        return response

    @app.get("/api/me")
    def me(person: Anybody) -> Response:
        answered, total = app.state.giver.count(person.id)
        known = {"project": project_id, "id": person.id, "name": person.name, "role": person.role, "csrf": person.csrf}
        plan = project.plan
        more = {"labels": plan.labels, "kind": plan.kind, "styles": plan.styles, "answered": answered, "total": total}
        return JSONResponse({**known, **more})
