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
from uniemox.predict.network import KEY, Network
from uniemox.predict.predictor import Predictor
from uniemox.serve.app import create_app, listen, server_of
from uniemox.serve.config import ServeConfig

SIZE = 32
PERSON = (0.1, 0.2, 0.9, 0.6)
"""Where the finder sees somebody in every image: y1, x1, y2, x2 in parts of its size."""


def write_model(path: Path, seed: int = 0, labels: Sequence[str] = MIKELS.labels, **info: object) -> Path:
    """A classifier of colours: a 1 x 1 convolution as maps, their mean as logits.  info: changes of its metadata."""
    draw = np.random.default_rng(seed)
    weight = draw.normal(0, 2, (len(labels), 3, 1, 1)).astype(np.float32)
    sides = ["n", 3, SIZE, SIZE]
    nodes = [
        helper.make_node("Conv", ["scene", "weight"], ["fine"]),
        helper.make_node("AveragePool", ["fine"], ["maps"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("ReduceMean", ["maps"], ["logits"], axes=[2, 3], keepdims=0),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(labels)]),
        helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", len(labels), SIZE // 8, SIZE // 8]),
    ]
    if "distances" in info:  # the sum of the squared logits
        nodes.append(helper.make_node("ReduceSumSquare", ["logits"], ["distance"], axes=[1], keepdims=0))
        outputs.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]))
    scene = helper.make_tensor_value_info("scene", TensorProto.FLOAT, sides)
    graph = helper.make_graph(nodes, "colours", [scene], outputs, [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    known = {"labels": list(labels), "label_set": "mikels", "kind": "evoked", "task": "label", "size": SIZE}
    known |= {"temperature": 1.5, "trained_on": "colours", "mean": [0.5] * 3, "std": [0.25] * 3}
    known |= {"conformal_scores": [i / 100 for i in range(100)]}
    helper.set_model_props(model, {KEY: json.dumps(known | info)})
    onnx.save(model, path)
    return path


def predictor_of(
    folder: Path, name: str = "colours", seed: int = 0, *, finder: bool = True, **info: object
) -> Predictor:
    """A predictor over a tiny model, with a finder that sees one person in every image."""
    network = Network.open(write_model(folder / f"{name}.onnx", seed, **info), threads=1)
    if finder:
        detector = load_detector(write_zoo(folder / "finder.onnx", PERSON, 0.95))
    else:
        detector = None
    return Predictor(network, detector)


class Gated(Predictor):
    """Answers once the gate is open: a slow model whose slowness the test holds in its hand."""

    gate: threading.Event
    started: threading.Event

    def predict_each(self, *args: object, **settings: object) -> Iterator:
        self.started.set()
        self.gate.wait(20)
        yield from super().predict_each(*args, **settings)


def gated(predictor: Predictor) -> Gated:
    """The same predictor behind a gate, closed."""
    slow = Gated(predictor.network, predictor.finder)
    slow.gate = threading.Event()
    slow.started = threading.Event()
    return slow


@dataclass
class Running:
    """A server that runs."""

    port: int
    server: uvicorn.Server
    key: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> "Answer":
        """One request on a connection of its own; _ in header names is -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def post(self, path: str, *images: bytes, names: Sequence[str] = ()) -> "Answer":
        """Images as a form."""
        body, kind = form(images, names)
        return self.ask("POST", path, body, Content_Type=kind)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)

    @property
    def code(self) -> tuple[int, str]:
        """Status and code of a refusal."""
        return self.status, self.json["code"]


class Raw:
    """A connection on which anything can be sent."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, *lines: str, body: bytes = b"") -> "Raw":
        self.socket.sendall("".join(f"{line}\r\n" for line in lines).encode("latin-1") + body)
        return self

    def read(self) -> bytes:
        """Until the server closes, or an answer is whole."""
        found = b""
        while True:
            try:
                part = self.socket.recv(65536)
            except ConnectionResetError:
                return found
            found += part
            head, _, body = found.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if not part or (length and len(body) >= int(length[0].split(b":")[1])):
                return found

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it; waits for that up to 10 s."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def upload(port: int, size: int | None, body: bytes = b"", kind: str = "image/jpeg") -> Raw:
    """The beginning of a request that sends an image.  size: None: the body is chunked."""
    length = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    return Raw(port).send("POST /predict HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", length, "", body=body)


def cut_off_after_s(raw: Raw, piece: bytes) -> float:
    """How long the server bears it that a piece is sent again and again; 10 at the most."""
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
    """The server in a thread, stopped at the end as SIGTERM stops it."""
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
    """An image of a colour of its own, with some noise."""
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, 3) + draw.integers(-20, 20, (height, width, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, fmt)
    return buffer.getvalue()


def form(images: Sequence[bytes], names: Sequence[str] = (), field_name: str = "pictures") -> tuple[bytes, str]:
    """Files as multipart/form-data: the body, and its content type."""
    boundary = b"----uniemox-boundary"
    body = b""
    for i, data in enumerate(images):
        name = names[i] if i < len(names) else f"{i}.jpg"
        head = f'Content-Disposition: form-data; name="{field_name}"; filename="{name}"\r\nContent-Type: image/jpeg\r\n'
        body += b"--" + boundary + b"\r\n" + head.encode() + b"\r\n" + data + b"\r\n"
    return body + b"--" + boundary + b"--\r\n", f"multipart/form-data; boundary={boundary.decode()}"
