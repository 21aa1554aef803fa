"""Who may make a request: every route asks for one of these."""

import secrets
from typing import Annotated

from fastapi import Depends, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict

from uniemox.curate.annotate.access import Account, who

COOKIE = "uniemox_curate"
IMAGE_HEADERS = {"Cache-Control": "private, max-age=86400, immutable"}


class Strict(BaseModel):
    """A body without unknown fields and without guessed types."""

    model_config = ConfigDict(extra="forbid", strict=True)


async def anybody(request: Request) -> Account:
    """Whoever has a session; a request that changes something must carry the session's token as well.

    It asks the database in the server's own thread: handing that to another one costs more than the query.
    """
    person = who(request.app.state.project.store, request.cookies.get(COOKIE, ""))
    if person is None:
        raise HTTPException(401, "open the link of your invitation first")
    told = request.headers.get("x-csrf", "")
    if request.method != "GET" and not secrets.compare_digest(told.encode(), person.csrf.encode()):
        raise HTTPException(403, "the page is too old; load it again")
    return person


async def annotator(person: Annotated[Account, Depends(anybody)]) -> Account:
    """An annotator."""
    if person.role != "annotator":
        raise HTTPException(403, "this page is for annotators")
    return person


async def owner(person: Annotated[Account, Depends(anybody)]) -> Account:
    """The owner."""
    if person.role != "owner":
        raise HTTPException(403, "this page is for the owner of the project")
    return person


MAX_ROWS = 2**53  # numbers of rows are below it: pages can't tell larger ones apart, and databases take none
NumberInPath = Annotated[int, Path(ge=1, lt=MAX_ROWS)]
NumberInQuery = Annotated[int, Query(ge=0, lt=MAX_ROWS)]
Anybody = Annotated[Account, Depends(anybody)]
Annotator = Annotated[Account, Depends(annotator)]
Owner = Annotated[Account, Depends(owner)]
