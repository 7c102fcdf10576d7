"""Who may say that a request came by HTTPS: the trusted proxies, under the real gunicorn."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from proxy_site.local.processes import Processes
from tests.support.environment import clean
from tests.support.front import _From
from tests.support.nodes import ROOT, free_port, run, wait_for

PROXY, OTHER = "127.0.0.3", "127.0.0.2"  # addresses of this machine's own, on Linux
BY_HTTPS = {"X-Forwarded-Proto": "https"}

Get = Callable[..., requests.Response]


@contextmanager
def production(folder: Path, **settings: str) -> Iterator[Get]:
    """A node as in production; yields what gets one of its pages. It needs neither Redis nor
    tables for the pages that anybody sees."""
    port = free_port()
    environment = clean(
        ENVIRONMENT="production",
        ALLOWED_HOSTS="127.0.0.1",
        SECRET_KEY="deploy-test-key-0123456789-abcdefghijklmnopqrstuvwxyz",
        PRIMARY_TOKEN="https-primary-token",
        SECONDARY_TOKEN="https-secondary-token",
        INTERNAL_PEER_URLS="",
        PUBLIC_PEER_URLS="",
        REDIS_URL="redis://127.0.0.1:9/0",
        DATA_DIR=str(folder),
        PORT=str(port),
        **settings,
    )
    run(environment, "manage.py", "collectstatic", "--noinput", "--verbosity=0")

    def get(path: str, *, source: str = "127.0.0.1", **headers: str) -> requests.Response:
        with requests.Session() as session:
            session.mount("http://", _From(source))
            url = f"http://127.0.0.1:{port}{path}"
            return session.get(url, headers=headers, allow_redirects=False, timeout=10)

    def listens() -> bool:
        try:
            return get("/nothing").status_code == 404
        except requests.ConnectionError:
            return False

    with Processes() as processes:
        command = ("-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1")
        log = folder / "node.log"
        processes.start("the API", sys.executable, *command, env=environment, cwd=ROOT, log=log)
        wait_for(listens, "the API to listen")
        yield get


@pytest.fixture(scope="module")
def get(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Get]:
    folder = tmp_path_factory.mktemp("https")
    settings = {"TRUSTED_PROXIES": f"{PROXY},10.0.0.0/8", "ADMIN_PATH": "office/"}
    with production(folder, **settings) as get:
        yield get


def is_redirected(answer: requests.Response) -> bool:
    location = answer.headers.get("Location", "")
    return answer.status_code == 301 and location.startswith("https://127.0.0.1")


def test_a_trusted_proxy_is_believed_to_speak_https(get: Get) -> None:
    answer = get("/office/", source=PROXY, **BY_HTTPS)
    assert (answer.status_code, answer.headers["Location"]) == (302, "/office/login/?next=/office/")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_cookies_are_for_https_only(get: Get) -> None:
    answer = get("/office/login/", source=PROXY, **BY_HTTPS)
    assert answer.status_code == 200
    assert [cookie.secure for cookie in answer.cookies] == [True]


@pytest.mark.parametrize("source", [OTHER, "127.0.0.1"])
def test_nobody_else_is_believed_to_speak_https(get: Get, source: str) -> None:
    answer = get("/office/", source=source, **BY_HTTPS)
    assert is_redirected(answer)
    assert "Strict-Transport-Security" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [{}, {"X-Forwarded-Proto": "http"}, {"X-Forwarded-Ssl": "on"}, {"X-Forwarded-Protocol": "ssl"}],
)
def test_a_proxy_is_believed_by_one_header_only(get: Get, headers: dict[str, str]) -> None:
    """What a proxy doesn't set itself, it passes on from its client."""
    assert is_redirected(get("/office/", source=PROXY, **headers))


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "PATH_INFO"])
def test_no_header_names_another_path(get: Get, name: str) -> None:
    answer = get("/nothing", source=PROXY, **BY_HTTPS, **{name: "/nothing"})
    assert answer.json() == {
        "detail": "There is nothing at /nothing.",
        "code": "not_found",
    }
    answer = get("/nothing/office/", source=PROXY, **BY_HTTPS, **{name: "/nothing"})
    assert answer.status_code == 404


def test_only_the_admin_is_redirected_where_it_is(get: Get) -> None:
    """A redirected POST would already have shown its token."""
    for path in ("/", "/health", "/tickers/group", "/gossip", "/admin/"):
        assert not get(path).is_redirect
    assert get("/admin/", source=PROXY, **BY_HTTPS).status_code == 404


def test_without_trusted_proxies_nobody_is_believed_to_speak_https(tmp_path: Path) -> None:
    with production(tmp_path) as get:
        assert is_redirected(get("/admin/", **BY_HTTPS))
