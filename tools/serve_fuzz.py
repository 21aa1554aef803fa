"""Send a server mutated images and hostile HTTP: no 500, no crash, and it still answers at the end.

An unforeseen error of an image has a traceback in the server's log, too.

    python -m tools.serve_fuzz --pictures 10000 --hostile 2000 --seed 0

The same seed sends the same bytes. Prints the number of answers with each status; the exit code is 1 if one was 500, or
if the server ended, wrote a traceback, or does not answer any more.
"""

import argparse
import http.client
import random
import resource
import socket
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.images import FILE_STARTS, draw, every_file, png_header, save
from tests.serve.process import started
from tests.serve.serving import form, image
from tools.file_mutations import PIECES, mutate_bytes, random_content
from uniemox.io.weight_names import EMBEDDED
from uniemox_serve.bodies import IMAGE_TYPES

NAMES = ("../../etc/passwd", "..\\..\\boot.ini", "/etc/shadow", "%2e%2e%2f", "a\0b", "x" * 5000, "<script>", "\r\nX: y")
PATHS = ("/../../etc/passwd", "/page/../app.py", "/page/%2e%2e/%2e%2e/", "//", "/%00", "/predict/..;/x", "/\\", "*")
CLIENTS = 4
READ_TIMEOUT_S = 2.0


def mutated(rng: random.Random, originals: list[bytes]) -> tuple[str, bytes, str]:
    """Return a request with a mutated image, alone or with others: path, body, content type."""
    data = mutate_bytes(rng.choice(originals), originals, rng)
    if rng.random() < 0.3:
        data = rng.choice(list(FILE_STARTS.values())) + random_content(rng)
    path = rng.choice(("/predict", "/predict", "/predict", "/predict?coverage=0.9", "/explain"))
    if rng.random() < 0.5:
        return path, data, rng.choice(IMAGE_TYPES)
    # /explain takes one image.
    others = [] if path == "/explain" else [image(rng.randrange(1000))] * rng.randrange(3)
    body, kind = form([data, *others], [rng.choice(NAMES)])
    return path, body, kind


def post(port: int, path: str, body: bytes, kind: str) -> int:
    """Send a request and return the status; 0 if the server closed the connection instead."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, body, {"Content-Type": kind})
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def hostile(rng: random.Random) -> list[bytes]:
    """Return the bytes to send on one connection, piece by piece."""
    body, kind = form([image()], [rng.choice(NAMES)])
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode("latin-1")
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    match rng.randrange(9):
        case 0:
            return [mutate_bytes(request, [request, *PIECES], rng)]
        case 1:
            many = b"a" * rng.choice((10_000, 70_000, 300_000))
            return [b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + many + b"\r\n\r\n"]
        case 2:
            return [b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * rng.choice((200, 50_000)) + b"\r\n"]
        case 3:
            size = rng.choice((b"ffffffffffffffff", b"-1", b"zz", b"5;a=b", b"5\n", b"0x5", b"1e3", b"00000005"))
            return [head + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\n" + body[:5] + b"\r\n0\r\n\r\n"]
        case 4:
            return [f"GET {rng.choice(PATHS)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("latin-1")]
        case 5:
            position = rng.randrange(len(request))
            # The request never ends.
            return [request[:position], request[position : position + 50]]
        case 6:
            return [bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400)))]
        case 7:
            return [head + b"Content-Length: 1" + b"0" * rng.choice((3, 12, 30)) + b"\r\n\r\n" + body]
        case _:
            # Slow loris: the headers never end.
            lines = [f"X-{i}: y\r\n".encode() for i in range(rng.randrange(1, 10))]
            return [b"GET / HTTP/1.1\r\n", *lines]


def send(port: int, pieces: list[bytes]) -> int:
    """Send pieces and return the status of the answer; 0 without one.

    Headers without an end get no answer: only nginx limits their time.
    """
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=READ_TIMEOUT_S + 1) as connection:
            for piece in pieces:
                connection.sendall(piece)
            answer = connection.recv(65536)
    except OSError:
        return 0
    words = answer.split(b" ", 2)
    if len(words) > 1 and words[1].isdigit():
        return int(words[1])
    return 0


def fuzz(images: int, hostiles: int, seed: int, model: str | None) -> int:
    """Send all requests, print the answers, and return the exit code."""
    originals = [*every_file(seed).values(), save(draw(640, 480), "JPEG"), png_header(40_000, 40_000)]
    start = time.monotonic()
    statuses = Counter[int]()
    with tempfile.TemporaryDirectory(prefix="uniemox-fuzz-") as folder:
        with started(model, Path(folder), read_timeout_s=READ_TIMEOUT_S, timeout_s=60) as (process, port):

            def send_request(number: int) -> tuple[str, int]:
                rng = random.Random(f"{seed}-{number}")
                if number < images:
                    return "picture", post(port, *mutated(rng, originals))
                return "hostile", send(port, hostile(rng))

            with ThreadPoolExecutor(CLIENTS) as pool:
                results = Counter(pool.map(send_request, range(images + hostiles)))
            last_status = post(port, "/predict", image(), "image/jpeg")
            process.terminate()
            exit_code = process.wait(90)
        log = (Path(folder) / "log.txt").read_text(errors="replace")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    for kind, count in (("picture", images), ("hostile", hostiles)):
        statuses = Counter(
            {status: number_of_answers for (name, status), number_of_answers in results.items() if name == kind}
        )
        counts_text = ", ".join(
            f"{status or 'no answer'}: {number_of_answers:,}" for status, number_of_answers in sorted(statuses.items())
        )
        print(f"{count:,} of kind {kind}: {counts_text}")
    bad = sum(
        number_of_answers for (_, status), number_of_answers in results.items() if status >= 500 and status != 503
    )
    closed = results["picture", 0]
    print(
        f"seed {seed}, {time.monotonic() - start:.0f} s: {bad} with 5xx, {closed} images without an answer, "
        f"{log.count('Traceback')} tracebacks; at the end /predict answered {last_status}, the server ended with "
        f"{exit_code}; memory at its peak {peak:.0f} MiB"
    )
    if "Traceback" in log:
        print(log[log.index("Traceback") :][:3000])
    if bad or closed or "Traceback" in log or last_status != 200 or exit_code != 0:
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--hostile", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a model; without it the embedded one, or a tiny one where there is none")
    args = parser.parse_args()
    model = args.model or ("embedded" if (EMBEDDED / "scene.onnx").is_file() else None)
    return fuzz(args.pictures, args.hostile, args.seed, model)


if __name__ == "__main__":
    sys.exit(main())
