"""deploy/nginx-site.conf as a machine's nginx takes it: beside other sites, and with TLS."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.front import (
    NGINX,
    SITE,
    Front,
    Stub,
    needs_nginx,
    nginx,
    render_machine,
    render_site,
)
from tests.support.nodes import free_port

OPENSSL = shutil.which("openssl")
OTHER_SITE = """
upstream node { server 127.0.0.1:9; }
map $uri $client { default other; }
log_format reads '$client';
limit_req_zone $client zone=reads:1m rate=1r/s;
server { listen 127.0.0.1:%d; location / { limit_req zone=reads; proxy_pass http://node; } }
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed one for this machine, as the file says how to make it."""
    if OPENSSL is None:
        pytest.skip("openssl isn't installed: no certificate can be made")
    folder = tmp_path_factory.mktemp("certificate")
    files = ("-keyout", "privkey.pem", "-out", "fullchain.pem")
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(
        [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", *names, *files],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def tls(_tls_front: Front, stub: Stub) -> Front:
    """nginx with TLS in front of the stub, which is as new."""
    return _tls_front


@pytest.fixture(scope="module")
def _tls_front(
    tmp_path_factory: pytest.TempPathFactory,
    certificate: Path,
    _stub_server: tuple[Stub, object],
) -> Iterator[Front]:
    port = _stub_server[0].port
    with nginx(tmp_path_factory.mktemp("tls"), port, certificate=certificate) as front:
        yield front


def test_every_value_to_change_is_at_the_top() -> None:
    top, line, rest = SITE.read_text(encoding="utf-8").partition("Nothing to change from here on")
    assert line
    assert "CHANGE" not in rest
    changed = [line for line in top.splitlines() if line.endswith("# CHANGE")]
    assert len(changed) > 15
    for value in ("127.0.0.1:", "example.com", "/var/", "rate=", "ssl_certificate", "listen "):
        assert value not in rest, value
        assert [line for line in changed if value in line], value


@needs_nginx
class TestSite:
    def test_is_taken_beside_another_that_has_the_same_names(self, tmp_path: Path) -> None:
        assert NGINX
        ports = {"port": free_port(), "plain_port": free_port(), "inner_port": free_port()}
        site = render_site(tmp_path, **ports, node_port=free_port(), certificate=None)
        (tmp_path / "site.conf").write_text(site + OTHER_SITE % free_port())
        conf = tmp_path / "nginx.conf"
        conf.write_text(render_machine(tmp_path))
        done = subprocess.run(
            [NGINX, "-t", "-p", str(tmp_path), "-c", str(conf), "-e", "stderr"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "[warn]" not in done.stderr

    def test_speaks_tls_and_tells_the_node(self, tls: Front, stub: Stub, certificate: Path) -> None:
        url = f"https://127.0.0.1:{tls.port}"
        trusted = str(certificate / "fullchain.pem")
        assert requests.get(f"{url}/tickers", verify=trusted, timeout=10).content == stub.body
        assert requests.post(f"{url}/gossip", data=b"{}", verify=trusted, timeout=10).ok
        assert [seen.headers["x-forwarded-proto"] for seen in stub.seen] == ["https", "https"]

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_offers_http_2(self, tls: Front, certificate: Path, version: ssl.TLSVersion) -> None:
        context = ssl.create_default_context(cafile=str(certificate / "fullchain.pem"))
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection(("127.0.0.1", tls.port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
        ):
            assert client.selected_alpn_protocol() == "h2"

    def test_who_speaks_http_to_the_tls_port_is_told_in_json(self, tls: Front, stub: Stub) -> None:
        answer = tls.get("/tickers")
        assert (answer.status_code, answer.json()["code"]) == (400, "unreadable_request")
        assert stub.seen == []

    def test_who_reads_without_tls_is_sent_on(self, tls: Front, stub: Stub) -> None:
        url = f"http://127.0.0.1:{tls.plain_port}/tickers?symbol=VCB&limit=1"
        answer = requests.get(url, allow_redirects=False, timeout=10)
        assert answer.status_code == 301
        assert answer.headers["Location"] == "https://127.0.0.1/tickers?symbol=VCB&limit=1"

    @pytest.mark.parametrize("path", ["/gossip", "/public/gossip", "/tickers"])
    def test_who_sends_without_tls_is_refused(self, path: str, tls: Front, stub: Stub) -> None:
        url = f"http://127.0.0.1:{tls.plain_port}{path}"
        answer = requests.post(url, json={}, allow_redirects=False, timeout=10)
        assert (answer.status_code, answer.json()["code"]) == (403, "https_only")
        assert stub.seen == []

    def test_a_certificate_can_be_asked_for_without_tls(self, tls: Front) -> None:
        challenge = tls.folder / "acme" / ".well-known" / "acme-challenge" / "abc"
        challenge.parent.mkdir(parents=True)
        challenge.write_text("proof")
        url = f"http://127.0.0.1:{tls.plain_port}/.well-known/acme-challenge/abc"
        assert requests.get(url, timeout=10).text == "proof"
