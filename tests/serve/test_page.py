"""The page as people use it, in Chromium: by mouse, by keyboard, on a phone, and by screen reader."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import uniemox
from tests.axe import needs_axe, violations_of
from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import tiny_network
from tests.predict.test_faces import SHOWN, Finds
from tests.serve.serving import Running, image, predictor_of, running
from tests.serve.visits import DESK, GIVE, Visit, expect, sync_api
from uniemox.insight.site.writing import PAGE_FOLDER
from uniemox.labels import MIKELS
from uniemox.persons.box import Box
from uniemox.predict.faces import FaceReader
from uniemox.predict.network import Network

KEY = "a-key-of-more-than-sixteen"
pytestmark = pytest.mark.browser


def test_an_image_gives_bars_people_likely_labels_and_a_heat_map(visit: Visit, server: Running) -> None:
    data = image(1, 200, 100)
    [answer] = server.post("/predict?coverage=0.9", data).json
    visit.choose(data)
    expect(visit.status).to_contain_text("1 person found")
    rows = visit.page.locator("article").get_by_role("row").all_inner_texts()[1:]
    ranked = sorted(answer["scene"].items(), key=lambda pair: -pair[1])
    assert [row.split()[0] for row in rows] == [label for label, _ in ranked]
    for row, (label, p) in zip(rows, ranked, strict=True):
        assert f"{100 * p:.0f} %" in row or f"{100 * p:.1f} %" in row
        assert ("likely" in row) == (label in answer["likely"])
    assert visit.status.inner_text().startswith(f"beach.jpg: {ranked[0][0]} ")
    assert "That is not what the people in it feel" in visit.page.locator("header").inner_text()

    frame = visit.page.locator(".picture").bounding_box()
    box = visit.page.locator(".box").bounding_box()
    x1, y1, x2, y2 = answer["persons"][0]["box"]
    scale = frame["width"] / answer["width_px"]
    assert box["x"] - frame["x"] == pytest.approx(x1 * scale, abs=1)
    assert box["y"] - frame["y"] == pytest.approx(y1 * scale, abs=1)
    assert (box["width"], box["height"]) == pytest.approx(((x2 - x1) * scale, (y2 - y1) * scale), abs=1)
    assert "found with confidence 95 %" in visit.page.get_by_role("listitem").inner_text()
    widths = "bars => bars.map(bar => bar.clientWidth / bar.parentNode.clientWidth)"
    bars = visit.page.locator("article .bar").evaluate_all(widths)
    assert bars == pytest.approx([p for _, p in ranked], abs=0.01)
    columns = visit.page.locator("article .bars tbody tr").first.locator("th, td").all()
    name, bar, number = (column.bounding_box() for column in columns)
    assert bar["width"] > name["width"] + number["width"]

    image_url = visit.page.locator(".picture").get_attribute("src")
    heat = visit.page.get_by_role("button", name="Heat map")
    heat.click()
    expect(visit.status).to_contain_text(f"bright areas support {ranked[0][0]}")
    assert f"most support for {ranked[0][0]}" in visit.page.locator("figure + .legend").inner_text()
    pressed = visit.page.get_by_role("button", name="Heat map", pressed=True)
    assert pressed.get_attribute("aria-pressed") == "true"
    assert visit.page.locator(".picture").get_attribute("src") != image_url
    visit.page.get_by_label("Label of the heat map").select_option("fear")
    expect(visit.status).to_contain_text("bright areas support fear")
    pressed.click()
    expect(visit.status).to_contain_text("hidden")
    assert visit.page.locator("figure + .legend").is_hidden()
    assert visit.page.locator(".picture").get_attribute("src") == image_url


def test_labels_that_a_model_of_several_gives_are_marked(tmp_path: Path, open_page: Callable[..., Visit]) -> None:
    thresholds = [0.5] * len(MIKELS)
    several = predictor_of(tmp_path, task="multilabel", thresholds=thresholds, conformal_scores=[])
    with running([several]) as server:
        data = image(3, 200, 100)
        [answer] = server.post("/predict", data).json
        given = answer["assigned_labels"]
        assert 1 < len(given) < len(MIKELS)
        visit = open_page(server, viewport=DESK)
        visit.choose(data)
        expect(visit.page.locator("article")).to_contain_text(
            f"Given: {', '.join(given)}. Each label has a probability"
        )
        rows = visit.page.locator("article").get_by_role("row").all_inner_texts()[1:]
        assert {row.split()[0] for row in rows if "given" in row} == set(given)
        assert all(label in visit.status.inner_text() for label in given)
        assert visit.wrong == []


def test_the_example_is_the_built_in_models_answer() -> None:
    """After a change of the model: python -m tools.serve_example docs/images/cat.jpg."""
    example = json.loads((PAGE_FOLDER / "example.json").read_text("utf-8"))
    image_bytes = (PAGE_FOLDER / "example.jpg").read_bytes()
    answer = uniemox.load(finder=None).predict(image_bytes, coverage=float(example["share"])).to_dict()
    for field in ("scene", "valence", "arousal"):
        assert example["answer"][field] == pytest.approx(answer[field], abs=1e-3)
    assert example["answer"]["likely"] == answer["likely"]


def test_an_empty_page_shows_an_example_that_can_be_tried(visit: Visit) -> None:
    example = visit.page.get_by_role("region", name="How it works")
    expect(example.get_by_role("row").nth(1)).to_contain_text("contentment")
    assert example.get_by_role("img").evaluate_all("all => all.every(image => image.naturalWidth > 0)")
    assert visit.page.get_by_text("Ctrl+V").is_visible()
    example.get_by_role("button", name="Try this one").click()
    expect(visit.status).to_contain_text("cat.jpg: ")
    assert example.is_hidden()
    visit.page.get_by_role("button", name="Clear").click()
    expect(example).to_be_visible()


def test_without_its_example_the_page_still_answers(open_page: Callable[..., Visit], server: Running) -> None:
    visit = open_page(server)
    visit.page.route("**/example.json", lambda route: route.abort())
    visit.page.reload()
    expect(visit.page.locator("#example")).to_have_count(0)
    visit.predict()


def test_heat_maps_of_all_labels_share_a_scale(visit: Visit) -> None:
    """Each map has more evidence than those before it: all are drawn again on the scale of the last."""
    asked: list[str] = []

    def with_evidence(route: sync_api.Route) -> None:
        asked.append(route.request.url)
        received = route.fetch()
        route.fulfill(response=received, headers=received.headers | {"x-evidence": str(min(len(asked), 8))})

    visit.predict()
    visit.page.route("**/explain*", with_evidence)
    visit.page.get_by_role("button", name="All labels").click()
    expect(visit.status).to_contain_text("for all 8 labels")
    scales = [parse_qs(urlsplit(url).query).get("full_scale") for url in asked]
    assert scales == [None, *[[str(i)] for i in range(1, 8)], *[["8"]] * 8]
    last = visit.page.locator(".maps figcaption").last.inner_text().split()[0]
    assert f"most support that any label has ({last})" in visit.page.locator(".maps-part .legend").inner_text()


def test_a_field_that_the_page_does_not_know_is_shown(visit: Visit) -> None:
    def with_margin(route: sync_api.Route) -> None:
        received = route.fetch()
        [answer] = received.json()
        route.fulfill(response=received, json=[answer | {"margin": 0.5}])

    visit.page.route("**/predict*", with_margin)
    visit.choose(image(1, 200, 100))
    expect(visit.page.locator(".others li")).to_have_text("margin: 0.5")


def test_by_keyboard_alone(visit: Visit) -> None:
    visit.page.keyboard.press("Tab")
    assert visit.page.evaluate("document.activeElement.textContent") == "Choose images"
    assert visit.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    with visit.page.expect_file_chooser() as chooser:
        visit.page.keyboard.press("Space")
    chooser.value.set_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": image(2)})
    expect(visit.status).to_contain_text("a.jpg: ")
    assert visit.page.evaluate("document.activeElement.textContent") == "Choose images"
    visited = []
    for _ in range(4):
        visit.page.keyboard.press("Tab")
        visited.append(visit.page.evaluate("document.activeElement.id || document.activeElement.className"))
        if visited[-1] == "heat":
            break
    assert visited[0] == "coverage"
    assert visited[-1] == "heat"
    visit.page.keyboard.press("Space")
    expect(visit.status).to_contain_text("bright areas support")
    assert visit.page.evaluate("document.activeElement.className") == "heat"


def test_screen_readers_get_names_and_roles(visit: Visit) -> None:
    visit.predict()
    snapshot = visit.page.locator("body").aria_snapshot()
    for part in (
        '- heading "What does an image make people feel?" [level=1]',
        '- button "Choose images"',
        '- combobox "Show likely labels"',
        '- article "Answer of colours.onnx"',
        '- img "beach.jpg"',
        '- button "Heat map"',
        '- columnheader "Probability"',
        "- rowheader",
        '- heading "People" [level=3]',
        "- status",
    ):
        assert part in snapshot, snapshot
    assert visit.page.locator("#status").get_attribute("aria-live") == "polite"
    assert visit.page.locator("html").get_attribute("lang") == "en"


@pytest.mark.thorough
@needs_axe
def test_axe_finds_nothing(open_page: Callable[..., Visit], server: Running) -> None:
    """With the example, and with an answer and its heat maps."""
    visit = open_page(server, bypass_csp=True)
    page = visit.page
    expect(page.locator("#example .bars").first).to_be_visible()
    assert violations_of(page) == []
    visit.predict()
    page.get_by_role("button", name="Heat map").click()
    page.get_by_role("button", name="All labels").click()
    expect(page.get_by_role("status")).to_contain_text("for all 8 labels")
    assert violations_of(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(open_page: Callable[..., Visit], server: Running, scheme: str) -> None:
    """At least 4.5 : 1, by WCAG's formula, for every text that is seen."""
    visit = open_page(server, color_scheme=scheme, reduced_motion="reduce")
    visit.predict()
    visit.page.evaluate("document.querySelector('#error').textContent = 'as an error looks'")
    weakest = visit.page.evaluate(CONTRASTS)
    assert weakest[0] >= 4.5, weakest
    assert visit.page.evaluate("getComputedStyle(document.querySelector('.bar')).transitionDuration") == "0s"


