"""Pages of annotators in Chromium: two in two sessions, keys alone, a minute offline; accessibility of all pages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright import sync_api as playwright
from sqlalchemy import select

from tests.axe import needs_axe, violations_of
from tests.curate.places import PLAN, project_of, say, served
from uniemox.labels import MIKELS
from uniemox_curate import tables as t
from uniemox_curate.annotate.access import invite
from uniemox_curate.annotate.answer_files import given_answers
from uniemox_curate.annotate.verdicts import read_answers
from uniemox_curate.plan import AnswerForm
from uniemox_curate.project import Project
from uniemox_curate.questions import Question, QuestionTexts

pytestmark = pytest.mark.browser
LABELS = [("awe", "fear")[i % 2] for i in range(16)]
PATIENCE_MS = 60_000


@contextmanager
def opened(browser: object, link: str, wanted: str, expected: str = "") -> Iterator[object]:
    """A page in a session of its own, opened by an invitation; its console must stay empty but for what is expected."""
    problems: list[str] = []
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(link)
    page.wait_for_url(f"**/{wanted}")
    try:
        yield page
    finally:
        context.close()
    assert [problem for problem in problems if not expected or expected not in problem] == []


@contextmanager
def working(browser: object, project: Project, path: str = "annotate", expected: str = "") -> Iterator[object]:
    """The page of an annotator, or one of the owner's."""
    is_owner = path != "annotate"
    link = f"join#{invite(project, 'owner', 'owner') if is_owner else invite(project, 'Ada')}"
    home = "status" if is_owner else path
    with served(project) as address, opened(browser, f"{address}/{link}", home, expected) as page:
        if path != home:
            page.goto(f"{address}/{path}")
        yield page


def shows(page: object, selector: str, text: str) -> None:
    """Wait for a text that can be seen; by CDP, because the pages' policy forbids what Playwright would evaluate."""
    element = page.locator(selector)
    playwright.expect(element).to_have_text(text, timeout=PATIENCE_MS)
    playwright.expect(element).to_be_visible(timeout=PATIENCE_MS)


def count(project: Project) -> int:
    return len(project.rows(select(t.answers)))


def answer_all(page: object, keys: str) -> None:
    for number, key in enumerate(keys):
        page.wait_for_selector(f"#picture:not([hidden])[alt='Image {number + 1}']")
        page.keyboard.press(key)


def assert_fits_a_laptop(page: object, selector: str) -> None:
    """Check that elements are above the fold of a small laptop."""
    page.set_viewport_size({"width": 1366, "height": 768})
    for element in page.locator(selector).all():
        box = element.bounding_box()
        assert box["y"] + box["height"] <= 768


def test_two_annotators_by_keys_alone(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:6])
    with (
        served(project) as address,
        opened(browser, f"{address}/join#{invite(project, 'Ada')}", "annotate") as ada,
        opened(browser, f"{address}/join#{invite(project, 'Ben')}", "annotate") as ben,
    ):
        answer_all(ada, "111111")
        answer_all(ben, "121200")
        for page in (ada, ben):
            shows(page, "#thanks", "You have seen all images. Thank you!")
            assert page.locator("#labels").is_hidden()
            assert page.locator("#message").is_hidden()
            shows(page, "#saved", "All answers are saved")
        ben.get_by_role("button", name="Back to the last image").click()
        ben.wait_for_selector("#picture:not([hidden])[alt='Image 6']")
        assert ben.locator("#labels").is_visible()
        assert ben.locator("#thanks").is_hidden()
        ada.keyboard.press("Backspace")  # back to the last one, and change it
        ada.wait_for_selector("#picture[alt='Image 6']")
        assert ada.locator("button[aria-pressed=true]").inner_text().endswith("awe")
        ada.keyboard.press("2")
        shows(ada, "#saved", "All answers are saved")
        ada.reload()
        shows(ada, "#progress", "6 of 6 images answered")
        assert ada.evaluate("Object.keys(localStorage).length") == 0
    labels = read_answers(project).by_image
    assert sorted(by_name["Ada"] for by_name in labels.values()) == ["awe"] * 5 + ["fear"]
    assert sorted(by_name["Ben"] for by_name in labels.values()) == ["awe", "awe", "fear", "fear", "none", "none"]


