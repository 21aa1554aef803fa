"""Answers over HTTP equal the predictor's, each for the image that was sent."""

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.serving import Running, form, image, predictor_of, running
from uniemox import __version__
from uniemox.insight.explain.maps import heat_map
from uniemox.labels import MIKELS
from uniemox.predict.predictor import Predictor
from uniemox_serve.answers import REFUSALS
from uniemox_serve.models import without_folders

GENERATOR = shutil.which("openapi-python-client")
KEY = "a-key-of-more-than-sixteen"


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> list[Predictor]:
    folder = tmp_path_factory.mktemp("models")
    return [predictor_of(folder), predictor_of(folder, "other", seed=1)]


@pytest.fixture(scope="module")
def server(predictors: list[Predictor]) -> Iterator[Running]:
    with running(predictors) as started:
        yield started


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected_answer(predictor: Predictor, data: bytes, **options: object) -> dict[str, object]:
    """Return the predictor's own answer, without its path."""
    answer = predictor.predict(data, **options).to_dict()
    return {name: value for name, value in answer.items() if name != "path"}


def assert_same(answer: dict, expected: dict) -> None:
    scene = answer.pop("scene")
    expected_scene = expected.pop("scene")
    assert answer == expected
    assert list(scene) == list(expected_scene)
    np.testing.assert_allclose(list(scene.values()), list(expected_scene.values()), atol=2e-6)


def test_answers_equal_the_predictors_alone_in_a_form_and_among_others(
    server: Running, predictors: list[Predictor]
) -> None:
    images = [image(seed) for seed in range(9)]
    many = server.post("/predict", *images)
    assert many.status == 200
    for i, (data, among) in enumerate(zip(images, many.json, strict=True)):
        [alone] = server.post("/predict", data).json
        [raw] = server.ask("POST", "/predict", data, Content_Type="image/jpeg").json
        assert server.ask("POST", "/predict", data, Content_Type="application/octet-stream").json == [raw]
        for answer, name in ((among, f"{i}.jpg"), (alone, "0.jpg"), (raw, None)):
            assert (answer.pop("sha256"), answer.pop("name")) == (sha256(data), name)
            assert_same(answer, expected_answer(predictors[0], data))


@pytest.mark.parametrize(
    ("query", "model", "options"),
    [("coverage=0.9&labels=polarity", 0, {"coverage": 0.9, "labels": "polarity"}), ("model=other.onnx", 1, {})],
)
def test_query_parameters_reach_the_predictor(
    server: Running, predictors: list[Predictor], query: str, model: int, options: dict[str, object]
) -> None:
    data = image(5)
    [answer] = server.post(f"/predict?{query}", data).json
    del answer["sha256"], answer["name"]
    assert bool(answer["likely"]) == ("coverage" in options)
    assert_same(answer, expected_answer(predictors[model], data, **options))


def test_labels_of_a_model_that_gives_several_are_in_its_answers_alone(tmp_path: Path) -> None:
    thresholds = [0.5] * len(MIKELS)
    several = predictor_of(tmp_path, task="multilabel", thresholds=thresholds, conformal_scores=[])
    single = predictor_of(tmp_path, "single")
    data = image(3)
    with running([several, single]) as server:
        [answer] = server.post("/predict", data).json
        scene = answer["scene"]
        given = sorted((label for label in scene if scene[label] > 0.5), key=lambda label: -scene[label])
        assert 1 < len(given) < len(MIKELS)
        assert answer["assigned_labels"] == given
        [other] = server.post("/predict?model=single.onnx", data).json
        assert "assigned_labels" not in other
        assert [model["task"] for model in server.ask("GET", "/models").json] == ["multilabel", "label"]
        refused = server.post("/predict?coverage=0.9", data)
        assert refused.status == 422
        schema = server.ask("GET", "/openapi.json").json["components"]["schemas"]["ImageAnswer"]
        assert "assigned_labels" in schema["properties"]
        assert "assigned_labels" not in schema["required"]