def test_a_phone_of_360_px_needs_no_sideways_scroll_and_can_take_a_photo(
    open_page: Callable[..., Visit], server: Running
) -> None:
    visit = open_page(server, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert not visit.has_sideways_scroll()
    assert visit.page.get_by_text("Take a photo").is_visible()
    assert visit.page.locator("#take").get_attribute("capture") == "environment"
    assert visit.page.get_by_text("Ctrl+V").is_hidden()
    visit.choose(image(1, 2000, 300), name="a" * 120 + ".jpg")
    expect(visit.status).to_contain_text("1 person found")
    assert not visit.has_sideways_scroll()
    for button in visit.page.locator("button:visible").all():
        assert button.bounding_box()["height"] >= 44
    assert visit.wrong == []


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.jpg", "<script>alert(1)</script>.jpg", '"><svg onload=alert(1)>']
)
def test_a_file_name_is_shown_as_text(visit: Visit, name: str) -> None:
    visit.page.on("dialog", lambda dialog: visit.wrong.append(dialog.message))
    visit.choose(image(3), name=name)
    expect(visit.status).to_contain_text("1 person found")
    assert visit.page.locator("figcaption").inner_text() == name
    assert visit.page.locator("article script, article svg, article img").count() == 1
    visit.page.get_by_role("button", name="Heat map").click()
    expect(visit.status).to_contain_text("bright areas")


