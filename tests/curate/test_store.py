"""Decisions are appended, and everything can be undone."""

import json
import os
import sqlite3
import struct
import threading
import time
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from tests.curate.places import take_back
from uniemox.errors import ConfigError, DataError, UnavailableError, UniemoxError
from uniemox.labels import EKMAN, MIKELS
from uniemox_curate import store as store_module
from uniemox_curate import tables as t
from uniemox_curate.decisions import UNDONE, Change, append, decisions, history
from uniemox_curate.plan import CollectionPlan, paper_plan, read_plan
from uniemox_curate.project import create_project, open_project
from uniemox_curate.status import status
from uniemox_curate.store import Store


def store_with(images: int, address: str = "sqlite://") -> Store:
    store = Store(address)
    rows = [
        {"id": i + 1, "sha256": f"{i}", "format": "JPEG", "bytes": 1, "width": 1, "height": 1, "added_at": 0.0}
        for i in range(images)
    ]
    with store.write() as connection:
        for row in rows:
            connection.execute(insert(t.images).values(**row))
    return store


def decide(store: Store, image: int, value: str) -> int:
    with store.write() as connection:
        batch = append(connection, actor="me", step="s", note="", changes=[Change(image, "screen", value)])
    assert batch is not None
    return batch


def test_a_database_that_was_read_only_for_a_while_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is opened meanwhile stays read-only; opening others would pile up descriptors until then."""
    store = store_with(1, f"sqlite:///{tmp_path / 'x.db'}")
    with store.read() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda *_: False)
        for _ in range(2):
            with pytest.raises(UnavailableError, match="readonly"):
                decide(store, 1, "keep")
    with pytest.raises(UnavailableError, match="readonly"):
        decide(store, 1, "keep")
    assert decide(store, 1, "keep")
    store.close()


def values(store: Store) -> dict[int, str]:
    with store.read() as connection:
        return {image: decision.value for image, decision in decisions(connection, "screen").items()}


def test_a_database_that_cannot_be_written_says_so() -> None:
    store = store_with(1)
    with store.read() as connection:
        connection.exec_driver_sql("PRAGMA query_only=ON")
    with pytest.raises(DataError, match=r"can't be written \(attempt to write a readonly database\)"):
        decide(store, 1, "x")


def test_a_project_that_is_away_for_a_moment_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    # not an address
    folder = tmp_path / "p #1?"
    away = tmp_path / "away"
    create_project(folder).store.close()
    project = open_project(folder)
    project.store.close()
    folder.rename(away)
    folder.mkdir()
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"can't be read \(unable to open database file\)"):
            status(project)
    assert not list(folder.iterdir())
    folder.rmdir()
    away.rename(folder)
    assert status(project).next.command.startswith("uniemox curate collect")


@pytest.mark.parametrize("address", ["postgresql://u:x@h:abc/db", "mysql://u:x@[::1/db", "sqlite://u:x@h/x"])
def test_a_wrong_address_leaves_no_project(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="address of the database"):
        create_project(tmp_path / "p", database=address)
    create_project(tmp_path / "p").store.close()


def test_a_relative_database_does_not_depend_on_where_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        numbers.append(create_project(Path("p"), database="sqlite:///p.db").store.setting("id"))
    assert [open_project(tmp_path / name / "p").store.setting("id") for name in "ab"] == numbers


def test_a_project_is_not_begun_in_the_database_of_another(tmp_path: Path) -> None:
    first = create_project(tmp_path / "p")
    before = first.store.setting("id")
    with pytest.raises(ConfigError, match="holds a project already"):
        create_project(tmp_path / "q", database=f"sqlite:///{tmp_path / 'p' / 'project.db'}")
    assert first.store.setting("id") == before


def test_a_locked_database_is_not_a_wrong_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_project(tmp_path / "p").store.close()
    monkeypatch.setattr(store_module, "BUSY_S", 0)
    with closing(sqlite3.connect(tmp_path / "p" / "project.db")) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="another program uses it"):
            open_project(tmp_path / "p")


def test_writers_wait_together_for_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, twenty of them would wait for 20 s."""
    monkeypatch.setattr(store_module, "BUSY_S", 1)
    store = create_project(tmp_path / "p").store
    failures: list[Exception] = []

    def write() -> None:
        try:
            store.set("written", value=True)
        except UnavailableError as error:
            failures.append(error)

    with closing(sqlite3.connect(tmp_path / "p" / "project.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        writers = [threading.Thread(target=write) for _ in range(20)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert time.monotonic() - start < 10
        assert len(failures) == 20
        other.rollback()
    store.set("written", value=True)
    assert store.setting("written")


def test_texts_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    store = create_project(tmp_path / "p").store
    with pytest.raises(ConfigError, match="no text in UTF-8"), store.read() as connection:
        connection.execute(select(t.people).where(t.people.c.name == "x\udcff"))


@pytest.mark.parametrize("name", ["/{}", "ä b%20"])  # two slashes
def test_projects_with_odd_paths_are_opened(tmp_path: Path, name: str) -> None:
    if name.startswith("/"):
        folder = Path(name.format(tmp_path / "p"))
    else:
        folder = tmp_path / name
    create_project(folder).store.close()
    assert status(open_project(folder)).next.command.startswith("uniemox curate collect")


def test_a_folder_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rename the folder"):
        create_project(tmp_path / "bad\udcff")


def test_a_copy_without_a_write_ahead_log_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise one reader makes all writers wait, and a writer all readers."""
    create_project(tmp_path / "p").store.close()
    file = tmp_path / "p" / "project.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    (tmp_path / "copy.db").replace(file)
    with closing(sqlite3.connect(file, check_same_thread=False)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM settings").fetchall()
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "BUSY_S", 0)
            with pytest.raises(UnavailableError, match="another program uses it"):
                open_project(tmp_path / "p")
        other.rollback()
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, other.rollback).start()  # a writer is waited for
        project = open_project(tmp_path / "p")
        other.execute("BEGIN")
        other.execute("SELECT * FROM settings").fetchall()
        project.store.set("written", value=True)


def test_a_password_of_the_database_is_not_shown() -> None:
    with pytest.raises(UniemoxError) as problem:
        Store("mysql+nothing://me:secret@127.0.0.1/x")
    assert "secret" not in str(problem.value)


@settings(max_examples=25)
@example([("set", 1), ("set", 1), ("undo", 2), ("undo", 3), ("undo", 4), ("undo", 1)])
@given(
    st.lists(st.one_of(st.tuples(st.just("set"), st.integers(1, 3)), st.tuples(st.just("undo"), st.integers(1, 12))))
)
def test_undo_equals_a_plain_replay(steps: list[tuple[str, int]]) -> None:
    store = store_with(3)
    log: list[tuple[str, int]] = []
    for kind, number in steps:
        if kind == "set":
            decide(store, number, f"v{len(log)}")
            log.append(("set", number))
        else:
            with store.read() as connection:
                may = number <= len(log) and number not in connection.scalars(UNDONE).all()
            if may:
                take_back(store, number)
                log.append(("undo", number))
            else:
                with pytest.raises(DataError, match="batch"):
                    take_back(store, number)

    def holds(index: int) -> bool:
        return not any(kind == "undo" and number == index + 1 and holds(i) for i, (kind, number) in enumerate(log))

    expected = {}
    for i, (kind, number) in enumerate(log):
        if kind == "set" and holds(i):
            expected[number] = f"v{i}"
    assert values(store) == expected
    with store.read() as connection:
        batches = history(connection, 100)
    assert [(row["id"], row["is_undone"]) for row in reversed(batches)] == [
        (i + 1, not holds(i)) for i in range(len(log))
    ]


def test_concurrent_writers_queue(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'p.db'}"
    store_with(1, address).close()

    def write() -> None:
        store = Store(address)
        for _ in range(10):
            decide(store, 1, "keep")
        store.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(address).read() as connection:
        assert len(history(connection, 100)) == 40
    assert sqlite3.connect(tmp_path / "p.db").execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_invalid_databases_are_refused(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'p.db'}")
    store.set("schema", 99)
    store.close()
    with pytest.raises(DataError, match="version 99"):
        Store(f"sqlite:///{tmp_path / 'p.db'}")
    (tmp_path / "q.db").write_bytes(b"nothing like a database" * 100)
    with pytest.raises(DataError, match="not a database"):
        Store(f"sqlite:///{tmp_path / 'q.db'}")
    for address in ("nonsense", "nosuch://x"):
        with pytest.raises(ConfigError, match="address of the database"):
            Store(address)


def test_a_project_is_created_once_and_keeps_its_plan(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="curate init"):
        open_project(tmp_path)
    plan = CollectionPlan(keywords={"calm": ("lake",), "joy": ("party", "win")}, answers_per_picture=2)
    create_project(tmp_path / "p", plan)
    assert open_project(tmp_path / "p").plan == plan
    with pytest.raises(ConfigError, match="holds a project already"):
        create_project(tmp_path / "p")
    elsewhere = f"sqlite:///{tmp_path / 'else.db'}"
    create_project(tmp_path / "q", plan, database=elsewhere)
    assert open_project(tmp_path / "q").plan == plan
    assert (tmp_path / "else.db").exists()


def test_an_alias_of_a_published_label_stays_the_plan_s_own() -> None:
    words = ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    plan = CollectionPlan(keywords={word: (f"{word} photo",) for word in words})
    assert plan.label_set.labels == plan.labels == words
    assert [plan.label_of(word) for word in ("Happiness", "joy")] == ["happiness", None]
    assert CollectionPlan(keywords={word: (word,) for word in EKMAN.labels}).label_set == EKMAN


def test_the_paper_s_plan() -> None:
    plan = paper_plan()
    assert plan.labels == MIKELS.labels
    assert [len(words) for words in plan.keywords.values()] == [10] * 8
    assert plan.keywords["awe"][:2] == ("Awe", "Reverence")
    assert plan.label_set == MIKELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "keywords: Input should be an object; a plan has keywords, kind"),
        ('{"awe": ["a"]}', "2 to 20 labels"),
        ('{"awe": ["a"], "Fear": ["b"]}', "lower-case"),
        ('{"awe": ["a"], "../x": ["b"]}', "not a path"),
        ('{"awe": ["a"], "fear": [""]}', "every search word of fear"),
        ('{"awe": ["Sea"], "fear": ["b", "sea "]}', "'sea ' is searched for awe and for fear"),
        ('{"keywords": {"awe": ["a"], "fear": ["b"]}, "colour": 1}', "colour: Unexpected keyword argument"),
        ('{"keywords": {"awe": ["a"], "fear": ["b"]}, "kind": "seen"}', "kind: Input should be 'evoked', 'felt' or"),
        ('{"keywords": {"awe": ["a"], "fear": ["b"]}, "check_every": -1}', "check_every"),
        ('{"keywords": {"awe": 5, "fear": ["b"]}}', "keywords.awe: Input should be a valid array"),
        ('{"keywords": {"awe": [""], "fear": "word"}}', "keywords.fear: Input should be a valid array"),
        ('{"keywords": {"awe": ["a"], "fear": ["b"]}, "answers_per_picture": "2"}', "answers_per_picture: Input"),
        ('{"keywords": {"awe": ["a"], "fear": ["b"]}, "answers_per_picture": true}', "answers_per_picture: Input"),
        *(
            (f'{{"keywords": {{"awe": ["a"], "fear": ["b"]}}, "answer": {answer}}}', "answer.*: (Input|Unexpected)")
            for answer in ('{"affect": 1}', '{"consent": true}', '{"colour": true}', "[]")
        ),
        *((f'{{"awe": ["a"], "{label}": ["b"]}}', "pages use it") for label in ("none", "skip")),
    ],
)
def test_invalid_plans_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(DataError if content == "{" else ConfigError, match=message):
        read_plan(tmp_path / "plan.json")


def test_a_plan_file_round_trips(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(paper_plan().to_json())
    assert read_plan(tmp_path / "plan.json") == paper_plan()
    (tmp_path / "plan.json").write_text(json.dumps({"calm": ["lake"], "joy": ["party"]}))
    assert read_plan(tmp_path / "plan.json").keywords == {"calm": ("lake",), "joy": ("party",)}


def test_another_program_s_database_is_left_as_it_is(tmp_path: Path) -> None:
    """A stranger's folder may name it in database.txt."""
    with closing(sqlite3.connect(tmp_path / "places.sqlite")) as other:
        other.execute("create table places (url)")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "database.txt").write_text(f"sqlite:///{tmp_path / 'places.sqlite'}\n")
    with pytest.raises(DataError, match="holds no project"):
        open_project(tmp_path / "p")
    with closing(sqlite3.connect(tmp_path / "places.sqlite")) as other:
        assert other.execute("select name from sqlite_master").fetchall() == [("places",)]


@pytest.mark.parametrize(
    "code",
    [
        "create trigger x before insert on people begin select 1; end",
        "create view x as select 1",
        "alter table people add column x generated always as (printf('%.*c', 800000000, 'x'))",
        "alter table people add column x check (instr(hex(zeroblob(3e7)), hex(zeroblob(15e6)) || '1'))",
        "alter table people add column x default (length(zeroblob(1e9)))",
        "create index x on answers (length(label))",
        "create index x on answers (label) where label is not null",
        "create table x (name references settings (name) on delete cascade)",
    ],
)
def test_a_database_with_code_is_refused(tmp_path: Path, code: str) -> None:
    create_project(tmp_path / "p", paper_plan()).store.close()
    with closing(sqlite3.connect(tmp_path / "p" / "project.db")) as database:
        database.execute(code)
    with pytest.raises(DataError, match="views, triggers or expressions"):
        open_project(tmp_path / "p")


def test_a_history_of_undos_without_an_end_is_refused(tmp_path: Path) -> None:
    create_project(tmp_path / "p", paper_plan()).store.close()
    with closing(sqlite3.connect(tmp_path / "p" / "project.db")) as database:
        database.execute("drop table batches")
        database.execute("create table batches (id, at, actor, step, note, undoes)")
    with pytest.raises(DataError, match="batches has another key"):
        open_project(tmp_path / "p")


def test_a_chain_of_undos_that_is_a_circle_ends(tmp_path: Path) -> None:
    create_project(tmp_path / "p", paper_plan()).store.close()
    with closing(sqlite3.connect(tmp_path / "p" / "project.db")) as database:
        (statement,) = database.execute("select sql from sqlite_master where name = 'batches'").fetchone()
        database.execute("drop table batches")
        database.execute(statement.replace("undoes INTEGER", "undoes BLOB"))
        for row in ((2, 3), (3, 2), (4, "2")):
            database.execute(
                "insert into batches (id, at, actor, step, note, undoes) values (?, 0, '', '', '', ?)", row
            )
        database.commit()
    project = open_project(tmp_path / "p")
    assert status(project).next.command
    project.store.close()


def test_a_journal_that_names_another_file_is_refused(tmp_path: Path) -> None:
    """SQLite would delete the file."""
    create_project(tmp_path / "p", paper_plan()).store.close()
    (tmp_path / "p" / "project.db-journal").write_bytes(bytes(512) + bytes.fromhex("d9d505f920a163d7"))
    with pytest.raises(DataError, match="names another file"):
        open_project(tmp_path / "p")


def test_a_long_journal_is_not_read(tmp_path: Path) -> None:
    create_project(tmp_path / "p", paper_plan()).store.close()
    with (tmp_path / "p" / "project.db-journal").open("wb") as file:
        file.truncate(2**31)
    tracemalloc.start()
    try:
        open_project(tmp_path / "p").store.close()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26


def test_a_large_database_has_no_more_rows_than_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_project(tmp_path / "p", paper_plan()).store.close()
    monkeypatch.setattr(store_module, "CHECKED_BYTES", 0)
    open_project(tmp_path / "p").store.close()
    monkeypatch.setattr(store_module, "ROW_BYTES", 10**9)
    with pytest.raises(DataError, match="more rows than it has space for"):
        open_project(tmp_path / "p")


@pytest.mark.parametrize("more_pages", [0, 2**14])
def test_a_damaged_database_is_refused(tmp_path: Path, more_pages: int) -> None:
    create_project(tmp_path / "p", paper_plan()).store.close()
    path = tmp_path / "p" / "project.db"
    with closing(sqlite3.connect(path)) as database:
        database.executemany("insert into settings values (?, ?)", [(f"n{i}", "x" * 500) for i in range(100)])
        database.commit()
        (root,) = database.execute("select rootpage from sqlite_master where name = 'settings'").fetchone()
        (size,) = database.execute("pragma page_size").fetchone()
        database.execute("pragma wal_checkpoint(truncate)")
    data = bytearray(path.read_bytes())
    start = (root - 1) * size
    (cells,) = struct.unpack_from(">H", data, start + 3)
    assert (data[start], cells > 1) == (5, True)  # an inner page
    data[start + 12 : start + 12 + 2 * cells] = data[start + 12 : start + 14] * cells  # all cells are the first one
    pages = len(data) // size + more_pages
    struct.pack_into(">I", data, 28, pages)
    path.write_bytes(data)
    os.truncate(path, pages * size)
    with pytest.raises(DataError, match="damaged"):
        open_project(tmp_path / "p")


def test_a_database_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "project.db").symlink_to(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="is a link"):
        open_project(tmp_path / "p")
    assert (tmp_path / "notes.txt").read_bytes() == b""


def test_a_database_is_not_changed_before_it_is_known(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("create table places (url)")
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(DataError, match="holds no project"):
        Store(f"sqlite:///{tmp_path / 'other.db'}", is_new=False)
    assert (tmp_path / "other.db").read_bytes() == before


@pytest.mark.parametrize("name", ["project.db", "database.txt"])
def test_a_project_is_not_created_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        create_project(tmp_path / "p", database=f"sqlite:///{tmp_path}/x.db" if name == "database.txt" else None)
    assert not (tmp_path / "elsewhere").exists()
