"""Access to the pages: invitations, sessions, consent, and the checks that every request must pass."""

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from sqlalchemy import insert, select, update
from starlette.datastructures import Headers
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from uniemox.errors import ConfigError, UnavailableError
from uniemox_curate import tables as t
from uniemox_curate.decisions import person_of
from uniemox_curate.project import Project
from uniemox_curate.store import Store
from uniemox_serve import HEADERS as SERVE_HEADERS
from uniemox_serve import Turns, as_sent, without_cookies

Role = Literal["annotator", "owner"]
# Name of the person who serves the project.
OWNER = "owner"
COOKIE = "uniemox_curate"
OWN_COOKIE = re.compile(rf"(?:^|;) *({COOKIE}=[A-Za-z0-9_-]{{1,100}}) *(?:;|$)".encode())
MAY_ENTER = t.people.c.revoked_at.is_(None) & ((t.people.c.role == "annotator") | (t.people.c.name == OWNER))
"""Condition for people with access. A stranger's project may hold further owners."""
SESSION_S = 60 * 24 * 3600
# Time that the clock may have been ahead when a session began.
CLOCK_S = 3600
JOIN = "/api/join"
"""The only address that accepts a request body from people without a session."""
MAX_BODY = 256 * 1024
MAX_JOIN_BODY = 1024
READ_TIMEOUT_S = 30.0
"""Time limit for a request's body."""
SAFE_METHODS = ("GET", "HEAD")
UNAVAILABLE = "the database can't be used now; try again later, answers are kept in the page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
PERMISSIONS = "camera=(), microphone=(), geolocation=()"
HEADERS = SERVE_HEADERS | {"Content-Security-Policy": POLICY, "Permissions-Policy": PERMISSIONS}


@dataclass(frozen=True, slots=True)
class Account:
    """Person who sends a request."""

    id: int
    name: str
    role: str
    csrf: str
    """Token that every modifying request must have in its header."""


def invite(project: Project, name: str, role: Role = "annotator") -> str:
    """Return a new invitation token for a person. Only its hash is stored; anyone with the token acts as that person.

    A new invitation for a known name replaces the old one and ends that person's sessions; the answers stay.

    Raises:
        ConfigError: For a name that is empty, too long, the owner's, or used in another role.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise ConfigError(f"a name must have 1 to 100 printable letters, got {name[:120]!r}")
    if (name == OWNER) != (role == "owner"):
        raise ConfigError(f"{OWNER} is reserved for whoever serves the project; choose another name for the {role}")
    token = secrets.token_urlsafe(24)
    with project.store.write() as connection:
        person = connection.execute(select(t.people.c.id, t.people.c.role).where(t.people.c.name == name)).first()
        values = {"token_hash": _hash(token), "invited_at": time.time(), "revoked_at": None}
        if person is None:
            connection.execute(insert(t.people).values(name=name, role=role, **values))
        elif person.role != role:
            raise ConfigError(f"{name} is {person.role} already; choose another name for the {role}")
        else:
            connection.execute(update(t.people).where(t.people.c.id == person.id).values(**values))
            connection.execute(t.sessions.delete().where(t.sessions.c.person_id == person.id))
    return token


def is_invited(project: Project, name: str) -> bool:
    """Return True if a person has an invitation, which a new one would replace."""
    with project.store.read() as connection:
        query = select(t.people.c.id).where(t.people.c.name == " ".join(name.split()), t.people.c.revoked_at.is_(None))
        return connection.scalar(query) is not None


def revoke(project: Project, name: str) -> None:
    """End a person's access; the answers stay.

    Raises:
        DataError: For an unknown name.
    """
    with project.store.write() as connection:
        number = person_of(connection, name)
        connection.execute(update(t.people).where(t.people.c.id == number).values(revoked_at=time.time()))
        connection.execute(t.sessions.delete().where(t.sessions.c.person_id == number))


def join(store: Store, token: str) -> str | None:
    """Start a session and return its secret, for a cookie; None for an invalid token."""
    secret = secrets.token_urlsafe(32)
    with store.write() as connection:
        number = connection.scalar(select(t.people.c.id).where(t.people.c.token_hash == _hash(token), MAY_ENTER))
        if number is None:
            return None
        csrf = secrets.token_urlsafe(24)
        row = {"token_hash": _hash(secret), "person_id": number, "csrf": csrf, "began_at": time.time()}
        connection.execute(insert(t.sessions).values(**row))
    return secret


def leave(store: Store, secret: str) -> None:
    """End a session."""
    with store.write() as connection:
        connection.execute(t.sessions.delete().where(t.sessions.c.token_hash == _hash(secret)))


def account_of(store: Store, secret: str) -> Account | None:
    """Return the person of a session; None if the session has ended or never existed."""
    people = t.people.c
    sessions = t.sessions.c
    query = select(people.id, people.name, people.role, sessions.csrf).join(t.sessions)
    is_valid = (sessions.token_hash == _hash(secret)) & sessions.began_at.between(
        time.time() - SESSION_S, time.time() + CLOCK_S
    )
    with store.read() as connection:
        row = connection.execute(query.where(is_valid, MAY_ENTER)).first()
    return None if row is None else Account(*row)


def has_agreed(project: Project, person: int) -> bool:
    """Return True if a person has agreed to the current text, or the plan asks for no consent."""
    if not project.plan.answer.consent:
        return True
    same_text = t.consents.c.text_sha256 == _hash(project.plan.answer.consent)
    return bool(project.rows(select(t.consents.c.id).where(t.consents.c.person_id == person, same_text).limit(1)))


def consent_times(project: Project) -> dict[str, float]:
    """Return when each person agreed to the current text, seconds since 1970, by name."""
    same_text = t.consents.c.text_sha256 == _hash(project.plan.answer.consent)
    query = select(t.people.c.name, t.consents.c.at).join(t.people, t.people.c.id == t.consents.c.person_id)
    return {row.name: row.at for row in project.rows(query.where(same_text).order_by(t.consents.c.at.desc()))}


def agree_to(project: Project, person: int) -> None:
    """Save a person's consent, with the time."""
    if not has_agreed(project, person):
        row = {"person_id": person, "text_sha256": _hash(project.plan.answer.consent), "at": time.time()}
        with project.store.write() as connection:
            connection.execute(insert(t.consents).values(**row))


