"""What annotators ask for: their next images, and that their answers are kept."""

import asyncio

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from uniemox.curate.annotate.answering import Answer
from uniemox.curate.annotate.assignment import TaskAssigner
from uniemox.curate.annotate.permits import IMAGE_HEADERS, MAX_ROWS, Annotator, NumberInPath, NumberInQuery, Strict
from uniemox.curate.annotate.previews import Previews, check_image
from uniemox.curate.project import Project
from uniemox.curate.store import NONE
from uniemox.errors import DataError

MAX_TASKS, MAX_ANSWERS = 60, 500


class AnswerIn(Strict):
    """One answer; the page makes the id, so that it can send the answer again."""

    id: str = Field(pattern=r"^[A-Za-z0-9-]{8,64}$")
    task: int = Field(ge=1, lt=MAX_ROWS)
    label: str = Field(max_length=60)
    seconds: float = Field(ge=0, le=86400, strict=False)


class AnswersIn(Strict):
    """What a page has not been told yet to be saved."""

    answers: list[AnswerIn] = Field(max_length=MAX_ANSWERS)


def add_annotator_routes(app: FastAPI) -> None:
    """Add them to the application."""
    project: Project = app.state.project
    giver: TaskAssigner = app.state.giver
    previews: Previews = app.state.previews

    @app.get("/api/tasks")
    def tasks(person: Annotator, after: NumberInQuery = 0, limit: int = 30) -> Response:
        found = giver.next_tasks(person.id, after, min(max(limit, 1), MAX_TASKS))
        shown = [{"id": task.id, "words": _words(task.check_label)} for task in found]
        return JSONResponse({"tasks": shown})

    @app.get("/api/pictures/{task}")
    def image(task: NumberInPath, person: Annotator) -> Response:
        found = giver.task_of(person.id, task)
        if found is None:
            raise HTTPException(404, "no image of yours")
        data = check_image(found.check_label) if found.check_label else previews.of(found.picture or 0)
        if data is None:
            raise HTTPException(404, "the image is not there any more")
        return Response(data, media_type="image/jpeg", headers=IMAGE_HEADERS)

    @app.post("/api/answers")
    async def answer(given: AnswersIn, person: Annotator) -> Response:
        known = {*project.plan.labels, NONE}
        fits = [one for one in given.answers if one.label in known]
        rows = [Answer(person.id, one.task, one.id, one.label, one.seconds) for one in fits]
        try:
            saved = await asyncio.wrap_future(app.state.writer.save(rows))
        except DataError as error:
            raise HTTPException(503, "answers can't be saved now; they are kept in the page") from error
        return JSONResponse(
            {
                "saved": [one.id for one in given.answers if one.id in saved],
                "refused": [one.id for one in given.answers if one.id not in saved],
            }
        )

    @app.get("/api/answers")
    def own_answers(person: Annotator, limit: int = 20) -> Response:
        rows = giver.own_answers(person.id, min(max(limit, 1), MAX_ANSWERS))
        return JSONResponse({"answers": rows})


def _words(check_label: str | None) -> str | None:
    """An attention check in words, for those who have the page read aloud."""
    return None if check_label is None else f"Attention check: please answer {check_label}"
