"""The page without a server, in Chromium: the same answers as Python, nothing is sent, and it works offline."""

import base64
import functools
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import uniemox
from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import as_prediction, make_network, tiny_network
from tests.predict.test_multilabel import SEVERAL
from tests.serve.visits import Visit, expect
from uniemox.cli import app
from uniemox.errors import CheckpointError, ConfigError
from uniemox.insight.site.writing import RUNTIME, write_site
from uniemox.predict.network import Network
from uniemox.predict.opening import open_network
from uniemox.predict.predictor import Predictor

ROOT = Path(__file__).parents[2]
NPM = ROOT / "build/npm/node_modules/onnxruntime-web"
DATA = ROOT.parent / "shared/data"
needs_runtime = pytest.mark.skipif(not NPM.exists(), reason="npm install --prefix build/npm onnxruntime-web@1.30.0")
PREDICT = """async ([name, base64]) => {
  const { ask, predict } = await import("./page/server.js");
  const [model] = await (await ask("models")).json();
  const file = await (await fetch(`data:image/any;base64,${base64}`)).blob();
  return predict(model, { file, name }, "0.9");
}"""

KEPT = """async () => {
  await navigator.serviceWorker.ready;
  for (;;) {
    const kept = await Promise.all((await caches.keys()).map(async (name) => (await caches.open(name)).keys()));
    if (kept.flat().some((one) => one.url.endsWith(".wasm"))) return;
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}"""


def fake_runtime(folder: Path) -> Path:
    folder.mkdir()
    for names in RUNTIME.values():
        for name in names:
            (folder / name).write_bytes(b"")
    return folder