def _hash(secret: str) -> str:
    """Hash a token. Tokens are long and random, so that a fast hash is sufficient."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


async def _anybody(request: Request) -> Account:
    """Require a session, and its CSRF token in a modifying request.

    The query runs in the server's own thread, because a thread pool would cost more than the query.
    """
    person = account_of(request.app.state.project.store, request.cookies.get(COOKIE, ""))
    if person is None:
        raise HTTPException(401, "open the link of your invitation first")
    sent = request.headers.get("x-csrf", "")
    if request.method != "GET" and not secrets.compare_digest(sent.encode(), person.csrf.encode()):
        raise HTTPException(403, "the page is too old; load it again")
    return person


Anybody = Annotated[Account, Depends(_anybody)]


def _only(role: Role, refusal: str) -> Callable[[Account], Awaitable[Account]]:
    async def check(person: Anybody) -> Account:
        if person.role != role:
            raise HTTPException(403, refusal)
        return person

    return check


Annotator = Annotated[Account, Depends(_only("annotator", "this page is for annotators"))]
Owner = Annotated[Account, Depends(_only("owner", "this page is for the owner of the project"))]


def _problem_of_body(headers: Headers, limit: int) -> tuple[int, str] | None:
    """Return status and reason if a request's body has no length or is too long; None otherwise.

    Args:
        limit: Maximum number of bytes.
    """
    length = headers.get("content-length", "")
    # With both headers, the body may be longer than the length.
    if not length.isdigit() or "transfer-encoding" in headers:
        return 411, "expected a Content-Length, without a Transfer-Encoding"
    if int(length) > limit:
        return 413, f"more than {limit} bytes"
    return None


def request_guard(addresses: Iterable[str]) -> Callable[[Request, RequestResponseEndpoint], Awaitable[Response]]:
    """Return middleware that refuses requests for other hosts (DNS rebinding), from other sites, large and slow ones.

    Args:
        addresses: Addresses of the pages, such as http://127.0.0.1:8000.
    """
    origins = frozenset(map(as_sent, addresses))
    turns = Turns()
    hosts = {urlsplit(address).netloc for address in origins}

    def problem_of(request: Request) -> tuple[int, str] | None:
        # Not request.headers, which would keep the cookies.
        headers = Headers(scope=request.scope)
        if headers.get("host", "").lower() not in hosts:
            return 421, "this server does not accept that host name"
        if request.method in SAFE_METHODS:
            return None
        if headers.get("origin", "none sent") not in origins:
            return 403, "requests from other sites are refused"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "expected JSON"
        return _problem_of_body(headers, MAX_JOIN_BODY if request.scope["path"] == JOIN else MAX_BODY)

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        turn = turns.of(request.scope)
        async with turn:
            # Other requests go first.
            await asyncio.sleep(0)
        problem = problem_of(request)
        headers = dict(HEADERS)
        # Only our own cookie is parsed; others may take long.
        cookie = OWN_COOKIE.search(without_cookies(request.scope))
        request.scope["headers"] += [(b"cookie", cookie[1])] if cookie else []
        if problem is None and request.method not in SAFE_METHODS:
            try:
                if request.scope["path"] != JOIN:
                    await _anybody(request)
                async with asyncio.timeout(READ_TIMEOUT_S):
                    # The request keeps it for the route.
                    await request.body()
            except TimeoutError:
                problem = (408, f"the body did not arrive within {READ_TIMEOUT_S:g} s")
                headers["Connection"] = "close"
            except HTTPException as refusal:
                problem = refusal.status_code, refusal.detail
            except UnavailableError:
                problem = 503, UNAVAILABLE
            except ClientDisconnect:
                problem = 400, "the client has gone"
        async with turn:
            response = JSONResponse({"detail": problem[1]}, problem[0]) if problem else await call_next(request)
        for name, value in headers.items():
            response.headers.setdefault(name, value)
        return response

    return guard