def test_only_coverage_that_the_model_can_promise_is_offered(open_page: Callable[..., Visit], tmp_path: Path) -> None:
    """Eight held-out images promise 8/9 at most; the answer must not fail for it."""
    with running([predictor_of(tmp_path, conformal_scores=tuple(i / 10 for i in range(1, 9)))]) as server:
        visit = open_page(server)
        visit.predict()
        shares = visit.page.locator("#coverage option:not(:disabled)").evaluate_all("all => all.map(o => o.value)")
        assert shares == ["", "0.8"]
        assert visit.page.locator("#coverage").input_value() == ""
        visit.page.locator("#coverage").select_option("0.8")
        visit.choose(image(1, 200, 100), name="again.jpg")
        expect(visit.status).to_contain_text("again.jpg: ")
        assert "for 80 % of images" in visit.page.locator(".likely").first.inner_text()
        assert visit.wrong == []


def test_unfamiliar_images_are_marked_as_guesses(open_page: Callable[..., Visit], tmp_path: Path) -> None:
    for distances, is_guess in (((0.0,) * 99, True), ((1e6,) * 99, False)):
        with running([predictor_of(tmp_path, distances=distances)]) as server:
            visit = open_page(server)
            visit.choose(jpeg_of(draw_image(1, (200, 100))))
            expect(visit.status).to_contain_text("1 person found")
            judged = visit.page.locator(".judged").first.inner_text()
            assert ("its answer is a guess" in judged) == is_guess
            assert "Valence " in judged
            assert visit.wrong == []


def test_an_unsendable_key_is_reported(visit: Visit) -> None:
    visit.page.evaluate("document.querySelector('#key-setting').hidden = false")
    visit.page.locator("#key").fill("schlüssel")
    visit.page.locator("#key").blur()
    expect(visit.page.get_by_role("alert")).to_contain_text("a character that is not allowed in a key")
    visit.page.locator("#key").fill("")


def test_dropped_and_pasted_images_are_taken(visit: Visit) -> None:
    for kind, holder, name in (("drop", "dataTransfer", "dropped.jpg"), ("paste", "clipboardData", "pasted.jpg")):
        visit.page.evaluate(GIVE, [kind, holder, name, list(image(4))])
        expect(visit.status).to_contain_text(f"{name}: ")
    expect(visit.page.get_by_role("article")).to_have_count(1)


