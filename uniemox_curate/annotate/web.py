"""The web application: annotators answer; the owner screens, judges, invites, and follows the progress."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from importlib.resources import files
from itertools import islice
from typing import Annotated, Any, Literal

import fastapi
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import Field
from sqlalchemy import func, select
from starlette.middleware.base import BaseHTTPMiddleware

from uniemox.errors import UnavailableError, UniemoxError
from uniemox.io import STYLE_SHEET
from uniemox_curate import tables as t
from uniemox_curate.annotate import access
from uniemox_curate.annotate.access import Annotator, Anybody, Owner
from uniemox_curate.annotate.answers import MAX_ROWS, AnswerWriter, Strict, has_id, read_answer
from uniemox_curate.annotate.assignment import TaskAssigner
from uniemox_curate.annotate.previews import Previews, draw_check, preview_response
from uniemox_curate.annotate.verdicts import disputed, remembered_rule
from uniemox_curate.decisions import Change, append, current, leave_out, taken_down, undo
from uniemox_curate.project import NONE, Project, searched_labels
from uniemox_curate.status import status

# File and media type by path; no other files are served.
PAGES = {
    **{f"/{name}": (f"{name}.html", "text/html") for name in ("annotate", "join", "status", "screen", "judge")},
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("curate", "annotate")},
    "/words.json": ("words.json", "application/json"),
    "/curate.css": ("curate.css", "text/css"),
}
# Maximum numbers in one request.
MAX_TASKS = 60
MAX_ANSWERS = 500
MAX_CHANGES = 500
# Number of images on one page of the owner's grid.
GRID_SIZE = 48
RowInPath = Annotated[int, fastapi.Path(ge=1, lt=MAX_ROWS)]
RowInQuery = Annotated[int, Query(ge=0, lt=MAX_ROWS)]


class TokenIn(Strict):
    """An invitation."""

    token: str = Field(max_length=200)


class AnswersIn(Strict):
    """Answers that the page has not yet confirmed as saved."""

    answers: list[Any] = Field(max_length=MAX_ANSWERS)


class ChangeIn(Strict):
    """A decision about an image."""

    picture: int = Field(ge=1, lt=MAX_ROWS)
    field: Literal["screen", "style", "verdict"]
    value: str = Field(max_length=60)


class ChangesIn(Strict):
    """Decisions that are undone together."""

    changes: list[ChangeIn] = Field(min_length=1, max_length=MAX_CHANGES)


class BatchIn(Strict):
    """A batch to undo."""

    batch: int = Field(ge=1, lt=MAX_ROWS)


class NameIn(Strict):
    """A person to invite, to leave out, or to shut out."""

    name: str = Field(max_length=100)


def create_app(project: Project, addresses: Sequence[str]) -> FastAPI:
    """Create the application.

    Args:
        project: Project that it serves.
        addresses: Addresses of its pages, such as http://127.0.0.1:8000; requests for others are refused.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.writer = AnswerWriter(project.store)
        yield
        app.state.previews.close()
        app.state.writer.close()

    # Behind a proxy that speaks https, a redirect for a trailing slash would lead to plain http.
    app = FastAPI(
        title="uniemox curate",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=access.request_guard(addresses))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(UnavailableError, _unavailable)
    app.state.project = project
    app.state.assigner = TaskAssigner(project)
    app.state.previews = Previews(project)
    app.state.is_secure = all(address.startswith("https://") for address in addresses)
    _add_pages(app)
    _add_session_routes(app)
    _add_annotator_routes(app)
    _add_owner_routes(app)
    _add_people_routes(app)
    return app


async def _invalid(request: Request, error: Exception) -> Response:
    """Describe ten errors without the value, which JSON may not be able to represent: NaN, or half a character."""
    assert isinstance(error, RequestValidationError)
    problems = error.errors()[:10]
    sentence = "; ".join(f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}" for problem in problems)
    return JSONResponse({"detail": sentence.encode("ascii", "backslashreplace").decode()}, 422)