def test_models_with_equal_names_are_numbered(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path)
    with running([predictor, predictor]) as server:
        assert [model["name"] for model in server.ask("GET", "/models").json] == ["colours.onnx", "colours.onnx-2"]
        [answer] = server.post("/predict?model=colours.onnx-2", image()).json
    assert answer["model"] == "colours.onnx-2"


def test_an_unreadable_image_among_others_is_an_error_in_the_list(server: Running) -> None:
    good = image(7)
    answer = server.post("/predict", b"no image", good, b"")
    assert answer.status == 200
    first, second, third = answer.json
    # The list of formats has HEIF, too, if another test of this process has read such an image.
    error = first.pop("error")
    assert error.startswith("image: not an image of a known format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, PPM")
    assert first == {"sha256": sha256(b"no image"), "name": "0.jpg"}
    assert second["sha256"] == sha256(good)
    assert third["error"] == "image: the file is empty"


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_single_unreadable_image_is_422(server: Running, path: str) -> None:
    for answer in (server.post(path, b"no"), server.ask("POST", path, b"no", Content_Type="image/png")):
        assert answer.status == 422
        assert answer.json["code"] == "unreadable_picture"
        assert "not an image of a known format" in answer.json["error"]


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ("coverage=0", "bad_parameter", "coverage: Input should be greater than 0"),
        ("coverage=nan", "bad_parameter", "coverage"),
        ("coverage=x", "bad_parameter", "coverage: Input should be a valid number"),
        ("coverage=0.999", "bad_parameter", "is impossible with 100 held-out images"),
        ("coverge=0.9", "bad_parameter", "there is no parameter 'coverge'; there are coverage, labels, model"),
        ("labels=polarity&labels=ekman", "bad_parameter", "the parameter labels is given twice; give it once"),
        ("labels=nope", "bad_parameter", "no label set 'nope'; the model can answer in mikels, ekman, ube, polarity"),
        ("labels=caer", "bad_parameter", "evoked"),
        ("model=nope", "unknown_model", "there are colours.onnx, other.onnx"),
        ("model=../../etc/passwd", "unknown_model", "no model of that name"),
    ],
)
def test_a_bad_parameter_is_422_and_says_why(server: Running, query: str, code: str, words: str) -> None:
    answer = server.post(f"/predict?{query}", image())
    assert answer.code == (422, code)
    assert words in answer.json["error"]


@pytest.mark.parametrize("label", [None, "fear"])
def test_explain_is_the_heat_map_over_the_image(
    server: Running, predictors: list[Predictor], label: str | None
) -> None:
    data = image(8, 200, 100)
    expected = heat_map(predictors[0], data, label)
    query = "" if label is None else f"label={label}"
    png = server.post(f"/explain?{query}", data)
    assert png.status == 200
    assert png.headers["content-type"] == "image/png"
    assert (png.headers["x-picture-sha256"], png.headers["x-label"]) == (sha256(data), expected.label)
    assert png.headers["x-method"] == "cam"
    assert float(png.headers["x-evidence"]) == pytest.approx(expected.evidence, rel=1e-5)
    explanation = server.post(f"/explain/json?{query}", data).json
    # The former way still works.
    assert server.post(f"/explain?format=json&{query}", data).json == explanation
    kind, encoded = explanation["data_url"].split(",")
    assert kind == "data:image/png;base64"
    for content in (png.body, base64.b64decode(encoded)):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(expected.overlay()))
    assert (explanation["label"], explanation["method"]) == (expected.label, "cam")
    assert explanation["evidence"] == pytest.approx(expected.evidence)
    assert explanation["sha256"] == sha256(data)
    np.testing.assert_allclose(explanation["box"], expected.box)


def test_maps_of_several_labels_can_share_a_scale(server: Running, predictors: list[Predictor]) -> None:
    data = image(8, 200, 100)
    full_scale = 2 * heat_map(predictors[0], data).evidence
    expected = heat_map(predictors[0], data, full_scale=full_scale)
    assert expected.heat.max() == pytest.approx(0.5)
    png = server.post(f"/explain?full_scale={full_scale!r}", data)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.body))), np.asarray(expected.overlay()))
    assert float(png.headers["x-evidence"]) == pytest.approx(full_scale / 2, rel=1e-5)
    for wrong in ("0", "-1", "nan", "inf"):
        assert server.post(f"/explain?full_scale={wrong}", data).code == (422, "bad_parameter")


