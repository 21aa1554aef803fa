"""Pre-train on two nodes of two processes on this machine, and kill one node in the middle.

    python -m benchmarks.two_nodes          the node comes back: the same bytes as an undisturbed run
    python -m benchmarks.two_nodes --alone  the other continues alone: the losses of an undisturbed run, within 1e-5

torchrun starts the nodes, over gloo on 127.0.0.1; steps wait for each other, so that the kill comes in time.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path

Node = subprocess.Popen[bytes]
STEPS = 24
KILL_AFTER = 6
PROCESSES = 2
LOSS = "scene_reconstruction"
MAX_WAIT_S = 300
TOLERANCE = 1e-5
# Without this variable, torch 2.15 hides the address of the first node from a new one.
NEW_NODES = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
# The other node notices a missing one by its heartbeats, after 15 s.
BACK_AFTER_S = 30
WORDS = (
    *("pretrain", "--preset", "demo", "--data", "synthetic:64", "--encoder.patch-size", "8", "--view.size", "16"),
    *("--encoder.embed-dim", "32", "--encoder.depth", "2", "--encoder.num-heads", "2", "--teacher.view", "whole"),
    *("--model.decoder.width", "16", "--model.decoder.depth", "1", "--model.decoder.heads", "2", "--batch-size", "8"),
    *("--model.losses.contrastive-feature-alignment", "0", "--model.losses.semantic-visual-alignment", "0"),
    *("--save.every-steps", "2", "--save.keep", "3", "--hardware.device", "cpu", "--hardware.precision", "float32"),
    *("--hardware.workers", "0", "--hardware.threads", "1", "--schedule.epochs", str(STEPS / 8)),
)


def main() -> None:
    """Execute an undisturbed and a disturbed run, and compare them."""
    alone = "--alone" in sys.argv
    with tempfile.TemporaryDirectory() as folder, ExitStack() as cleanup:
        undisturbed = Path(folder) / "calm"
        disturbed = Path(folder) / "disturbed"
        start = time.perf_counter()
        wait(*start_nodes(cleanup, undisturbed, "2", free_port()))
        print(f"undisturbed: {time.perf_counter() - start:.0f} s")
        port = free_port()
        first, second = start_nodes(cleanup, disturbed, "1:2" if alone else "2", port)
        wait_until((disturbed / "checkpoints" / f"step-{KILL_AFTER:08d}").is_dir, first, disturbed)
        kill_node(second)
        done = len((disturbed / "metrics.jsonl").read_text().splitlines())
        print(f"killed a node after step {done} of {STEPS}")
        if alone:
            wait(first)
        else:
            time.sleep(BACK_AFTER_S)
            wait(first, start_node(cleanup, disturbed, "2", port))
        compare(undisturbed, disturbed, same_bytes=not alone)


def free_port() -> int:
    """Return a free port, at which the nodes of a run meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_nodes(cleanup: ExitStack, out: Path, count: str, port: int) -> tuple[Node, Node]:
    """Start two nodes; they meet at the first one, which is not killed."""
    first = start_node(cleanup, out, count, port)

    def is_open() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    wait_until(is_open, first, out)
    return first, start_node(cleanup, out, count, port)


def start_node(cleanup: ExitStack, out: Path, count: str, port: int) -> Node:
    """Start a node as on one machine of a cluster. It is killed at the end if it still runs."""
    line = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", count, "--nproc-per-node", str(PROCESSES)),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", out.name),
        *("--max-restarts", "5", "-m", "uniemox", *WORDS, "--out", str(out)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **NEW_NODES}
    with out.with_suffix(".log").open("ab") as log:
        node = subprocess.Popen(line, env=environment, stdout=log, stderr=log)
    cleanup.callback(kill_node, node)
    return node


def wait_until(is_true: Callable[[], bool], node: Node, out: Path) -> None:
    """Wait until a condition is true; end the program with a node's log if the node ends before."""
    end = time.monotonic() + MAX_WAIT_S
    while not is_true():
        if node.poll() is not None or time.monotonic() > end:
            sys.exit(out.with_suffix(".log").read_text()[-2000:])
        time.sleep(0.05)


def kill_node(node: Node) -> None:
    """Kill all processes of a node at once, as when a machine loses its power."""
    if node.poll() is None:
        children = subprocess.run(["pgrep", "--parent", str(node.pid)], capture_output=True, text=True, check=False)
        for pid in (node.pid, *map(int, children.stdout.split())):
            os.kill(pid, signal.SIGKILL)
        node.wait()


def wait(*nodes: Node) -> None:
    """Wait until all nodes have ended; end the program if one failed."""
    for node in nodes:
        if code := node.wait(MAX_WAIT_S):
            sys.exit(f"a node ended with {code}")


def compare(undisturbed: Path, disturbed: Path, *, same_bytes: bool) -> None:
    """Compare the results of two runs, and end with 1 if they differ."""
    if same_bytes:
        a, b = (sha256((run / "model.safetensors").read_bytes()).hexdigest()[:16] for run in (undisturbed, disturbed))
        print(f"weights {a} and {b}: {'the same' if a == b else 'NOT THE SAME'}")
        sys.exit(a != b)
    curves = [[json.loads(line)[LOSS] for line in (run / "metrics.jsonl").open()] for run in (undisturbed, disturbed)]
    furthest = max(abs(a / b - 1) for a, b in zip(*curves, strict=True))
    print(f"losses of {len(curves[0])} steps differ by {furthest:.1e} at most; {TOLERANCE:g} is allowed")
    sys.exit(furthest > TOLERANCE)


if __name__ == "__main__":
    main()