async def _unavailable(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": access.UNAVAILABLE}, 503)


def _add_pages(app: FastAPI) -> None:
    folder = files("uniemox_curate.annotate").joinpath("page")
    contents = {address: (folder.joinpath(name).read_bytes(), kind) for address, (name, kind) in PAGES.items()}
    contents["/parts.css"] = (STYLE_SHEET.read_bytes(), "text/css")

    async def page(request: Request) -> Response:
        content, kind = contents[request.url.path]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    for address in contents:
        app.add_api_route(address, page, methods=["GET"])
    app.add_api_route("/", lambda: RedirectResponse("/annotate"), methods=["GET"])


def _add_session_routes(app: FastAPI) -> None:
    project: Project = app.state.project
    project_id = project.store.setting("id")

    @app.post(access.JOIN)
    def begin(invitation: TokenIn) -> Response:
        secret = access.join(project.store, invitation.token)
        if secret is None:
            raise HTTPException(401, "this invitation is not valid, or was replaced or taken back; ask for a new one")
        person = access.account_of(project.store, secret)
        response = JSONResponse({"role": None if person is None else person.role})
        settings = {"httponly": True, "samesite": "strict", "secure": app.state.is_secure}
        response.set_cookie(access.COOKIE, secret, max_age=access.SESSION_S, path="/", **settings)
        return response

    @app.post("/api/leave")
    def end(request: Request, person: Anybody) -> Response:
        access.leave(project.store, request.cookies[access.COOKIE])
        response = JSONResponse({})
        response.delete_cookie(access.COOKIE, path="/")
        return response

    @app.get("/api/me")
    def me(person: Anybody) -> Response:
        answered, total = app.state.assigner.count(person.id)
        user = {"project": project_id, "id": person.id, "name": person.name, "role": person.role, "csrf": person.csrf}
        plan = {"labels": project.plan.labels, "kind": project.plan.kind, "styles": project.plan.styles}
        return JSONResponse({**user, **plan, "answered": answered, "total": total})


def _add_annotator_routes(app: FastAPI) -> None:
    project: Project = app.state.project
    assigner: TaskAssigner = app.state.assigner
    previews: Previews = app.state.previews

    @app.get("/api/tasks")
    def tasks(person: Annotator, after: RowInQuery = 0, limit: int = 30) -> Response:
        if not access.has_agreed(project, person.id):
            raise HTTPException(403, "read what you are asked to agree to first")
        next_tasks = assigner.next_tasks(person.id, after, min(max(limit, 1), MAX_TASKS))
        rows = [{"id": task.id, "check": task.check_label, "suggested": task.suggestion} for task in next_tasks]
        return JSONResponse({"tasks": rows})

    @app.get("/api/form")
    def form(person: Annotator) -> Response:
        asked = {"questions": [asdict(question) for question in project.plan.answer.asked]}
        has_agreed = {"has_agreed": access.has_agreed(project, person.id)}
        return JSONResponse({**asdict(project.plan.answer), **asked, **has_agreed})

    @app.post("/api/consent")
    def consent(person: Annotator) -> Response:
        access.agree_to(project, person.id)
        return JSONResponse({})

    @app.get("/api/pictures/{task}")
    async def image(task: RowInPath, person: Annotator) -> Response:
        row = await asyncio.to_thread(assigner.task_of, person.id, task)
        if row is None:
            raise HTTPException(404, "no image of yours")
        if row.check_label:
            return preview_response(draw_check(row.check_label))
        return preview_response(await previews.of(row.picture_id, person.id))

    @app.post("/api/answers")
    async def save_answers(sent: AnswersIn, person: Annotator) -> Response:
        answers = [read_answer(value, project.plan) for value in sent.answers]
        valid = [answer for answer in answers if answer is not None]
        # The server knows which suggestions it showed; a page could claim others.
        claims = {answer.task: answer.suggested for answer in valid if answer.suggested}
        suggestions = await asyncio.to_thread(assigner.suggestions, person.id, claims) if claims else {}
        checked = [answer.model_copy(update={"suggested": suggestions.get(answer.task)}) for answer in valid]
        saved = await asyncio.wrap_future(app.state.writer.save(person.id, checked))
        ids = [value["id"] for value in sent.answers if has_id(value)]
        refused = [number for number in ids if number not in saved]
        return JSONResponse({"saved": [number for number in ids if number in saved], "refused": refused})

    @app.get("/api/answers")
    def own_answers(person: Annotator, limit: int = 20) -> Response:
        rows = assigner.own_answers(person.id, min(max(limit, 1), MAX_TASKS))
        return JSONResponse({"answers": rows})


def _add_owner_routes(app: FastAPI) -> None:
    project: Project = app.state.project
    previews: Previews = app.state.previews

    @app.get("/api/status")
    def progress(person: Owner) -> Response:
        return JSONResponse(status(project).to_json())

    @app.get("/api/grid")
    def grid(person: Owner, shown: Literal["keep", "drop"] = "keep", label: str = "", page: int = 0) -> Response:
        return JSONResponse(_grid(project, shown, label, max(page, 0)))

    @app.get("/api/disputed")
    def disputed_images(person: Owner) -> Response:
        rule = remembered_rule(project.store)
        images = disputed(project, rule)
        rows = [{"picture": image, "answers": labels} for image, labels in islice(images.items(), GRID_SIZE)]
        return JSONResponse({"rule": rule, "count": len(images), "pictures": rows})

    @app.get("/api/originals/{image}")
    async def original(image: RowInPath, person: Owner) -> Response:
        return preview_response(await previews.of(image, person.id))

    @app.post("/api/changes")
    def save_changes(sent: ChangesIn, person: Owner) -> Response:
        changes = [_checked(project, change) for change in sent.changes]
        note = ", ".join(sorted({f"{change.field} {change.value or 'none'}" for change in changes}))
        with project.store.write() as connection:
            images = {change.picture for change in changes}
            if set(connection.scalars(select(t.images.c.id).where(t.images.c.id.in_(images)))) != images:
                raise HTTPException(404, "an image does not exist")
            batch = append(connection, actor=person.name, step="by hand", note=note, changes=changes)
        return JSONResponse({"batch": batch})

    @app.post("/api/undo")
    def undo_batch(sent: BatchIn, person: Owner) -> Response:
        with _refused(409), project.store.write() as connection:
            batch = undo(connection, sent.batch, actor=person.name)
        return JSONResponse({"batch": batch})


def _add_people_routes(app: FastAPI) -> None:
    project: Project = app.state.project

    @app.post("/api/people")
    def invite_annotator(sent: NameIn, person: Owner) -> Response:
        with _refused(422):
            return JSONResponse({"path": f"/join#{access.invite(project, sent.name)}"})

    @app.post("/api/people/leave-out")
    def leave_out_annotator(sent: NameIn, person: Owner) -> Response:
        with _refused(404), project.store.write() as connection:
            batch = leave_out(connection, sent.name, actor=person.name)
        return JSONResponse({"batch": batch})

    @app.post("/api/people/revoke")
    def end_access(sent: NameIn, person: Owner) -> Response:
        if sent.name == person.name:
            raise HTTPException(409, "you can't end your own access; leave instead")
        with _refused(404):
            access.revoke(project, sent.name)
        return JSONResponse({})


@contextmanager
def _refused(status_code: int) -> Iterator[None]:
    """Convert an error inside the context to a response with this status."""
    try:
        yield
    except UnavailableError:
        raise
    except UniemoxError as error:
        raise HTTPException(status_code, str(error)) from error


def _checked(project: Project, sent: ChangeIn) -> Change:
    """Return the decision of a request.

    Raises:
        HTTPException: With status 422 if its value is not allowed.
    """
    plan = project.plan
    allowed = {"screen": ("keep", "drop"), "style": ("", *plan.styles), "verdict": (*plan.labels, NONE)}
    values = allowed[sent.field]
    if sent.value not in values:
        raise HTTPException(422, f"{sent.field} must be one of {', '.join(values)}")
    is_drop = (sent.field, sent.value) == ("screen", "drop")
    return Change(sent.picture, sent.field, sent.value, "mismatch: by hand" if is_drop else "by hand")


def _grid(project: Project, decision: str, label: str, page: int) -> dict[str, Any]:
    """Return one page of kept or dropped images by label, lowest scores of a model first.

    Keyword and title are those of an image's first candidate. They are untrusted: text, never HTML.
    """
    screened = current("screen")
    styles = current("style")
    candidates = t.candidates.c
    image = screened.c.picture_id
    score = t.looks.c.score
    searched = select(
        candidates.picture_id, func.min(candidates.label).label("first"), func.min(candidates.id).label("id")
    )
    of_image = searched.where(candidates.picture_id.is_not(None)).group_by(candidates.picture_id).subquery()
    query = (
        select(screened, styles.c.value.label("style"), score, candidates.keyword, candidates.title)
        .outerjoin(styles, styles.c.picture_id == image)
        .outerjoin(t.looks, t.looks.c.picture_id == image)
        .outerjoin(of_image, of_image.c.picture_id == image)
        .outerjoin(t.candidates, candidates.id == of_image.c.id)
        .where(screened.c.value == decision, image.not_in(taken_down()))
    )
    if label:
        query = query.where(image.in_(select(candidates.picture_id).where(candidates.label == label)))
    count = project.count(query)
    query = query.order_by(func.coalesce(of_image.c.first, ""), func.coalesce(score, 0), image)
    rows = project.rows(query.limit(GRID_SIZE).offset(min(page * GRID_SIZE, MAX_ROWS)))
    labels = searched_labels(project, [row.picture_id for row in rows])
    images = [
        {"picture": row.picture_id, "labels": sorted(labels[row.picture_id]), "screen": row.value}
        | {"reason": row.reason, "style": row.style or "", "score": row.score}
        | {"keyword": row.keyword or "", "title": row.title or ""}
        for row in rows
    ]
    return {"count": count, "page": page, "pages": -(-count // GRID_SIZE), "pictures": images}
