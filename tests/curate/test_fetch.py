"""One careful GET, against a server that misbehaves."""

import ipaddress
import math
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.curate.servers import JPEG, local, misbehaving, serving
from uniemox.errors import ConfigError
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.fetch import FetchError, get, is_public
from uniemox_curate.collect.schedule import Download, fetch_all


@pytest.mark.parametrize(
    ("path", "reason", "may_pass"),
    [
        ("/promised", "1,000,000,000 bytes, more than the 51,200", False),
        ("/endless", "more than the 51,200 bytes", False),
        ("/gzip", "'gzip'", False),
        ("/missing", "answered 404", False),
        ("/loop", "more than 5 redirects", False),
        ("/busy", "answered 429", True),
        ("/gone", "no connection, or cut off", True),
        ("/cut", "cut off", True),
        ("/to/file:///etc/passwd", "not http or https but 'file'", False),
        ("/to/http://169.254.169.254/latest", "not on the public internet", False),
        ("/to/http://localhost:1/", "not on the public internet", False),
        ("/to/http://[::1]:1/", "not on the public internet", False),
        ("/to/http://[::ffff:10.0.0.1]/", "not on the public internet", False),
        ("/to/http://[fec0::1]/", "not on the public internet", False),
        ("/to/http://[::10.0.0.1]/", "not on the public internet", False),
        ("/to/http://[64:ff9b:1::a00:1]/", "not on the public internet", False),
        ("/to/http://0x7f000001/", "not on the public internet", False),
        ("/to/http://me:secret@example.org/", "name and password", False),
    ],
)
def test_failed_downloads_give_the_reason(path: str, reason: str, may_pass: bool) -> None:
    with serving(misbehaving()) as server:
        result = get(server.address + path, local(server, max_kb=50))
    assert isinstance(result, FetchError)
    assert reason in result.reason
    assert result.may_pass == may_pass
    assert result.wait_s == (7.0 if path == "/busy" else None)


@pytest.mark.parametrize("path", ["/drip", "/drip-header"])
def test_slow_servers_time_out(path: str) -> None:
    with serving(misbehaving()) as server:
        began = time.monotonic()
        result = get(server.address + path, local(server, timeout_s=0.4))
        assert time.monotonic() - began < 3  # the server would take five seconds
    assert result == FetchError("not done within 0.4 s", may_pass=True)


def test_downloads_and_redirects() -> None:
    with serving(misbehaving()) as server:
        config = local(server, contact="me@example.org")
        assert get(f"{server.address}/ok.jpg", config) == JPEG
        assert get(f"{server.address}/moved", config) == JPEG
        result = get(f"{server.address}/a b/ä?q=é", config)
        assert isinstance(result, bytes)
        assert server.paths[-1] == "/a%20b/%C3%A4?q=%C3%A9"
        assert "me@example.org" in server.headers[-1]["User-Agent"]


@pytest.mark.parametrize(
    "address", ["", "nonsense", "ftp://example.org/", "http://", "http://a:b:c/", "http://[::1", "http://exa mple/"]
)
def test_invalid_addresses_fail(address: str) -> None:
    assert isinstance(get(address, CollectConfig(timeout_s=1)), FetchError)


def test_local_addresses_are_not_fetched() -> None:
    with serving(misbehaving()) as server:
        result = get(f"{server.address}/ok.jpg", CollectConfig())
        assert result == FetchError("127.0.0.1 is 127.0.0.1, which is not on the public internet")
        assert server.paths == []


PRIVATE_V4 = ("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0")
PUBLIC_V4 = ("8.8.8.8", "1.1.1.1", "93.184.215.14")


def inside_v6(ip: str) -> dict[str, str]:
    """An IPv4 address in each form that IPv6 has for it, by that form's name."""
    bits = int(ipaddress.ip_address(ip))
    forms = {
        "mapped": 0xFFFF << 32 | bits,
        "compatible": bits,
        "translated": 0xFFFF << 48 | bits,
        "6to4": 0x2002 << 112 | bits << 80 | 1,
        "NAT64": 0x64FF9B << 96 | bits,
        "local NAT64": 0x64FF9B0001 << 80 | bits,
    }
    return {name: str(ipaddress.IPv6Address(value)) for name, value in forms.items()}


@pytest.mark.parametrize(
    ("ip", "forms"), [*((ip, set()) for ip in PRIVATE_V4), *((ip, {"mapped", "6to4", "NAT64"}) for ip in PUBLIC_V4)]
)
def test_addresses_inside_ipv6_ones_are_as_public_as_alone(ip: str, forms: set[str]) -> None:
    assert {form for form, address in inside_v6(ip).items() if is_public(address)} == forms


RESERVED = (
    *("::", "::1", "::2", "fec0::1", "feff:ffff::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fdff::1", "ff02::1"),
    *("64:ff9b:1::1", "64:ff9b:1:ffff::1", "64:ff9b:0:1::1", "100::1", "2001:db8::1", "2001::1", "3fff::1", "4000::1"),
    *("5f00::1", "8000::1", "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1"),
)


WELL_KNOWN = ("2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001::1", "2400:cb00::1")


@pytest.mark.parametrize("ip", [*PRIVATE_V4, *RESERVED, *PUBLIC_V4, *WELL_KNOWN])
def test_private_and_reserved_addresses_are_not_public(ip: str) -> None:
    assert is_public(ip) == (ip in PUBLIC_V4 + WELL_KNOWN)