def test_explain_refuses_unknown_labels_and_several_images(server: Running) -> None:
    wrong = server.post("/explain?label=boredom", image())
    assert wrong.code == (422, "bad_parameter")
    assert "amusement, anger" in wrong.json["error"]
    several = server.post("/explain", image(), image(1))
    assert several.code == (422, "one_picture_only")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name.encode(), name) for name in ("../../etc/passwd", "<img src=x onerror=alert(1)>.jpg", "%00", "")),
        ("émotion 🙂.jpg".encode(), "émotion 🙂.jpg"),
        (b"C:\\\\boot.ini", "boot.ini"),
        (b"a" * 300, "a" * 255),
        (b"\xff\xfe.jpg", "\ufffd\ufffd.jpg"),
    ],
)
def test_file_names_are_only_repeated_as_text(server: Running, name: bytes, expected: str) -> None:
    body, kind = form([image()])
    [answer] = server.ask("POST", "/predict", body.replace(b"0.jpg", name), Content_Type=kind).json
    assert answer["name"] == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"filename=\"=?utf-8?B?Y2Fmw6k=?=\"; filename*=utf-8''caf%C3%A9.jpg", "café.jpg"),
        (b"filename*=UTF-8'en'a%2Fb.jpg", "a/b.jpg"),
        (b"filename=\"0.jpg\"; filename*=klingon''%41.jpg", "0.jpg"),
        # Codecs of Python that fail, or give what is no text.
        (b"filename=\"0.jpg\"; filename*=idna''%80%ff.jpg", "0.jpg"),
        (b"filename=\"0.jpg\"; filename*=unicode_escape''%5Cud800.jpg", "0.jpg"),
        (b"filename*=iso-8859-1''caf%e9.jpg", "café.jpg"),
    ],
)
def test_extended_file_names_are_read(server: Running, header: bytes, expected: str) -> None:
    """As HttpClient of .NET sends them."""
    body, kind = form([image()])
    [answer] = server.ask("POST", "/predict", body.replace(b'filename="0.jpg"', header), Content_Type=kind).json
    assert answer["name"] == expected


@pytest.mark.portable
def test_health_and_models(server: Running) -> None:
    assert server.ask("GET", "/health").json == {
        "ready": True,
        "models": ["colours.onnx", "other.onnx"],
        "version": __version__,
    }
    head = server.ask("HEAD", "/health")
    assert (head.status, head.body) == (200, b"")
    first, second = server.ask("GET", "/models").json
    assert first == {
        "name": "colours.onnx",
        "labels": list(MIKELS.labels),
        "label_set": "mikels",
        "kind": "evoked",
        "task": "label",
        "trained_on": "colours",
        "finds_persons": True,
        "tells_persons_emotions": False,
        "finds_faces": False,
        "flags_unfamiliar": False,
        "max_coverage": 100 / 101,
    }
    assert second["name"] == "other.onnx"


def test_metrics_count_requests_images_and_refusals(tmp_path: Path) -> None:
    with running([predictor_of(tmp_path)]) as server:
        server.post("/predict", image(), image(1), b"no")
        server.post("/predict", b"no")
        server.ask("GET", "/nowhere/1")
        server.ask("GET", "/nowhere/2")
        answer = server.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert values["uniemox_requests_total", "/predict", "200"] == 1
    assert values["uniemox_requests_total", "/predict", "422"] == 1
    assert values["uniemox_requests_total", "404", "other"] == 2
    assert values["uniemox_pictures_total", "answered"] == 2
    assert values["uniemox_pictures_total", "unreadable"] == 2
    assert values["uniemox_rejected_total", "unreadable_picture"] == 1
    assert values["uniemox_queue_length",] == 0
    assert values["uniemox_batch_size_sum",] == 4
    assert values["uniemox_request_seconds_count", "/predict"] == 2


