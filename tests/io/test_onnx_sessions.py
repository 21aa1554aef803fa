"""Sessions of onnxruntime in forked processes."""

import subprocess
import sys

import pytest

FORK = """
import gc, os, time
from uniemox.io.onnx_sessions import open_session
from uniemox.predict.opening import embedded_file
class Cycle: pass
dropped = Cycle()
dropped.itself, dropped.session = dropped, open_session(embedded_file("small.onnx"), threads=2)
gc.disable()
del dropped
child = os.fork()
if child == 0:
    gc.collect()
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_does_not_wait_for_the_threads_of_a_dropped_session() -> None:
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60)