def test_a_laptop_shows_image_choices_and_keys_on_one_screen(browser: object, tmp_path: Path) -> None:
    project = project_of(
        tmp_path / "p", LABELS[:2], replace(PLAN, keywords={label: (label,) for label in MIKELS.labels})
    )
    with working(browser, project) as page:
        answer_all(page, "1")
        page.wait_for_selector("#picture:not([hidden])[alt='Image 2']")
        shows(page, "#trace-words", "Image 1, you answered amusement")
        assert page.locator("#labels button").count() == 9
        assert_fits_a_laptop(page, "#labels button, #trace, #back, #keys")
        assert page.locator("#frame").bounding_box()["height"] > 500
        page.keyboard.press("Backspace")
        page.wait_for_selector("#picture[alt='Image 1']")
        assert page.locator("#trace").is_hidden()


def test_a_phone_shows_image_and_answers_on_one_screen(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:2])
    with working(browser, project) as page:
        page.set_viewport_size({"width": 360, "height": 640})
        answer_all(page, "1")
        page.wait_for_selector("#picture:not([hidden])[alt='Image 2']")
        shows(page, "#trace-words", "Image 1, you answered awe")
        boxes = [button.bounding_box() for button in page.locator("#labels button").all()]
        assert len(boxes) == len(project.plan.labels) + 1
        assert max(box["y"] + box["height"] for box in boxes) <= 640
        assert min(box["height"] for box in boxes) >= 44
        frame, image = (page.locator(name).bounding_box() for name in ("#frame", "#picture"))
        assert frame["height"] > 300
        assert (image["width"], image["height"]) == (frame["width"], frame["height"])  # scaled up to its frame
        size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        assert page.evaluate(size) == [360, 640]


def skip_one(page: object, reason: str) -> None:
    skip = page.get_by_role("button", name="Skip")
    assert skip.is_disabled()
    page.get_by_label("Skip, because").select_option(reason)
    skip.click()


def rate(page: object) -> None:
    """Intensity 7, by a digit inside the scale, valence 2, arousal 9."""
    page.get_by_role("group", name="How strong is it?").get_by_role("radio", name="3").check()
    page.keyboard.press("7")
    page.get_by_role("group", name="How pleasant is it?").get_by_role("radio", name="2").check()
    page.get_by_role("group", name="How exciting is it?").get_by_role("radio", name="9, excited").check()


def test_a_form_with_consent_scales_and_languages(browser: object, tmp_path: Path) -> None:
    texts = {"instructions": "Look first.", "consent": "My answers may be published."}
    form = AnswerForm(several=True, intensity=True, affect=True, comment=True, **texts)
    project = project_of(tmp_path / "p", LABELS[:3], replace(PLAN, answer=form))
    with working(browser, project) as page:
        shows(page, "#instructions", "Look first.")
        begin = page.get_by_role("button", name="Begin")
        assert begin.is_disabled()
        page.get_by_label("I have read this and agree").check()
        begin.click()
        page.wait_for_selector("#picture:not([hidden])[alt='Image 1']")
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        shows(page, "#missing", "Choose a label, and a value on every scale, first.")
        assert page.locator("#ask .missing").count() == 3
        page.keyboard.press("1")
        pressed = page.locator("#labels button[aria-pressed=true]")
        assert [button.get_attribute("data-label") for button in pressed.all()] == ["awe", "fear"]
        assert [button.get_attribute("data-order") for button in pressed.all()] == ["2", "1"]
        rate(page)
        assert page.locator(".scale-figure").count() == 27
        assert_fits_a_laptop(page, "#labels button, .scale, #keys")
        page.get_by_label("Comment").fill("<b>dark</b> 1")
        page.get_by_role("button", name="Next").click()
        page.wait_for_selector("#picture[alt='Image 2']")
        shows(page, "#trace-words", "Image 1, you answered fear, awe")
        assert page.locator("#labels button[aria-pressed=true], #ask .missing").count() == 0
        page.get_by_role("button", name="Back").click()
        page.wait_for_selector("#picture[alt='Image 1']")
        page.get_by_role("button", name="Next").click()
        page.wait_for_selector("#picture[alt='Image 2']")
        skip_one(page, "upsetting")
        page.wait_for_selector("#picture[alt='Image 3']")
        page.get_by_label("Language").select_option("de")
        shows(page, "#question", "Welches Gefühl weckt dieses Bild in Ihnen?")
        assert page.evaluate("document.documentElement.lang") == "de"
        assert page.get_by_role("button", name="Angst (fear)").count() == 1
        page.keyboard.press("0")
        page.get_by_role("button", name="Weiter").click()  # none of them needs no scales
        shows(page, "#thanks", "Sie haben alle Bilder gesehen. Vielen Dank!")
        shows(page, "#saved", "Alle Antworten sind gespeichert")
        page.reload()
        shows(page, "#thanks", "Sie haben alle Bilder gesehen. Vielen Dank!")
        shows(page, "#progress", "3 von 3 Bildern beantwortet")
        for _ in range(3):
            page.keyboard.press("Backspace")
        page.wait_for_selector("#picture:not([hidden])[alt='Bild 1']")
        assert page.get_by_label("Bemerkung").input_value() == "<b>dark</b> 1"
        assert page.get_by_role("radio", name="9, aufgeregt").is_checked()
    details_of_answers = [details for _, details in given_answers(project)]
    full = {"intensity": 7, "valence": 2, "arousal": 9, "comment": "<b>dark</b> 1", "labels": ["fear", "awe"]}
    assert sorted(details_of_answers, key=len) == [{}, {"skip": "upsetting"}, full]


