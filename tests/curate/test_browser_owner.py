"""The owner's pages in Chromium: status, screen and judge, by keys, on a phone, with what strangers wrote as text."""

from pathlib import Path

import pytest
from playwright import sync_api as playwright

from tests.curate.places import project_of, say
from tests.curate.test_browser import LABELS, PATIENCE_MS, shows, working
from uniemox_curate.annotate.access import invite
from uniemox_curate.decisions import decisions

pytestmark = pytest.mark.browser
# Texts of controls whose labels do not contain the text that is seen.
MISLABELLED = """[...document.querySelectorAll("[aria-label]")]
    .filter((node) => node.matches("button, a, [role=option]"))
    .filter((node) => !node.getAttribute("aria-label").includes(node.innerText))
    .map((node) => node.innerText)"""


@pytest.mark.thorough
def test_a_refresh_of_the_status_page_keeps_focus_and_messages(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:4])
    focused = "document.activeElement.getAttribute('aria-label')"
    invite(project, "Ada")
    with working(browser, project, "status", expected="422") as page:
        page.clock.install()
        page.reload()
        page.wait_for_selector("#people button")
        questions = list[str]()

        def answer_question(dialog: playwright.Dialog) -> None:
            """The first question is answered with no, the others with yes."""
            questions.append(dialog.message)
            if len(questions) == 1:
                dialog.dismiss()
            else:
                dialog.accept()

        page.on("dialog", answer_question)
        assert page.locator("#next code").inner_text().startswith("uniemox curate ")
        assert page.evaluate(MISLABELLED) == []
        page.fill("input[name=name]", "owner")
        page.keyboard.press("Enter")
        message = "owner is reserved for whoever serves the project; choose another name for the annotator"
        shows(page, "#message", message)
        with page.expect_response("**/api/status"):
            page.clock.fast_forward(5500)  # longer than from one refresh to the next
        shows(page, "#message", message)
        page.focus("#people button >> nth=1")
        assert page.evaluate(focused) == "Leave answers out: Ada"
        page.clock.fast_forward(5500)
        page.wait_for_timeout(500)  # what would be asked for and drawn
        assert page.evaluate(focused) == "Leave answers out: Ada"
        with page.expect_response("**/api/status"):
            page.keyboard.press("Enter")
        assert questions == ["Leave out all answers of Ada?"]
        assert "answers left out" not in page.locator("#people").inner_text()
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#people")).to_contain_text("answers left out", timeout=PATIENCE_MS)
        assert page.evaluate(focused) == "End access of Ada"  # the other one is gone
        page.focus("#history button[aria-label='Undo 2']")
        page.keyboard.press("Enter")
        page.wait_for_selector("#history button[aria-label='Undo 3']")
        assert page.evaluate(focused) == "Undo 3"


def test_the_status_page_on_a_phone_scrolls_its_tables_and_shows_what_is_no_command(
    browser: object, tmp_path: Path
) -> None:
    project = project_of(tmp_path / "p", LABELS[:4])
    invite(project, "Ada")

    def finished(route: object) -> None:
        received = route.fetch()
        route.fulfill(response=received, json=received.json() | {"next": "nothing, all is done"})

    with working(browser, project, "status") as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.route("**/api/status", finished)
        page.reload()
        shows(page, "#next", "nothing, all is done")
        assert page.locator("#next code").count() == 0
        widths = "[...document.querySelectorAll('#steps .bar')].map((bar) => bar.style.width)"
        # All images are fetched, none is screened by a command or answered.
        assert page.evaluate(widths)[::2] == ["100%", "0%", "0%"]
        heights = [heading.bounding_box()["height"] for heading in page.locator("thead th").all()]
        # One line of text each.
        assert max(heights) < 40
        widths = "document.querySelector('.scroll').scrollWidth > 390 && document.documentElement.scrollWidth"
        assert page.evaluate(widths) == 390
        table = page.get_by_role("region", name="Annotators")
        table.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(500)
        assert page.evaluate("document.querySelector('.scroll').scrollLeft") > 0