def test_hosts_are_retried_independently() -> None:
    tries: list[tuple[str, float]] = []

    def work(job: Download) -> str | FetchError:
        tries.append((job.key, time.monotonic()))
        if job.key == "b1" and len([name for name, _ in tries if name == "b1"]) < 3:
            return FetchError("busy", may_pass=True)
        if job.key.startswith("c"):
            return FetchError("dead", may_pass=True)
        return job.key.upper()

    names = ("a1", "a2", "b1", *(f"c{i}" for i in range(9)))
    jobs = [Download(f"http://{name[0]}.example/{name}", name) for name in names]
    config = CollectConfig(rate=50, tries=3, first_wait_s=0.01)
    start = time.monotonic()
    results = {job.key: result for job, result in fetch_all(jobs, work, config)}
    assert results["a1"] == "A1"
    assert results["b1"] == "B1"
    assert [name for name, _ in tries].count("b1") == 3
    assert {job for job, name in results.items() if isinstance(name, FetchError)} == {f"c{i}" for i in range(9)}
    assert len([name for name, _ in tries if name.startswith("c")]) < 9 * 3  # given up after five lost addresses
    _, second = (at for job, at in tries if job in ("a1", "a2"))
    assert second - start >= 1 / 50  # the first is due at once; on a busy machine it may begin just before the second


def test_a_failure_does_not_shorten_the_pause_between_requests() -> None:
    """Two requests a second: the next try is due after half a second, not after its own pause."""
    starts: list[float] = []

    def work(job: Download) -> str | FetchError:
        starts.append(time.monotonic())
        return FetchError("busy", may_pass=True) if len(starts) == 1 else "done"

    config = CollectConfig(rate=2, tries=2, first_wait_s=0.01)
    assert [result for _, result in fetch_all([Download("http://a.example/")], work, config)] == ["done"]
    # The second is due half a second after the first was handed to a thread, which may begin late.
    assert starts[1] - starts[0] > 0.4


def test_redirected_jobs_queue_at_the_new_host_once() -> None:
    """a0 ... a3 go on at b, which is asked for b0 and tries it again; c goes from host to host and back."""
    began: dict[str, list[str]] = {}
    moves = {"c": "d", "d": "a"}

    def work(job: Download) -> str | FetchError | Download:
        host = job.address[7]
        began.setdefault(host, []).append(job.key)
        if job.key == "b0" and began["b"].count("b0") < 2:
            return FetchError("busy", may_pass=True)
        if job.key.startswith("a") and host == "a":
            return Download("http://b.example/", job.key)
        if job.key == "c" and host in moves:
            return Download(f"http://{moves[host]}.example/", job.key)
        return job.address[7]

    host_by_key = {**{f"a{i}": "a" for i in range(4)}, "b0": "b", "c": "c"}
    config = CollectConfig(rate=1000, tries=3, first_wait_s=0.01)
    jobs = [Download(f"http://{host}.example/", key) for key, host in host_by_key.items()]
    ended = [(job.key, host) for job, host in fetch_all(jobs, work, config)]
    assert sorted(ended) == [("a0", "b"), ("a1", "b"), ("a2", "b"), ("a3", "b"), ("b0", "b"), ("c", "a")]
    assert began["b"][0] == "b0"
    assert sorted(began["b"]) == ["a0", "a1", "a2", "a3", "b0", "b0"]


@pytest.mark.parametrize("wait_s", [86_400.0, math.inf])
def test_a_redirect_to_a_host_that_was_given_up_fails_at_once(wait_s: float) -> None:
    """Its pause of a day is not waited for."""

    def work(job: Download) -> FetchError | Download:
        if job.address == "http://b.example/":
            return FetchError("busy", may_pass=True, wait_s=wait_s)
        time.sleep(0.1)
        return Download("http://b.example/", job.key)

    jobs = [Download("http://b.example/", "b"), Download("http://a.example/", "a")]
    results = {job.key: result for job, result in fetch_all(jobs, work, CollectConfig(rate=1000))}
    assert {key: error.reason for key, error in results.items()} == {"a": "busy", "b": "busy"}


def test_local_files_are_read_without_pauses() -> None:
    """A hundred seconds between two requests to one host would be long."""
    jobs = [Download(f"file:///photos/{i}.jpg", i) for i in range(4)]
    assert len(list(fetch_all(jobs, lambda job: job.key, CollectConfig(rate=0.01)))) == 4


def test_stopping_early_starts_no_further_job() -> None:
    done: list[str] = []
    jobs = [Download(f"http://a{i}.example/") for i in range(50)]
    running = fetch_all(jobs, lambda job: done.append(job.address), CollectConfig(workers=1))
    next(running)
    running.close()
    assert len(done) < 50


@pytest.mark.parametrize("settings", [{"max_kb": 0}, {"timeout_s": 0}, {"contact": "a\nb"}, {"rate": 0}])
def test_invalid_limits_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        CollectConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*make.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    with serving(misbehaving()) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        result = get(f"https://{server.host}/ok.jpg", local(server))
    assert isinstance(result, FetchError)
    assert "certificate verify failed" in result.reason
    assert result.may_pass  # with the right clock, or another certificate
