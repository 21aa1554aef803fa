"""What the owner asks for: how far everything is, the grid that screens, disputed images, invitations, undoing."""

from typing import Any, Literal

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from sqlalchemy import select

from uniemox.curate import tables as t
from uniemox.curate.annotate.access import invite, revoke
from uniemox.curate.annotate.permits import IMAGE_HEADERS, MAX_ROWS, NumberInPath, Owner, Strict
from uniemox.curate.annotate.previews import Previews
from uniemox.curate.annotate.verdicts import disputed, read_answers
from uniemox.curate.project import Project, searched_labels
from uniemox.curate.release.takedown import take_back
from uniemox.curate.status import status
from uniemox.curate.store import NONE, Change, append, decisions, leave_out, taken_down
from uniemox.errors import ConfigError, DataError

PAGE = 48  # images of a grid
MAX_CHANGES = 500


class ChangeIn(Strict):
    """A decision about an image."""

    picture: int = Field(ge=1, lt=MAX_ROWS)
    field: Literal["screen", "style", "verdict"]
    value: str = Field(max_length=60)


class ChangesIn(Strict):
    """Decisions that are undone together."""

    changes: list[ChangeIn] = Field(min_length=1, max_length=MAX_CHANGES)


class BatchIn(Strict):
    """What to undo."""

    batch: int = Field(ge=1, lt=MAX_ROWS)


class NameIn(Strict):
    """Whom to invite, or whose access ends."""

    name: str = Field(max_length=100)


def add_owner_routes(app: FastAPI) -> None:
    """Add them to the application."""
    project: Project = app.state.project
    previews: Previews = app.state.previews
    _add_people_routes(app, project)

    @app.get("/api/status")
    def how_far(person: Owner) -> Response:
        return JSONResponse(status(project))

    @app.get("/api/grid")
    def grid(person: Owner, shown: Literal["keep", "drop"] = "keep", label: str = "", page: int = 0) -> Response:
        return JSONResponse(_grid(project, shown, label, max(page, 0)))

    @app.get("/api/disputed")
    def open_questions(person: Owner) -> Response:
        answers = read_answers(project)
        with project.store.read() as connection:
            judged = {image: one.value for image, one in decisions(connection, "verdict").items()}
        found = disputed(answers, judged)
        rows = [{"picture": image, "answers": sorted(answers.by_picture[image].values())} for image in found[:PAGE]]
        return JSONResponse({"count": len(found), "pictures": rows})

    @app.get("/api/originals/{image}")
    def original(image: NumberInPath, person: Owner) -> Response:
        data = previews.of(image)
        if data is None:
            raise HTTPException(404, "this image is not there or can't be shown")
        return Response(data, media_type="image/jpeg", headers=IMAGE_HEADERS)

    @app.post("/api/changes")
    def change(given: ChangesIn, person: Owner) -> Response:
        changes = [_checked(project, one) for one in given.changes]
        note = ", ".join(sorted({f"{one.field} {one.value or 'none'}" for one in changes}))
        with project.store.write() as connection:
            known = set(connection.scalars(select(t.images.c.id).where(t.images.c.id.in_(c.picture for c in changes))))
            if not {one.picture for one in changes} <= known:
                raise HTTPException(404, "an image is not there")
            batch = append(connection, actor=person.name, step="by hand", note=note, changes=changes)
        return JSONResponse({"batch": batch})

    @app.post("/api/undo")
    def undo(given: BatchIn, person: Owner) -> Response:
        try:
            batch = take_back(project, given.batch, actor=person.name)
        except DataError as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse({"batch": batch})


def _add_people_routes(app: FastAPI, project: Project) -> None:
    @app.post("/api/people")
    def invite_somebody(given: NameIn, person: Owner) -> Response:
        try:
            token = invite(project, given.name)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        return JSONResponse({"path": f"/join#{token}"})

    @app.post("/api/people/leave-out")
    def count_no_more(given: NameIn, person: Owner) -> Response:
        try:
            with project.store.write() as connection:
                batch = leave_out(connection, given.name, actor=person.name)
        except DataError as error:
            raise HTTPException(404, str(error)) from error
        return JSONResponse({"batch": batch})

    @app.post("/api/people/revoke")
    def end_access(given: NameIn, person: Owner) -> Response:
        if given.name == person.name:
            raise HTTPException(409, "you can't end your own access; leave instead")
        try:
            revoke(project, given.name)
        except DataError as error:
            raise HTTPException(404, str(error)) from error
        return JSONResponse({})


def _checked(project: Project, given: ChangeIn) -> Change:
    """A change whose value is one of its field. Raises HTTPException."""
    values = {
        "screen": ("keep", "drop"),
        "style": ("", *project.plan.styles),
        "verdict": (*project.plan.labels, NONE),
    }[given.field]
    if given.value not in values:
        raise HTTPException(422, f"{given.field} must be one of {', '.join(values)}")
    reason = "mismatch: by hand" if (given.field, given.value) == ("screen", "drop") else "by hand"
    return Change(given.picture, given.field, given.value, reason)


def _grid(project: Project, shown: str, label: str, page: int) -> dict[str, Any]:
    """A page of images that are kept or dropped, those that a model finds least fitting first."""
    with project.store.read() as connection:
        screened, styles = decisions(connection, "screen"), decisions(connection, "style")
        gone = taken_down(connection)
        scores = {
            row.picture_id: row.score for row in connection.execute(select(t.looks.c.picture_id, t.looks.c.score))
        }
    labels = searched_labels(project)
    numbers = [
        image
        for image, one in screened.items()
        if one.value == shown and image not in gone and (not label or label in labels.get(image, ()))
    ]
    numbers.sort(key=lambda number: (sorted(labels.get(number, ())), scores.get(number) or 0.0, number))
    on_page = numbers[page * PAGE : (page + 1) * PAGE]
    told = _provenance(project, on_page)
    return {
        "count": len(numbers),
        "page": page,
        "pages": -(-len(numbers) // PAGE),
        "pictures": [
            {
                "picture": number,
                "labels": sorted(labels.get(number, ())),
                "screen": screened[number].value,
                "reason": screened[number].reason,
                "style": styles[number].value if number in styles else "",
                "score": scores.get(number),
                **told.get(number, {}),
            }
            for number in on_page
        ],
    }


def _provenance(project: Project, images: list[int]) -> dict[int, dict[str, str]]:
    """Keyword and title of the first candidate that became an image. Both come from strangers: texts, never HTML."""
    query = select(t.candidates.c.picture_id, t.candidates.c.keyword, t.candidates.c.title)
    rows = project.rows(query.where(t.candidates.c.picture_id.in_(images)).order_by(t.candidates.c.id.desc()))
    return {row.picture_id: {"keyword": row.keyword, "title": row.title} for row in rows}