def test_a_file_that_is_no_image_is_reported(open_page: Callable[..., Visit], server: Running) -> None:
    visit = open_page(server)
    visit.choose(b"nothing", name="notes.txt", kind="text/plain")
    expect(visit.page.get_by_role("alert")).to_contain_text("not an image of a known format")
    visit.choose(image(5))
    expect(visit.status).to_contain_text("1 person found")
    expect(visit.page.locator("#error")).to_be_empty()


def test_two_models_are_compared_in_two_columns(open_page: Callable[..., Visit], tmp_path: Path) -> None:
    models = [predictor_of(tmp_path), predictor_of(tmp_path, "other", seed=1, finder=False)]
    with running(models) as server:
        visit = open_page(server, viewport=DESK)
        visit.choose(image(6))
        expect(visit.page.get_by_role("article")).to_have_count(2)
        first, second = (article.bounding_box() for article in visit.page.get_by_role("article").all())
        assert first["y"] == second["y"]
        assert first["x"] + first["width"] <= second["x"]
        # Only the first model has a person detector.
        expect(visit.page.get_by_role("heading", name="People", exact=True)).to_have_count(1)
        visit.page.set_viewport_size({"width": 360, "height": 740})
        assert not visit.has_sideways_scroll()
        assert visit.wrong == []


def test_a_server_with_a_key_asks_for_it(open_page: Callable[..., Visit], tmp_path: Path) -> None:
    with running([predictor_of(tmp_path)], key=KEY) as server:
        visit = open_page(server)
        expect(visit.page.get_by_role("alert")).to_contain_text("asks for a key")
        visit.page.get_by_label("Key of this server").fill(KEY)
        visit.page.keyboard.press("Tab")
        expect(visit.page.locator("#error")).to_be_empty()
        visit.choose(image(7))
        expect(visit.status).to_contain_text("1 person found")


def test_the_newest_image_is_shown(visit: Visit) -> None:
    for i in range(5):
        visit.choose(image(i), name=f"{i}.jpg")
    expect(visit.status).to_contain_text("4.jpg: ")
    expect(visit.page.locator(".tile input:not(:disabled)")).to_have_count(5)
    expect(visit.page.get_by_role("article")).to_have_count(1)
    assert visit.page.locator("article figcaption").inner_text() == "4.jpg"


def test_a_late_answer_does_not_replace_that_of_a_newer_image(visit: Visit) -> None:
    """The page does not know the models yet; two images ask for them, and the first one gets its answer last."""
    delayed: list[sync_api.Route] = []
    visit.page.route("**/models", lambda route: delayed.append(route) if len(delayed) < 2 else route.continue_())
    with visit.page.expect_request("**/models"):
        visit.page.reload()
    with visit.page.expect_request("**/models"):
        visit.choose(image(0), name="first.jpg")
    visit.choose(image(1), name="second.jpg")
    expect(visit.status).to_contain_text("second.jpg: ")
    for route in delayed:
        route.continue_()
    expect(visit.page.locator(".tile input:not(:disabled)")).to_have_count(2)
    assert visit.page.locator("article figcaption").inner_text() == "second.jpg"


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) {
    const found = rgba(getComputedStyle(node).backgroundColor);
    if (found[3] === 255) return found; }
    return [255, 255, 255]; };
  const results = [];
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!words || !node.getClientRects().length || node.closest(".unseen")) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    results.push([(a + 0.05) / (b + 0.05), node.tagName, node.className, node.textContent.slice(0, 30)]);
  }
  return results.sort((x, y) => x[0] - y[0])[0];
}"""


def test_faces_have_boxes_labels_and_a_summary(open_page: Callable[..., Visit], tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path)
    network = Network.open(tiny_network(tmp_path / "shown.onnx", seed=3, **SHOWN), threads=1)
    predictor.face_reader = FaceReader(network, Finds(Box(20, 10, 60, 60), Box(100, 10, 110, 40)))
    with running([predictor]) as server:
        data = image(1, 200, 100)
        [answer] = server.post("/predict", data).json
        assert [face["expressions"] is None for face in answer["faces"]] == [False, True]
        top = max(answer["faces"][0]["expressions"].items(), key=lambda pair: pair[1])[0]
        visit = open_page(server, viewport=DESK)
        visit.choose(data)
        expect(visit.page.locator(".faces-note")).to_have_text(
            f"2 found: {top} 1; 1 too small to tell. What a face shows is not what its owner feels."
        )
        assert visit.page.locator(".box.face span").all_inner_texts() == [top, "?"]
        assert visit.page.locator(".faces li").count() == 2
        assert visit.wrong == []