def test_a_server_with_a_key_refuses_requests_without_it(tmp_path: Path) -> None:
    with running([predictor_of(tmp_path)], key=KEY) as server:
        for authorization in ("", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xff"):
            for method, path in (("POST", "/predict"), ("POST", "/explain"), ("GET", "/models"), ("GET", "/metrics")):
                body = image() if method == "POST" else None
                answer = server.ask(method, path, body, Authorization=authorization, Content_Type="image/jpeg")
                assert answer.code == (401, "wrong_key")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert server.ask("GET", "/health", Authorization="").status == 200
        assert server.ask("GET", "/", Authorization="").status == 200
        assert server.post("/predict", image()).status == 200
        schema = server.ask("GET", "/openapi.json").json
    assert schema["paths"]["/predict"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in schema["paths"]["/health"]["get"]


@pytest.mark.parametrize("path", ["/", "/page/page.js", "/health", "/nowhere", "/predict", "/openapi.json"])
def test_every_response_has_security_headers(server: Running, path: str) -> None:
    headers = server.ask("GET", path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e/app.py", 404),
        ("GET", "/page/..%2fapp.py", 404),
        ("GET", "/page//etc/passwd", 404),
        ("GET", "/redoc", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/health", 405),
        ("OPTIONS", "/predict", 405),
        ("HEAD", "/", 200),
    ],
)
def test_other_paths_and_methods(server: Running, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path)
    assert answer.status == status
    if status == 405:
        assert answer.headers["allow"]
        assert answer.json["code"] == "wrong_method"


def test_the_schema_has_every_refusal_with_an_example(server: Running) -> None:
    schema = server.ask("GET", "/openapi.json").json
    for path in ("/predict", "/explain", "/explain/json"):
        operation = schema["paths"][path]["post"]
        assert set(operation["responses"]) == {"200", *map(str, REFUSALS)}
        assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/octet-stream"}
        assert "image/jpeg, image/png" in operation["requestBody"]["description"]
        for status, response in operation["responses"].items():
            if status != "200":
                content = response["content"]["application/json"]
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}
                assert content["example"]["code"]
        assert "Retry-After" in operation["responses"]["503"]["headers"]
    assert set(schema["paths"]) == {"/predict", "/explain", "/explain/json", "/models", "/metrics", "/health"}
    assert [*schema["paths"]["/explain"]["post"]["responses"]["200"]["content"]] == ["image/png"]
    assert [*schema["paths"]["/explain/json"]["post"]["responses"]["200"]["content"]] == ["application/json"]
    assert "example" in schema["components"]["schemas"]["ImageAnswer"]


def test_operations_are_named_after_their_functions(server: Running) -> None:
    paths = server.ask("GET", "/openapi.json").json["paths"]
    named = {path: operation["operationId"] for path, methods in paths.items() for operation in methods.values()}
    names = {"/predict": "predict", "/explain": "explain", "/explain/json": "explain_json", "/models": "list_models"}
    assert named == names | {"/metrics": "metrics", "/health": "health"}


def test_a_client_is_generated_without_warnings(server: Running, tmp_path: Path) -> None:
    if GENERATOR is None:
        pytest.skip("needs openapi-python-client on the PATH")
    command = [GENERATOR, "generate", "--url", f"{server.url}/openapi.json", "--meta", "none"]
    command += ["--output-path", str(tmp_path / "client"), "--fail-on-warning"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "client" / "api" / "default" / "predict.py").is_file()


def test_messages_hide_folders_of_the_server() -> None:
    for path in ("/srv/secret place/x.onnx", "/a/b/c.onnx", "C:\\Users\\me\\x.onnx", "/tmp/x.onnx: y"):
        message = without_folders(f"{path} has no label; and/or take 0.5/1")
        assert not any(word in message for word in ("srv", "/b/", "Users", "tmp"))
        assert message.endswith("has no label; and/or take 0.5/1")


def test_serving_imports_no_torch() -> None:
    code = "import sys, uniemox_serve.app; print(sorted({'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"