def test_judging_on_a_phone_skips_and_undoes_by_buttons(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:3])
    say(project, Ada="aaa", Ben="fff")
    with working(browser, project, "judge") as page:
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_selector("#picture[alt='Image 1']")
        undo = page.get_by_role("button", name="Undo")
        assert undo.is_disabled()
        page.get_by_role("button", name="Skip").click()
        page.wait_for_selector("#picture[alt='Image 2']")
        page.get_by_role("button", name="leave out").click()
        page.wait_for_selector("#picture[alt='Image 3']")
        undo.click()
        page.wait_for_selector("#picture[alt='Image 2']")
        bottom = page.evaluate("document.getElementById('undo').getBoundingClientRect().bottom")
        assert bottom <= 844
    with project.store.read() as connection:
        assert decisions(connection, "verdict") == {}


def test_judging_wraps_around_and_a_held_key_decides_once(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:3])
    say(project, Ada="aaa", Ben="fff")
    with working(browser, project, "judge") as page:
        for number in (1, 2, 3, 1):
            page.wait_for_selector(f"#picture[alt='Image {number}']")
            page.keyboard.press("s")
        page.wait_for_selector("#picture[alt='Image 2']")
        page.keyboard.down("1")
        shows(page, "#place", "2 without agreement by the rule both")
        for _ in range(3):
            page.keyboard.down("1")
        page.wait_for_timeout(500)
        shows(page, "#place", "2 without agreement by the rule both")
    with project.store.read() as connection:
        assert {image: decision.value for image, decision in decisions(connection, "verdict").items()} == {2: "awe"}


def test_the_owner_screens_by_keys_and_html_in_titles_is_escaped(browser: object, tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS[:4])
    with working(browser, project, "status") as page:
        page.wait_for_selector("#steps li")
        page.fill("input[name=name]", "<b>Ada</b>")
        page.keyboard.press("Enter")
        playwright.expect(page.locator("#link")).to_contain_text("/join#", timeout=PATIENCE_MS)
        page.wait_for_selector("#people td")
        assert page.locator("#people b").count() == 0
        page.get_by_role("link", name="Screen").click()
        page.wait_for_selector("#grid [role=option] >> nth=3")
        assert page.locator("#grid script, #grid img[onerror], #grid img[src=x]").count() == 0
        assert "<img src=x onerror=alert(1)>" in page.locator("#grid").inner_text()
        assert page.evaluate(MISLABELLED) == []
        assert "kept" not in page.locator("#grid").inner_text()
        turning = [page.get_by_role("button", name=name) for name in ("Previous", "Next")]
        undo = page.get_by_role("button", name="Undo")
        assert [button.is_disabled() for button in (*turning, undo)] == [True, True, True]
        page.get_by_role("button", name="Drop").click()
        playwright.expect(page.locator("#cell-0 .state")).to_contain_text("dropped", timeout=PATIENCE_MS)
        page.locator("#cell-0").click()
        page.get_by_role("button", name="Keep").wait_for()
        undo.click()
        playwright.expect(page.locator("#cell-0 .state")).to_be_empty(timeout=PATIENCE_MS)
        page.locator("#cell-0").click()
        page.keyboard.press("ArrowRight")
        page.get_by_role("combobox", name="Style").select_option("cartoon")
        playwright.expect(page.locator("#cell-1 .state")).to_contain_text("cartoon", timeout=PATIENCE_MS)
        page.locator("#cell-1").focus()
        page.keyboard.press("3")
        playwright.expect(page.locator("#cell-1 .state")).to_contain_text("realistic", timeout=PATIENCE_MS)
        page.keyboard.press("d")
        page.wait_for_selector("#cell-1.drop")
        assert "dropped" in page.locator("#cell-1").inner_text()
        assert page.evaluate("document.activeElement.id") == "cell-2"
        page.keyboard.press("u")
        shows(page, "#announce", "Undone")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("d")
        page.wait_for_selector("#grid .drop")
        page.get_by_role("link", name="Judge").click()
        shows(page, "#said", "Nothing to judge.")
    with project.store.read() as connection:
        assert [decision.value for decision in decisions(connection, "screen").values()].count("drop") == 1
        assert [decision.value for decision in decisions(connection, "style").values()] == ["realistic"]
