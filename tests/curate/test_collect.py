"""Each source through its own protocol, and what becomes of what they offer."""

import html
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select

from tests.curate.servers import JPEG, Handler, local, misbehaving, serving
from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.io.images import FORMATS
from uniemox_curate import tables as t
from uniemox_curate.collect.candidates import Candidate, list_source
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.fetch import MAX_RULES_KB, Robots
from uniemox_curate.collect.run import failures, fetch, search
from uniemox_curate.collect.services import PagedSearch, bing, bing_pages, commons, openverse
from uniemox_curate.collect.sources import address_table, local_folder
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.project import SUFFIXES, Project, create_project, searched_labels

PLAN = CollectionPlan(keywords={"awe": ("Wonder",), "fear": ("Dread", "Panic")}, check_every=0)
QUICK = CollectConfig(rate=1000)


def asking(server: object) -> PagedSearch:
    return PagedSearch(local(server), pause_s=0.0)  # type: ignore[arg-type]


def as_json(handler: Handler, value: object) -> None:
    handler.send(json.dumps(value).encode(), Content_Type="application/json")


def test_openverse_candidates_have_licence_and_author() -> None:
    def answer(handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        page = int(query["page"][0])
        assert query["q"] == ["Wonder of the world"]
        rows = [
            {"url": f"https://live.example/{page}-{i}.jpg", "foreign_landing_url": f"https://example.org/{page}-{i}"}
            | {"title": "<b>Big</b> &amp; wide\n", "creator": "A. Author", "license": "by-sa"}
            | {"license_version": "4.0", "license_url": "https://creativecommons.org/licenses/by-sa/4.0/"}
            for i in range(20)
        ]
        as_json(handler, {"result_count": 37, "page_count": 2, "results": rows[: 20 if page == 1 else 17]})

    with serving(answer) as server:
        candidates = list(openverse(asking(server), server.address).offers("awe", "Wonder of the world", 100))
        few = list(openverse(asking(server), server.address).offers("awe", "Wonder of the world", 3))
    assert len(candidates) == 37
    about = {"title": "Big & wide", "licence": "by-sa 4.0", "author": "A. Author"}
    about |= {"page": "https://example.org/2-0", "licence_address": "https://creativecommons.org/licenses/by-sa/4.0/"}
    search = {"rank": 20, "keyword": "Wonder of the world", "label": "awe"}
    assert candidates[20] == Candidate(address="https://live.example/2-0.jpg", **search, **about)
    assert few == candidates[:3]
    assert len(server.paths) == 3


def test_commons_candidates_are_in_order_and_scaled() -> None:
    def page(i: int) -> dict[str, object]:
        info = {
            "thumburl": f"https://upload.example/{i}/1024px.jpg",
            "url": f"https://upload.example/{i}.jpg",
            "descriptionurl": f"https://commons.example/File:{i}.jpg",
            "extmetadata": {
                "LicenseShortName": {"value": "CC BY 2.0"},
                "LicenseUrl": {"value": "javascript:alert(1)"},
                "Artist": {"value": '<a href="//x">Jane</a>'},
            },
        }
        return {"title": f"File:{i}.jpg", "index": i, "imageinfo": [info] if i != 2 else None}

    def answer(handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        assert query["gsrsearch"] == ["filetype:bitmap Dread"]
        if "gsroffset" not in query:
            more = {"gsroffset": 3, "continue": "gsroffset||"}
            as_json(handler, {"continue": more, "query": {"pages": [page(3), page(1), page(2)]}})
        else:
            as_json(handler, {"batchcomplete": True, "query": {"pages": [page(4)]}})

    with serving(answer) as server:
        candidates = list(commons(asking(server), server.address).offers("fear", "Dread", 10))
    assert [candidate.address for candidate in candidates] == [
        f"https://upload.example/{i}/1024px.jpg" for i in (1, 3, 4)
    ]
    assert [candidate.rank for candidate in candidates] == [0, 2, 3]
    assert candidates[0].title == "1.jpg"
    assert (candidates[0].licence, candidates[0].licence_address, candidates[0].author) == ("CC BY 2.0", "", "Jane")
    with serving(lambda handler: as_json(handler, {"batchcomplete": True})) as server:
        assert list(commons(asking(server), server.address).offers("fear", "Dread", 10)) == []


def bing_page(rows: list[dict[str, str]]) -> bytes:
    links = (f'<div class="imgpt"><a class="iusc" m="{html.escape(json.dumps(row))}">x</a></div>' for row in rows)
    return f"<html><body>{''.join(links)}<div class='imgpt'><a m='no json'></a></div></body></html>".encode()


def test_bing_search_ends_where_pages_repeat() -> None:
    def answer(handler: Handler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        assert query["q"] == ["Panic & fear"]
        first = min(int(query["first"][0]), 20)  # the last page comes again and again
        rows = [
            {"murl": f"https://pictures.example/{first + i}.png", "purl": f"https://p.example/{first + i}", "t": "T"}
            for i in range(20)
        ]
        handler.send(bing_page(rows))

    with serving(answer) as server:
        source = bing(asking(server), licence="publicdomain", site=server.address)
        candidates = list(source.offers("fear", "Panic & fear", 200))
        assert len(server.paths) == 3
        assert "license-L1" in server.paths[0]
    assert len(candidates) == 40
    search = {"rank": 39, "keyword": "Panic & fear", "label": "fear"}
    about = {"page": "https://p.example/39", "title": "T", "licence": "Bing's filter publicdomain"}
    assert candidates[39] == Candidate(address="https://pictures.example/39.png", **search, **about)
    assert next(bing_pages("a", 40, None)) == "https://www.bing.com/images/async?q=a&first=0"
    with (
        serving(lambda handler: handler.send(b"<html>Solve this CAPTCHA</html>")) as server,
        pytest.raises(DataError, match="proof that you are a person"),
    ):
        list(bing(asking(server), site=server.address).offers("fear", "x", 20))
    with pytest.raises(ConfigError, match="licence must be one of"):
        CollectConfig(licence="any")


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"results": 5}', b'{"error": {"info": "too many"}}'])
def test_unexpected_answers_of_services_are_errors(content: bytes) -> None:
    with serving(lambda handler: handler.send(content)) as server:
        for source in (openverse(asking(server), server.address), commons(asking(server), server.address)):
            if content == b'{"results": 5}' and source.name == "commons":
                continue  # an answer without results
            with pytest.raises(DataError, match=server.address):
                list(source.offers("awe", "x", 5))


def test_a_busy_service_is_asked_again() -> None:
    with serving(misbehaving()) as server:
        ask = PagedSearch(local(server, tries=3), pause_s=0.0)
        assert ask(f"{server.address}/twice") == JPEG
        with pytest.raises(DataError, match="answered 404"):
            ask(f"{server.address}/missing")


def table(folder: Path, text: str) -> Path:
    (folder / "addresses.csv").write_text(text)
    return folder / "addresses.csv"


def test_a_table_of_addresses(tmp_path: Path) -> None:
    path = table(tmp_path, "url;keyword;license;label\nhttp://a.example/1.jpg;panic;CC0;\nhttp://b.example/2;;;Awe\n")
    first, second = address_table(path, PLAN).offers(None, "", 0)
    assert (first.label, first.keyword, first.licence) == ("fear", "panic", "CC0")
    assert (second.label, second.keyword) == ("awe", "awe")  # no keyword: the label is one
    for text, message in (
        ("url,label\nfile:///etc/passwd,awe\n", "addresses.csv:2: expected http"),
        ("url,label\nhttp://a.example/,joy\n", "'joy' is none of the labels awe, fear"),
        ("label\nawe\n", "column address"),
        (
            "url,label,keyword\nhttp://a.example/,awe,sea\nhttp://a.example/,fear,sea\n",
            "the keyword 'sea' for another label",
        ),
    ):
        with pytest.raises(DataError, match=message):
            list(address_table(table(tmp_path, text), PLAN).offers(None, "", 0))


def offered(folder: Path, *rows: str) -> Project:
    """A project with the candidates of a table; each row is address,label."""
    project = create_project(folder / "p", PLAN)
    path = table(folder, "address,label\n" + "".join(f"{row}\n" for row in rows))
    assert search(project, [address_table(path, PLAN)], QUICK) == []
    return project


def states(project: Project) -> dict[str, tuple[str, str]]:
    rows = project.rows(select(t.candidates))
    return {row.address.rpartition("/")[2]: (row.state, row.reason) for row in rows}


def test_only_images_are_kept_and_failures_are_counted(tmp_path: Path) -> None:
    names = ("ok.jpg", "same.jpg", "page", "missing", "promised", "cut", "moved", "twice", "private/1.jpg")
    with serving(misbehaving()) as server:
        rows = [f"{server.address}/{name},awe" for name in names]
        project = offered(tmp_path, *rows, "http://127.0.0.1:1/x,awe")
        counts = fetch(project, local(server, max_kb=50))
        assert counts == {"fetched": 3, "failed": 5, "waiting": 2}
        ended = states(project)
        assert [ended[name][0] for name in names[:5]] == ["fetched", "fetched", "failed", "failed", "failed"]
        assert ended["1.jpg"] == ("failed", "robots.txt of its host forbids it")
        assert ended["page"][1].startswith("no image: ")
        assert ended["x"] == ("failed", "127.0.0.1 is 127.0.0.1, which is not on the public internet")
        assert ended["cut"][0] == ended["twice"][0] == "waiting"
        assert failures(project)["answered 503"] == 1
        assert fetch(project, local(server, max_kb=50)) == {"fetched": 1, "failed": 0, "waiting": 1}
        search(project, [address_table(tmp_path / "addresses.csv", PLAN)], QUICK)
        assert len(states(project)) == len(names) + 1  # nothing is offered twice
    rows = project.rows(select(t.images))
    assert [(row.bytes, row.width, row.height, row.format) for row in rows] == [(len(JPEG), 160, 140, "JPEG")]
    assert project.image_path(rows[0].sha256, "JPEG").read_bytes() == JPEG
    assert not list((tmp_path / "p").rglob("*.tmp"))


def test_an_address_under_two_labels_is_kept_under_both(tmp_path: Path) -> None:
    with serving(misbehaving()) as server:
        project = offered(tmp_path, f"{server.address}/ok.jpg,awe", f"{server.address}/ok.jpg,fear")
        assert fetch(project, local(server))["fetched"] == 2
    assert searched_labels(project) == {1: {"awe", "fear"}}


def slow_host() -> tuple[Callable[[Handler], None], list[int]]:
    """What a server answers that gives an image slowly, and how many it was asked for at a time."""
    at_once = []
    inside = [0]

    def answer(handler: Handler) -> None:
        if handler.path == "/robots.txt":
            handler.send(b"User-agent: *\nDisallow: /private/\n")
            return
        inside[0] += 1
        at_once.append(inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        handler.send(JPEG)

    return answer, at_once


def without_rules(answer: Callable[[Handler], None]) -> Callable[[Handler], None]:
    return lambda handler: handler.send(b"", 404) if handler.path == "/robots.txt" else answer(handler)


@pytest.mark.parametrize(("path", "fetched"), [("/private/x.jpg", 0), ("/open/x.jpg", 6)])
def test_a_redirect_obeys_rate_and_rules_of_its_host(tmp_path: Path, path: str, fetched: int) -> None:
    answer, at_once = slow_host()
    with ExitStack() as stack:
        last = stack.enter_context(serving(answer))
        to_last = lambda handler: handler.send(b"", 302, Location=last.address + path)  # noqa: E731
        firsts = [stack.enter_context(serving(without_rules(to_last))) for _ in range(6)]
        project = offered(tmp_path, *(f"{server.address}/{i},awe" for i, server in enumerate(firsts)))
        hosts = tuple(server.host for server in (last, *firsts))
        counts = fetch(project, replace(QUICK, private_hosts=hosts, timeout_s=5))
    assert (counts["fetched"], counts["failed"]) == (fetched, 6 - fetched)
    assert last.paths.count("/robots.txt") == 1
    assert at_once == [1] * fetched
    if not fetched:
        assert set(failures(project)) == {"robots.txt of its host forbids it"}


def test_redirects_are_limited(tmp_path: Path) -> None:
    with serving(misbehaving()) as server:
        project = offered(tmp_path, f"{server.address}/loop,awe", f"{server.address}/to/file:///etc/passwd,awe")
        assert fetch(project, local(server)) == {"fetched": 0, "failed": 2, "waiting": 0}
        assert server.paths.count("/loop") == 6
    assert set(failures(project)) == {"more than 5 redirects", "not http or https but 'file'"}


def test_only_the_first_500_kib_of_robots_txt_count() -> None:
    def answer(handler: Handler) -> None:
        rules = b"User-agent: *\nDisallow: /private/\n"
        cut = b"Disallow: /all-of-it-is-behind-the-end\n"  # its beginning alone would forbid everything
        handler.send((rules + b"#" * (MAX_RULES_KB * 1024 - len(rules) - 12) + b"\n" + cut).ljust(600_000, b"#"))

    with serving(answer) as server:
        rules = Robots(local(server))
        assert rules.problem(f"{server.address}/private/1.jpg") is not None
        assert rules.problem(f"{server.address}/all.jpg") is None


def test_a_service_that_counts_pages_without_results_ends() -> None:
    asked: list[str] = []

    def fetch_page(address: str) -> bytes:
        asked.append(address)
        rows = [{"url": "http://h/\ud800.jpg"}, {"url": "http://h/a.jpg"}] if len(asked) == 1 else []
        return json.dumps({"results": rows, "page_count": 10**9}).encode()

    # An address that is no text is left out.
    found = list(openverse(fetch_page).offers("awe", "Wonder", 100))
    assert [candidate.address for candidate in found] == ["http://h/a.jpg"]
    assert len(asked) == 2


@pytest.mark.parametrize("rule", ["Disallow: //[", "Crawl-delay: ²", "Request-rate: ²/1"])
def test_a_host_whose_rules_cant_be_read_refuses(rule: str) -> None:
    with serving(lambda handler: handler.send(f"User-agent: *\n{rule}\n".encode())) as server:
        assert Robots(local(server)).problem(f"{server.address}/1.jpg") is not None


def test_a_stranger_s_project_does_not_choose_files_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "private.jpg").write_bytes(jpeg_of(draw_image(1)))
    class_folders(tmp_path / "in", ("awe",), each=1)
    project = create_project(tmp_path / "p", PLAN)
    address = (tmp_path / "in" / ".." / "private.jpg").as_uri()
    search(project, [list_source("folder", [Candidate(address=address, rank=0, keyword="awe", label="awe")])], QUICK)
    for folders in ([], [tmp_path / "in"]):
        assert fetch(project, QUICK, folders=folders) == {"fetched": 0, "failed": 0, "waiting": 1}
    assert fetch(project, QUICK, folders=[tmp_path])["fetched"] == 1


def test_links_out_of_the_folder_are_not_collected(tmp_path: Path) -> None:
    """A release would publish an image that somebody's folder only points to."""
    folder = tmp_path / "pictures" / "awe"
    folder.mkdir(parents=True)
    (tmp_path / "private.jpg").write_bytes(jpeg_of(draw_image(0)))
    (folder / "own.jpg").write_bytes(jpeg_of(draw_image(1)))
    (folder / "inside.jpg").symlink_to("own.jpg")
    local_folder(tmp_path / "pictures", PLAN)
    (folder / "out.jpg").symlink_to("../../private.jpg")
    with pytest.raises(DataError, match=r"1 links lead out of this folder, such as awe/out\.jpg"):
        local_folder(tmp_path / "pictures", PLAN)
    (folder / "out.jpg").unlink()
    (tmp_path / "private").mkdir()
    (tmp_path / "private.jpg").rename(tmp_path / "private" / "a.jpg")
    (folder / "linked").symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match=r"1 links lead out of this folder, such as awe/linked/a\.jpg"):
        local_folder(tmp_path / "pictures", PLAN)


def test_every_format_that_is_read_is_stored(tmp_path: Path) -> None:
    """A headerless bitmap, which Pillow calls DIB, ended every later call."""
    assert set(FORMATS) <= SUFFIXES.keys()
    folder = tmp_path / "pictures" / "awe"
    folder.mkdir(parents=True)
    draw_image(0).save(folder / "a.bmp", format="DIB")
    draw_image(1).save(folder / "b.jpg")
    project = create_project(tmp_path / "p", PLAN)
    search(project, [local_folder(tmp_path / "pictures", PLAN)], QUICK)
    counts = fetch(project, QUICK, folders=[tmp_path / "pictures"])
    assert counts == {"fetched": 2, "failed": 0, "waiting": 0}
    assert len(list((tmp_path / "p" / "pictures").rglob("*.dib"))) == 1


def test_unknown_folders_are_refused_or_taken_as_keywords(tmp_path: Path) -> None:
    word = PLAN.keywords["awe"][0]
    class_folders(tmp_path, ("fear", "holiday", word), each=2)
    with pytest.raises(LabelError, match=r"none of the labels awe, fear: holiday \(2 images\); rename them"):
        local_folder(tmp_path, PLAN)
    candidates = list(local_folder(tmp_path, PLAN, with_labels=False).offers(None, "", 1))
    assert {(candidate.label, candidate.keyword) for candidate in candidates} == {
        (None, "fear"),
        (None, "holiday"),
        (None, word),
    }
    for path in (tmp_path / "holiday").iterdir():
        path.unlink()
    assert {(candidate.label, candidate.keyword) for candidate in local_folder(tmp_path, PLAN).offers(None, "", 1)} == {
        ("fear", ""),
        ("awe", word),  # a search word of the plan says whose it is
    }


def test_a_failing_source_is_reported_and_the_others_are_asked(tmp_path: Path) -> None:
    class_folders(tmp_path / "in", ("awe",), each=2)
    project = create_project(tmp_path / "p", PLAN)
    with serving(lambda handler: handler.send(b"no json")) as server:
        broken = openverse(asking(server), server.address)
        problems = search(project, [broken, local_folder(tmp_path / "in", PLAN)], replace(QUICK, per_keyword=5))
        assert len(server.paths) == 1
    assert len(problems) == 1
    assert "not JSON" in problems[0]
    assert len(states(project)) == 2
