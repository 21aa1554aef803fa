"""Tables of a project's database. Images are files next to it, named by their sha256."""

from sqlalchemy import Float, Integer, LargeBinary, String, Text
from sqlalchemy.schema import Column, ForeignKey, Index, MetaData, SchemaItem, Table, UniqueConstraint

SCHEMA = 1  # version of the tables; increase it with every change
FOLDER = "folder"
"""Source of candidates that are files on this machine; licence and author are given for a whole folder."""

metadata = MetaData()


def _numbered(name: str, *columns: SchemaItem) -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), *columns)


settings = Table(
    "settings", metadata, Column("name", String(40), primary_key=True), Column("value", Text, nullable=False)
)

searches = Table(
    "searches",
    metadata,
    Column("source", String(40), primary_key=True),
    Column("keyword", String(200), primary_key=True),
    Column("label", String(60), primary_key=True),
    Column("asked", Integer, nullable=False),
    Column("found", Integer, nullable=False),
    Column("at", Float, nullable=False),
)
"""Finished searches with the number of results asked for; unfinished ones start again. label "": any."""

images = _numbered(
    "pictures",
    Column("sha256", String(64), nullable=False, unique=True),
    Column("format", String(8), nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("added_at", Float, nullable=False),
)
"""Each different file once."""

candidates = _numbered(
    "candidates",
    Column("source", String(40), nullable=False),
    Column("address", Text, nullable=False),
    Column("keyword", String(200), nullable=False),
    Column("label", String(60)),
    Column("rank", Integer, nullable=False),
    Column("page", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("licence", String(200), nullable=False),
    Column("licence_address", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("found_at", Float, nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("fetched_at", Float),
    Column("picture_id", ForeignKey("pictures.id"), index=True),
    UniqueConstraint("source", "address", "keyword"),
)
"""Results of a source for a keyword: the provenance. state: waiting, fetched, failed. Several may be one image."""

looks = Table(
    "looks",
    metadata,
    Column("picture_id", ForeignKey("pictures.id"), primary_key=True),
    Column("problem", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("thumb", LargeBinary),
    Column("histogram", LargeBinary),
    Column("near_group", Integer),
    Column("score", Float),
)
"""Scan of an image: thumb (32, 32, 3) uint8, histogram (48,) float32; score: a model's share for the label."""

benchmarks = _numbered(
    "benchmarks",
    Column("name", String(200), nullable=False),
    Column("key", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("thumb", LargeBinary),
    UniqueConstraint("name", "key"),
)
"""Images of test sets, which must not be in the new data set."""

batches = _numbered(
    "batches",
    Column("at", Float, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("step", String(20), nullable=False),
    Column("note", Text, nullable=False),
    Column("undoes", ForeignKey("batches.id")),
)
"""Steps, never changed; a batch that undoes another is one too."""

events = _numbered(
    "events",
    Column("batch_id", ForeignKey("batches.id"), nullable=False, index=True),
    Column("picture_id", ForeignKey("pictures.id"), nullable=False),
    Column("field", String(10), nullable=False),
    Column("value", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("events_by_field", "field", "picture_id", "id"),
)
"""Decisions about images. field: screen (keep, drop), style, verdict (a label or none), taken (yes)."""

people = _numbered(
    "people",
    Column("name", String(100), nullable=False, unique=True),
    Column("role", String(10), nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("invited_at", Float, nullable=False),
    Column("revoked_at", Float),
)
"""role: annotator or owner."""

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("person_id", ForeignKey("people.id"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("began_at", Float, nullable=False),
)

tasks = _numbered(
    "tasks",
    Column("person_id", ForeignKey("people.id"), nullable=False),
    Column("picture_id", ForeignKey("pictures.id"), index=True),
    Column("check_label", String(60)),
    Column("given_at", Float, nullable=False),
    UniqueConstraint("person_id", "picture_id"),
)
"""Items shown to an annotator: an image, or an attention check (check_label)."""

answers = _numbered(
    "answers",
    Column("person_id", ForeignKey("people.id"), nullable=False),
    Column("task_id", ForeignKey("tasks.id"), nullable=False, index=True),
    Column("client_id", String(64), nullable=False),
    Column("label", String(60), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("at", Float, nullable=False),
    UniqueConstraint("person_id", "client_id"),
)
"""Answers, never changed: the last one to a task counts. label is one of the plan's, none or skip."""

details = Table(
    "details", metadata, Column("answer_id", ForeignKey("answers.id"), primary_key=True), Column("content", Text)
)
"""Further fields of an answer, as JSON: labels, answers to questions by name, skip, suggested."""

consents = _numbered(
    "consents",
    Column("person_id", ForeignKey("people.id"), nullable=False),
    Column("text_sha256", String(64), nullable=False),
    Column("at", Float, nullable=False),
)
"""Consent of a person to a text."""

suggestions = Table(
    "suggestions",
    metadata,
    Column("picture_id", ForeignKey("pictures.id"), primary_key=True),
    Column("label", String(60), nullable=False),
    Column("share", Float, nullable=False),
)
"""Predictions of the model that the owner chose, shown to annotators."""

releases = _numbered(
    "releases",
    Column("folder", Text, nullable=False, unique=True),
    Column("options", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("pictures", Integer, nullable=False),
)

release_records = Table(
    "release_records",
    metadata,
    Column("release_id", ForeignKey("releases.id"), primary_key=True),
    Column("content", Text, nullable=False),
)
"""What a release says beside its images, as JSON (see release/record.py); releases of older versions have none."""

released_images = Table(
    "released_images",
    metadata,
    Column("release_id", ForeignKey("releases.id"), primary_key=True),
    Column("picture_id", ForeignKey("pictures.id"), primary_key=True),
    Column("content", Text, nullable=False),
    Column("digest", String(64)),
    Column("is_exact", Integer),
)
"""What a release says about each image, as JSON. digest: sha256 of its file in the release; is_exact: 1 if the file has
all pixels of the collected one. Both are null until the release is complete."""
