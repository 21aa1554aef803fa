"""Options that the command refuses before it serves, with its messages."""

import socket
from pathlib import Path

import pytest

from tests.serve.serving import write_model
from uniemox.cli.program import add_foreign_commands, app
from uniemox.cli.settings import read_key
from uniemox.errors import CheckpointError, ConfigError
from uniemox_serve.app import listen
from uniemox_serve.cli import serve


def test_three_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 models given; the server takes up to 2"):
        serve(model=["a", "b", "c"])


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.onnx"):
        serve(model=[str(tmp_path / "none.onnx")])


def test_limits_are_checked_before_models_are_loaded(tmp_path: Path) -> None:
    add_foreign_commands("serve")
    with pytest.raises(ConfigError, match="queue must be at least 1"):
        app(["serve", "--model", str(write_model(tmp_path / "m.onnx")), "--queue", "0"])


@pytest.mark.parametrize(
    "value", [None, "", "short", "with a blank in the middle", "\u00e9" * 20, "tab\tin the key it is"]
)
def test_missing_and_weak_keys_are_refused(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("UNIEMOX_TEST_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("UNIEMOX_TEST_KEY", value)
    with pytest.raises(ConfigError, match="UNIEMOX_TEST_KEY holds no key") as refused:
        serve(key_from="UNIEMOX_TEST_KEY")
    assert not value or value not in str(refused.value)


def test_a_key_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIEMOX_TEST_KEY", "0123456789abcdef")
    assert read_key("UNIEMOX_TEST_KEY") == "0123456789abcdef"
    assert read_key(None) is None


@pytest.mark.parametrize("port", [-1, 70_000])
def test_ports_out_of_range_are_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="choose another --port"):
        listen("127.0.0.1", port)


def test_the_error_for_a_taken_port_has_a_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ConfigError, match="choose another --port"):
        listen("127.0.0.1", other.getsockname()[1])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_two_colons_listen_on_all_addresses_those_of_ipv4_too() -> None:
    with listen("::", 0) as server, socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5):
        pass


@pytest.mark.parametrize("host", ["a\0b", "\udcff"])
def test_a_host_that_can_be_no_name_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="can't listen"):
        listen(host, 0)