def page_of(site: Path) -> str:
    return (site / "index.html").read_text("utf-8")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def offered(folder: Path) -> Iterator[tuple[str, http.server.ThreadingHTTPServer]]:
    """Offer a folder by HTTP; gives its address and the server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, http.server.ThreadingHTTPServer]]:
    out = tmp_path_factory.mktemp("sites") / "site"
    app(["export", "embedded", "--to", "web", "--runtime", str(NPM), "--out", str(out)], result_action="return_value")
    with offered(out) as address_and_server:
        yield address_and_server


def photographs() -> list[tuple[str, bytes]]:
    """Return twenty photographs of several sizes; drawn images replace those that are not on this machine."""
    paths = sorted((DATA / "coco_persons/images").glob("*.jpg"))[:11]
    paths += sorted((DATA / "flickr8k/images").glob("*.jpg"))[:4]
    # Its valence is cut off at 9.
    paths += (DATA / "flickr8k/images").glob("1244306891_8e78ae1620.jpg")
    photos = [(path.name, path.read_bytes()) for path in paths]
    sizes = [(900, 300), (120, 700), (50, 40), (420, 200)]
    sizes += [(300 + 7 * i, 260) for i in range(20 - len(sizes) - len(photos))]
    for i, size in enumerate(sizes):
        photos.append((f"drawn{i}.jpg", jpeg_of(draw_image(i, size))))
    return photos


@pytest.mark.thorough
@needs_runtime
@pytest.mark.browser
@pytest.mark.long
def test_answers_in_the_browser_equal_pythons(browser: object, site: tuple[str, object]) -> None:
    visit = Visit(browser, site[0])
    predictor = uniemox.load(finder=None)
    files = photographs()
    assert len(files) == 20
    for name, data in files:
        expected = predictor.predict(data, coverage=0.9).to_dict()
        answer = visit.page.evaluate(PREDICT, [name, base64.b64encode(data).decode()])
        assert answer["scene"] == pytest.approx(expected["scene"], abs=1e-3), name
        for field in ("valence", "arousal", "valence_interval", "arousal_interval", "familiarity"):
            assert answer[field] == pytest.approx(expected[field], abs=5e-3), (name, field)
        for field in ("likely", "width_px", "height_px", "is_unfamiliar", "is_colourless", "kind", "affect_from"):
            assert answer[field] == expected[field], (name, field)
    grey = jpeg_of(draw_image(2, (300, 200)).convert("L").convert("RGB"))
    expected = predictor.predict(grey).to_dict()
    answer = visit.page.evaluate(PREDICT, ["grey.jpg", base64.b64encode(grey).decode()])
    assert answer["is_colourless"] is expected["is_colourless"] is True
    assert answer["valence_interval"] == pytest.approx(expected["valence_interval"], abs=5e-3)
    red = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(red, "PNG")
    assert visit.page.evaluate(PREDICT, ["red.png", base64.b64encode(red.getvalue()).decode()])["is_unfamiliar"]
    tiny = io.BytesIO()
    draw_image(3).resize((15, 40)).save(tiny, "PNG")
    assert predictor.predict(tiny.getvalue()).familiarity == 0
    assert visit.page.evaluate(PREDICT, ["tiny.png", base64.b64encode(tiny.getvalue()).decode()])["familiarity"] == 0
    assert not visit.wrong
    visit.context.close()


@pytest.mark.thorough
@needs_runtime
@pytest.mark.browser
@pytest.mark.parametrize("is_calibrated", [True, False])
def test_each_of_several_labels_has_its_calibrated_probability_and_threshold(
    browser: object, tmp_path: Path, is_calibrated: bool
) -> None:
    info = SEVERAL | {"distances": [10.0, 20.0, 40.0]}
    if not is_calibrated:
        info |= {"offsets": [], "thresholds": [], "temperature": None}
    network = Network.open(tiny_network(tmp_path / "several.onnx", **info), threads=1)
    write_site(network, tmp_path / "several.onnx", tmp_path / "site", NPM)
    predictor = Predictor(network)
    given = []
    with offered(tmp_path / "site") as (address, _):
        visit = Visit(browser, address)
        for i, size in enumerate([(300, 200), (900, 300), (64, 64), (90, 400), (120, 100)]):
            data = jpeg_of(draw_image(i, size))
            expected = as_prediction(predictor.predict(data)).to_dict()
            answer = visit.page.evaluate(PREDICT, [f"{i}.jpg", base64.b64encode(data).decode()])
            assert answer["scene"] == pytest.approx(expected["scene"], abs=2e-3)
            assert answer["familiarity"] == pytest.approx(expected["familiarity"], abs=1e-6)
            assert answer["assigned_labels"] == list(expected["assigned_labels"])
            assert answer["likely"] is None
            given.append(tuple(answer["assigned_labels"]))
        visit.choose(data)
        words = f"Given: {', '.join(given[-1])}. Each label has a probability and a threshold of its own"
        expect(visit.page.locator("article")).to_contain_text(words)
        assert not visit.wrong
        visit.context.close()
    assert len(set(given)) > 1


@pytest.mark.thorough
@needs_runtime
@pytest.mark.browser
def test_the_page_works_offline_and_sends_nothing(browser: object, site: tuple[str, object]) -> None:
    visit = Visit(browser, site[0])
    data = jpeg_of(draw_image(3, (500, 400)))
    expect(visit.page.locator("#example tbody tr")).to_have_count(10)
    visit.choose(data)
    expect(visit.status).to_contain_text("beach.jpg: ")
    assert visit.page.locator("article .people-part").is_hidden()
    assert "do not leave this device" in visit.page.locator("#drop").inner_text()
    visit.page.evaluate(KEPT)
    errors = visit.context.new_cdp_session(visit.page).send("Page.getInstallabilityErrors")["installabilityErrors"]
    # Browsers of tests are always incognito.
    assert {error["errorId"] for error in errors} <= {"in-incognito"}
    visit.context.set_offline(True)
    visit.page.reload()
    loaded = "all => Promise.all(all.map((image) => image.decode())).then(() => all.length)"
    assert visit.page.locator("#example img").evaluate_all(loaded) == 2
    visit.choose(data)
    expect(visit.status).to_contain_text("beach.jpg: ")
    visit.page.get_by_role("button", name="Heat map").click()
    expect(visit.status).to_contain_text("bright areas support")
    width = visit.page.evaluate(
        "document.querySelector('.picture').decode().then(() => document.querySelector('.picture').naturalWidth)"
    )
    assert width == 500
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download the table").click()
    assert "beach.jpg" in Path(download.value.path()).read_text("utf-8-sig")
    assert all(url.startswith((site[0], "blob:", "data:")) for url in visit.requested)
    visit.context.close()


@needs_runtime
@pytest.mark.browser
def test_resize_equals_pillows_exactly(browser: object, site: tuple[str, object]) -> None:
    visit = Visit(browser, site[0])
    resize = """async ([data, width, height, toWidth, toHeight]) => {
      const { resize } = await import("./page/resize.js");
      return [...resize({ data: Uint8ClampedArray.from(data), width, height }, toWidth, toHeight).data];
    }"""
    rng = np.random.default_rng(0)
    for size, to in (((37, 23), (16, 9)), ((9, 16), (31, 40)), ((64, 5), (7, 5))):
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        rgba = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        resized = visit.page.evaluate(resize, [rgba.ravel().tolist(), *size, *to])
        expected = np.asarray(Image.fromarray(pixels).resize(to, Image.Resampling.BICUBIC))
        assert np.array_equal(np.array(resized).reshape(to[1], to[0], 4)[..., :3], expected)
    visit.context.close()


def test_the_folder_contains_no_local_path(tmp_path: Path) -> None:
    write_site(
        open_network("small"),
        ROOT / "uniemox/predict/embedded/small.onnx",
        tmp_path / "site",
        fake_runtime(tmp_path / "r"),
    )
    described = json.loads((tmp_path / "site/model.json").read_text())
    assert described["outputs"] == ["distance", "features", "logits", "maps"]
    for path in (tmp_path / "site").rglob("*.js*"):
        assert str(tmp_path) not in path.read_text(), path
    worker = (tmp_path / "site/sw.js").read_text()
    assert f'"{described["version"]}"' in worker
    [policy] = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page_of(tmp_path / "site"))
    assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self';")
    assert "unsafe-inline" not in policy


def test_unsupported_models_and_folders_are_refused(tmp_path: Path) -> None:
    network = open_network("small")
    runtime = fake_runtime(tmp_path / "r")
    (runtime / RUNTIME["wasm"][2]).unlink()
    with pytest.raises(ConfigError, match=r"has no ort-wasm-simd-threaded.wasm; download the npm package"):
        write_site(network, tmp_path / "small.onnx", tmp_path / "site", runtime)
    (runtime / RUNTIME["wasm"][2]).write_bytes(b"")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").write_bytes(b"")
    with pytest.raises(ConfigError, match="not empty"):
        write_site(network, tmp_path / "small.onnx", tmp_path / "full", runtime)
    for changes in ({"streams": "both"}, {"task": "affect", "labels": ["valence", "arousal"]}):
        with pytest.raises(CheckpointError, match=r"whole scenes; .*, or offer this one with uniemox serve"):
            write_site(make_network(tmp_path, **changes), tmp_path / "other.onnx", tmp_path / "site", runtime)


def test_web_needs_a_runtime_and_excludes_other_options(tmp_path: Path) -> None:
    for options in (
        ["--to", "web"],
        ["--runtime", str(tmp_path)],
        ["--to", "web", "--runtime", str(tmp_path), "--float16"],
        ["--to", "web", "--runtime", str(tmp_path), "--keep-float16", "a"],
        ["--to", "web", "--runtime", str(tmp_path), "--data", "fi:nothing"],
    ):
        with pytest.raises(ConfigError, match=r"--to web|--keep-float16 needs|--int8 and --data"):
            app(["export", "small", "--out", str(tmp_path / "o"), *options], exit_on_error=False)