def test_questions_of_the_plan_are_asked(browser: object, tmp_path: Path) -> None:
    """A scale of seven and a text, in English where a language has none."""
    control = QuestionTexts(ask="How much in control?", low="powerless", high="in control")
    questions = (
        Question(name="dominance", scale=7, texts={"en": control, "de": replace(control, ask="Wie viel Kontrolle?")}),
        Question(name="reason", scale=None, texts={"en": QuestionTexts(ask="Why?")}),
    )
    project = project_of(tmp_path / "p", LABELS[:1], replace(PLAN, answer=AnswerForm(questions=questions)))
    with working(browser, project) as page:
        page.wait_for_selector("#picture:not([hidden])[alt='Image 1']")
        page.keyboard.press("1")
        page.keyboard.press("Enter")
        shows(page, "#missing", "Choose a label, and a value on every scale, first.")
        page.get_by_label("Language").select_option("de")
        page.keyboard.press("1")
        scale = page.get_by_role("group", name="Wie viel Kontrolle?")
        assert scale.get_by_role("radio").count() == page.locator(".scale-figure").count() == 7
        scale.get_by_role("radio", name="1, powerless").check()
        page.keyboard.press("9")  # above the scale
        page.keyboard.press("6")
        assert scale.get_by_role("radio", name="6").is_checked()
        page.get_by_label("Why?").fill("the sea")
        page.get_by_role("button", name="Weiter").click()
        shows(page, "#saved", "Alle Antworten sind gespeichert")
    assert [details for _, details in given_answers(project)] == [{"dominance": 6, "reason": "the sea"}]


def test_answers_given_offline_are_saved_later(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS)
    with working(browser, project, expected="ERR_INTERNET_DISCONNECTED") as page:
        page.wait_for_selector("#picture[alt='Image 1']")
        loaded = "performance.getEntriesByType('resource').filter(e => e.name.includes('/api/pictures/')).length"
        while page.evaluate(loaded) < 11:
            page.wait_for_timeout(50)
        page.context.set_offline(True)
        answer_all(page, "1" * 10)  # the next ten were there already
        assert page.locator("#saved").inner_text() == "10 answers wait for the server"
        assert count(project) == 0
        assert page.evaluate("Object.keys(localStorage).length") == 10
        page.context.set_offline(False)
        shows(page, "#saved", "All answers are saved")
        assert count(project) == 10
        assert page.evaluate("Object.keys(localStorage).length") == 0
        page.wait_for_selector("#picture:not([hidden])[alt='Image 11']")


def test_answers_over_the_limit_of_a_body_are_sent_in_parts(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:1])
    with working(browser, project, expected="413") as page:
        page.wait_for_selector("#picture:not([hidden])")
        refused = {"status": 413, "json": {"detail": "too large"}}
        page.route("**/api/answers", lambda route: route.fulfill(**refused))
        add = """task => {
            for (let i = 0; i < 60; i += 1) {
                pending.add({ id: freshId(), task, label: "awe", seconds: 1, comment: "很".repeat(2000) });
            }
            send();
        }"""  # 360 kB, as after an hour offline
        page.evaluate(add, project.rows(select(t.tasks.c.id))[0].id)
        shows(page, "#message", "too large. Your answers are kept in this browser.")
        page.unroute("**/api/answers")
        shows(page, "#saved", "All answers are saved")
        assert count(project) == 60


