"""A server in a thread on a free port, over tiny real models, and a plain client."""

import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.persons.graphs import write_zoo
from uniemox.labels import MIKELS
from uniemox.persons.detector import load_detector
from uniemox.predict.network import METADATA_KEY, Network
from uniemox.predict.predictor import Predictor
from uniemox_serve.app import create_app, listen, server_of
from uniemox_serve.config import ServeConfig

SIZE = 32
PERSON = (0.1, 0.2, 0.9, 0.6)
"""Box that the detector finds in every image: y1, x1, y2, x2 as fractions of its size."""


def write_model(path: Path, seed: int = 0, labels: Sequence[str] = MIKELS.labels, **info: object) -> Path:
    """Write a classifier of colours: a 1 x 1 convolution gives maps, their mean gives logits.

    Args:
        path: The ONNX file to write.
        seed: Seed of the weights.
        labels: Its labels.
        info: Changes of its metadata.
    """
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 2, (len(labels), 3, 1, 1)).astype(np.float32)
    input_shape = ["n", 3, SIZE, SIZE]
    nodes = [
        helper.make_node("Conv", ["scene", "weight"], ["fine"]),
        helper.make_node("AveragePool", ["fine"], ["maps"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMean", ["maps"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(labels)]),
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", len(labels), SIZE // 8, SIZE // 8]),
    ]
    # The distance is the sum of the squared logits.
    if "distances" in info:
        nodes.append(helper.make_node("ReduceSumSquare", ["logits"], ["distance"], axes=[1], keepdims=0))
        outputs.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]))
    scene = helper.make_tensor_value_info("scene", TensorProto.FLOAT, input_shape)
    graph = helper.make_graph(nodes, "colours", [scene], outputs, [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    metadata = {
        "labels": list(labels),
        "label_set": "mikels",
        "kind": "evoked",
        "task": "label",
        "size": SIZE,
        "temperature": 1.5,
        "trained_on": "colours",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "conformal_scores": [i / 100 for i in range(100)],
    }
    helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata | info)})
    onnx.save(model, path)
    return path


def predictor_of(
    folder: Path, name: str = "colours", seed: int = 0, *, finder: bool = True, **info: object
) -> Predictor:
    """Return a predictor with a tiny model, and with a detector that finds one person in every image."""
    network = Network.open(write_model(folder / f"{name}.onnx", seed, **info), threads=1)
    detector = load_detector(write_zoo(folder / "finder.onnx", PERSON, 0.95)) if finder else None
    return Predictor(network, detector)


class Gated(Predictor):
    """Slow model that predicts once the test opens its gate."""

    gate: threading.Event
    started: threading.Event

    def predict_each(self, *args: object, **settings: object) -> Iterator:
        self.started.set()
        self.gate.wait(20)
        yield from super().predict_each(*args, **settings)


def gated(predictor: Predictor) -> Gated:
    """Return a predictor with a gate, which is closed."""
    slow = Gated(predictor.network, predictor.finder)
    slow.gate = threading.Event()
    slow.started = threading.Event()
    return slow


@dataclass
class Running:
    """Running server, or a proxy in front of it."""

    port: int
    server: uvicorn.Server
    key: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> "Answer":
        """Send a request on a new connection and return the answer; _ in header names is sent as -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        header_lines = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key and "Authorization" not in header_lines:
            header_lines["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, path, body, header_lines)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def post(self, path: str, *images: bytes, names: Sequence[str] = ()) -> "Answer":
        """Send images as a form."""
        body, kind = form(images, names)
        return self.ask("POST", path, body, Content_Type=kind)


@dataclass
class Answer:
    """Response of the server."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def code(self) -> tuple[int, str]:
        """Return status and code of a refusal."""
        return self.status, self.json["code"]


class Raw:
    """Connection on which anything can be sent."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, *lines: str, body: bytes = b"") -> "Raw":
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1") + body)
        return self

    def read(self) -> bytes:
        """Read until the server closes the connection, or a response is complete."""
        received = b""
        while True:
            try:
                part = self.socket.recv(65536)
            except ConnectionResetError:
                return received
            received += part
            head, _, body = received.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not part or (lengths and len(body) >= int(lengths[0].split(b":")[1])):
                return received

    @property
    def is_closed(self) -> bool:
        """Return True if the server closes the connection within 10 s."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def upload(port: int, size: int | None, body: bytes = b"", kind: str = "image/jpeg") -> Raw:
    """Send the beginning of a request with an image.

    Args:
        port: Port of the server.
        size: Content-Length; None: the body is chunked.
        body: Beginning of the body.
        kind: Content type.
    """
    length = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    return Raw(port).send("POST /predict HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", length, "", body=body)


def cut_off_after_s(raw: Raw, piece: bytes) -> float:
    """Send a piece again and again; return the seconds until the server ends the connection, at most 10."""
    start = time.monotonic()
    while time.monotonic() - start < 10:
        try:
            raw.send(body=piece)
        except (ConnectionResetError, BrokenPipeError):
            break
        time.sleep(0.02)
    return time.monotonic() - start


@contextmanager
def running(
    predictors: Sequence[Predictor], config: ServeConfig | None = None, key: str | None = None
) -> Iterator[Running]:
    """Run a server in a thread; at the end it is stopped as SIGTERM stops it."""
    config = config or ServeConfig()
    listener = listen("127.0.0.1", 0)
    server = server_of(create_app(predictors, config, key=key), config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield Running(listener.getsockname()[1], server, key)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def image(seed: int = 0, width: int = 60, height: int = 44, fmt: str = "JPEG") -> bytes:
    """Draw an image whose colour depends on the seed, with some noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, 3) + rng.integers(-20, 20, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, fmt)
    return buffer.getvalue()


def form(images: Sequence[bytes], names: Sequence[str] = (), field_name: str = "pictures") -> tuple[bytes, str]:
    """Return the body and the content type of a form with files."""
    boundary = b"----uniemox-boundary"
    body = b""
    for i, data in enumerate(images):
        name = names[i] if i < len(names) else f"{i}.jpg"
        head = f'Content-Disposition: form-data; name="{field_name}"; filename="{name}"\r\nContent-Type: image/jpeg\r\n'
        body += b"--" + boundary + b"\r\n" + head.encode() + b"\r\n" + data + b"\r\n"
    return body + b"--" + boundary + b"--\r\n", f"multipart/form-data; boundary={boundary.decode()}"
