"""Who may do what: invitations by token, sessions, and a token against forged requests."""

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import bindparam, insert, select, update

from uniemox.curate import tables as t
from uniemox.curate.project import Project
from uniemox.curate.store import Store
from uniemox.errors import ConfigError, DataError

Role = Literal["annotator", "owner"]
OWNER = "owner"  # the name of whoever serves the project
SESSION_S = 60 * 24 * 3600
_WHO = (  # made once, because every request asks it
    select(t.people.c.id, t.people.c.name, t.people.c.role, t.sessions.c.csrf)
    .join(t.sessions, t.sessions.c.person_id == t.people.c.id)
    .where(
        t.sessions.c.token_hash == bindparam("secret"),
        t.sessions.c.began_at > bindparam("since"),
        t.people.c.revoked_at.is_(None),
    )
)


@dataclass(frozen=True, slots=True)
class Account:
    """Who makes a request."""

    id: int
    name: str
    role: str
    csrf: str
    """What every request that changes something must carry in its header."""


def invite(project: Project, name: str, role: Role = "annotator") -> str:
    """A token for one person; it is shown once and kept as a hash. Whoever has it is that person.

    An invitation for a name that is there replaces the old one and ends that person's sessions; the answers stay.
    Raises ConfigError for a name that is empty, too long, the owner's, or somebody's in another role.
    """
    name = " ".join(name.split())
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise ConfigError(f"a name must have 1 to 100 printable letters, got {name[:120]!r}")
    if name == OWNER and role != "owner":
        raise ConfigError(f"{OWNER} is the name of whoever serves the project; take another name for the {role}")
    token = secrets.token_urlsafe(24)
    with project.store.write() as connection:
        known = connection.execute(select(t.people.c.id, t.people.c.role).where(t.people.c.name == name)).first()
        values = {"token_hash": _hash(token), "invited_at": time.time(), "revoked_at": None}
        if known is None:
            connection.execute(insert(t.people).values(name=name, role=role, **values))
        elif known.role != role:
            raise ConfigError(f"{name} is {known.role} already; take another name for the {role}")
        else:
            connection.execute(update(t.people).where(t.people.c.id == known.id).values(**values))
            connection.execute(t.sessions.delete().where(t.sessions.c.person_id == known.id))
    return token


def revoke(project: Project, name: str) -> None:
    """End somebody's access; the answers stay. Raises DataError for a name that nobody has."""
    with project.store.write() as connection:
        number = connection.scalar(select(t.people.c.id).where(t.people.c.name == name))
        if number is None:
            raise DataError(f"nobody named {name!r} was invited; uniemox curate status lists who was")
        connection.execute(update(t.people).where(t.people.c.id == number).values(revoked_at=time.time()))
        connection.execute(t.sessions.delete().where(t.sessions.c.person_id == number))


def join(store: Store, token: str) -> str | None:
    """Begin a session and return its secret, for a cookie; None for a token that is not valid."""
    secret = secrets.token_urlsafe(32)
    with store.write() as connection:
        valid = (t.people.c.token_hash == _hash(token)) & t.people.c.revoked_at.is_(None)
        number = connection.scalar(select(t.people.c.id).where(valid))
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


def who(store: Store, secret: str) -> Account | None:
    """Whose session it is; None if it is over or never was."""
    with store.read() as connection:
        row = connection.execute(_WHO, {"secret": _hash(secret), "since": time.time() - SESSION_S}).first()
    return None if row is None else Account(row.id, row.name, row.role, row.csrf)


def _hash(secret: str) -> str:
    """Tokens are long and random, so that a fast hash is enough."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