@pytest.mark.thorough
@pytest.mark.parametrize("status", [401, 500, 0])
def test_missing_images_are_requested_again_after_a_pause(browser: object, tmp_path: Path, status: int) -> None:
    project = project_of(tmp_path / "p", LABELS)
    addresses = []

    def answer(route: object) -> None:
        addresses.append(route.request.url)
        route.fulfill(status=status) if status else route.abort()

    with working(browser, project, expected="Failed to load resource") as page:
        page.wait_for_selector("#picture:not([hidden])")
        page.route("**/api/pictures/*", answer)
        page.clock.install(time=0)
        page.clock.pause_at(1000)  # stands still but for what the test adds
        page.reload()
        while len(addresses) < 10:
            page.wait_for_timeout(50)
        page.clock.fast_forward(1500)
        page.wait_for_timeout(200)
        assert len(addresses) == len(set(addresses)) == 10  # ten at once, none of them again so soon
        assert page.locator("#picture").is_hidden()
        if status == 401:
            shows(page, "#message", "Your access has ended. Your answers are kept in this browser.")
            page.clock.fast_forward(5000)
            page.wait_for_timeout(200)
            assert len(addresses) == 10
        else:
            page.unroute("**/api/pictures/*")
            # On a busy machine a failure may reach the page after the first jump of its clock; its pause ends later.
            for _ in range(10):
                page.clock.fast_forward(1000)
                page.wait_for_timeout(200)
                if page.locator("#picture").is_visible():
                    break
            page.wait_for_selector("#picture:not([hidden])[alt='Image 1']")


def test_a_removed_image_is_skipped(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:4])
    held_routes = []

    def answer(route: object) -> None:
        held_routes.append(route) if not held_routes else route.continue_()

    with working(browser, project, expected="404") as page:
        page.wait_for_selector("#picture:not([hidden])")
        page.route("**/api/pictures/*", answer)
        page.reload()
        loaded = "performance.getEntriesByType('resource').filter(e => e.name.includes('/api/pictures/')).length"
        while page.evaluate(loaded) < 3:
            page.wait_for_timeout(50)
        assert page.locator("#picture").is_hidden()
        held_routes[0].fulfill(status=404)  # the first one, while the page waits for it
        answer_all(page, "111")
        shows(page, "#thanks", "You have seen all images. Thank you!")
        shows(page, "#saved", "All answers are saved")
    assert count(project) == 3


def test_roles_and_names_for_screen_readers(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:2])
    with working(browser, project) as page:
        page.wait_for_selector("#picture[alt='Image 1']")
        group = page.get_by_role("group", name="Which emotion does this image evoke in you?")
        assert group.get_by_role("button").count() == 3
        assert page.get_by_role("img", name="Image 1").count() == 1
        assert [
            page.get_by_role("button", name=name).get_attribute("aria-keyshortcuts") for name in ("awe", "fear")
        ] == ["1", "2"]
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_selector("#picture[alt='Image 2']")
        assert page.locator("#announce").inner_text() == "Image 2"
        assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.thorough
@needs_axe
def test_axe_finds_nothing(browser: object, tmp_path: Path) -> None:
    form = AnswerForm(several=True, intensity=True, affect=True, comment=True)
    project = project_of(tmp_path / "p", LABELS[:4], replace(PLAN, answer=form))
    say(project, Ben="aaaa", Cleo="ffff")
    with working(browser, project, "status") as page:
        for path, selector in (("status", "#people td"), ("screen", "#cell-3"), ("judge", "#picture[alt='Image 1']")):
            page.goto(page.url.rpartition("/")[0] + "/" + path)
            page.wait_for_selector(selector)
            assert violations_of(page) == []
    with working(browser, project) as page:
        page.wait_for_selector("#picture[alt='Image 1']")
        page.keyboard.press("1")
        rate(page)
        assert violations_of(page) == []
