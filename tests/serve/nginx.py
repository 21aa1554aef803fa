"""nginx with the configuration in docs/serve.md, on a free port."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import wait_until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
PAGE = Path(__file__).parents[2] / "docs/serve.md"
PREFIX = "/emotions"
FRAME = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {documented}
}}
"""


def documented_config(changes: dict[str, str]) -> str:
    """Return the configuration in docs/serve.md with changed texts; each must be in it exactly once."""
    [config] = re.findall(r"```nginx\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    for old, new in changes.items():
        assert config.count(old) == 1, old
        config = config.replace(old, new)
    return config


@contextmanager
def nginx_before(upstream_port: int, folder: Path, changes: dict[str, str] | None = None) -> Iterator[int]:
    """Run nginx in front of a server while the context lasts; yield its port.

    Args:
        upstream_port: The port of the server.
        folder: An empty folder.
        changes: Texts of the configuration by the texts that they replace, besides addresses and certificates.
    """
    if NGINX is None:
        pytest.skip("needs nginx on the PATH: apt-get install nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    addresses = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "ssl_certificate /etc/ssl/certs/example.org.pem;": "",
        "ssl_certificate_key /etc/ssl/private/example.org.pem;": "",
        "127.0.0.1:8000": f"127.0.0.1:{upstream_port}",
    }
    documented = documented_config(addresses | (changes or {}))
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder, documented=documented))
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with (folder / "log.txt").open("w") as log, subprocess.Popen(command, stderr=log) as process:

        def is_up() -> bool:
            assert process.poll() is None, (folder / "log.txt").read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        try:
            wait_until(is_up, seconds=20)
            yield port
        finally:
            process.terminate()
