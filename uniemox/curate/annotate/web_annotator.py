"""What annotators ask for: their next images, and that their answers are kept."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from uniemox.curate.annotate.answer_form import is_named, read_answer
from uniemox.curate.annotate.answering import Answer
from uniemox.curate.annotate.assignment import TaskAssigner
from uniemox.curate.annotate.consent import agree_to, has_agreed
from uniemox.curate.annotate.permits import IMAGE_HEADERS, Annotator, NumberInPath, NumberInQuery, Strict
from uniemox.curate.annotate.previews import Previews, check_image
from uniemox.curate.project import Project
from uniemox.errors import DataError

MAX_TASKS, MAX_ANSWERS = 60, 500


class AnswersIn(Strict):
    """What a page has not been told yet to be saved."""

    answers: list[Any] = Field(max_length=MAX_ANSWERS)


def add_annotator_routes(app: FastAPI) -> None:
    """Add them to the application."""
    project: Project = app.state.project
    giver: TaskAssigner = app.state.giver
    previews: Previews = app.state.previews

    @app.get("/api/tasks")
    def tasks(person: Annotator, after: NumberInQuery = 0, limit: int = 30) -> Response:
        if not has_agreed(project, person.id):
            raise HTTPException(403, "read what you are asked to agree to first")
        found = giver.next_tasks(person.id, after, min(max(limit, 1), MAX_TASKS))
        shown = [{"id": task.id, "check": task.check_label, "suggested": task.suggestion} for task in found]
        return JSONResponse({"tasks": shown})

    @app.get("/api/form")
    def form(person: Annotator) -> Response:
        return JSONResponse({**asdict(project.plan.answer), "has_agreed": has_agreed(project, person.id)})

    @app.post("/api/consent")
    def consent(person: Annotator) -> Response:
        agree_to(project, person.id)
        return JSONResponse({})

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
        fits = [one for each in given.answers if (one := read_answer(each, project.plan.labels)) is not None]
        claims = {one.task: one.suggested for one in fits if one.suggested}
        shown = await asyncio.to_thread(giver.suggestions, person.id, claims) if claims else {}
        rows = [
            Answer(person.id, one.task, one.id, one.label, one.seconds, one.details(shown.get(one.task)))
            for one in fits
        ]
        try:
            saved = await asyncio.wrap_future(app.state.writer.save(rows))
        except DataError as error:
            raise HTTPException(503, "answers can't be saved now; they are kept in the page") from error
        ids = [one["id"] for one in given.answers if is_named(one)]
        return JSONResponse(
            {"saved": [one for one in ids if one in saved], "refused": [one for one in ids if one not in saved]}
        )

    @app.get("/api/answers")
    def own_answers(person: Annotator, limit: int = 20) -> Response:
        rows = giver.own_answers(person.id, min(max(limit, 1), MAX_ANSWERS))
        return JSONResponse({"answers": rows})
