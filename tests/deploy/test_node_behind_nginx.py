"""A real node behind deploy/nginx-site.conf: the same answers, the true client, and what goes on
without it."""

import contextlib
import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy_site.local import embedded_redis
from proxy_site.local.processes import Processes
from tests.support.environment import clean
from tests.support.front import Front, needs_nginx, nginx
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, Node, answers, free_port, run, wait_for

pytestmark = needs_nginx

NOW = "2025-08-15T11:00:00+07:00"
CLIENT = "127.0.0.41"


@dataclass
class Site:
    node: Node
    front: Front
    api: Processes

    def actors(self) -> dict[str, tuple[int, int]]:
        """address → (successful, failed) updates, from the reputation database."""
        file = Path(self.node.environment["DATA_DIR"]) / "reputation.sqlite3"
        with contextlib.closing(sqlite3.connect(file)) as database:
            rows = database.execute(
                "SELECT address, successful_updates, failed_updates FROM reputation_actor"
            )
            return {address: (good, bad) for address, good, bad in rows}


def a_bar(day: int, volume: int = 1_000) -> dict[str, Any]:
    prices = {"open": 64_300, "high": 64_400, "low": 64_200, "close": 64_300}
    return {"symbol": "VCB", "time": f"2025-08-{day}T00:00:00Z", **prices, "volume": volume}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A node's API behind nginx, with two bars that a peer sent it."""
    folder = tmp_path_factory.mktemp("site")
    data, port = folder / "data", free_port()
    environment = clean(
        PORT=str(port),
        DATA_DIR=str(data),
        PRIMARY_TOKEN=PRIMARY,
        SECONDARY_TOKEN=SECONDARY,
        DEBUG_SYSTEM_TIME=NOW,
        TRUSTED_PROXIES="127.0.0.1",
    )
    node = Node("node", port, environment, folder)
    run(environment, "manage.py", "migrate", "--verbosity=0")
    try:
        with Processes() as api, nginx(folder / "front", port) as front:
            api.start(
                "API",
                sys.executable,
                *("-m", "gunicorn", "-c", "gunicorn.conf.py", "--workers", "1"),
                env=environment,
                cwd=ROOT,
                log=folder / "node.log",
            )
            wait_for(lambda: answers(node), "the node to answer", node)
            bars = [a_bar(14), a_bar(15)]
            assert node.post("/gossip", bars, Authorization=f"Bearer {PRIMARY}").ok
            yield Site(node, front, api)
    finally:
        node.session.close()
        embedded_redis.stop(data)


class TestNode:
    """The last test stops the node's API."""

    @pytest.mark.parametrize(
        "path",
        [
            "/tickers",
            "/tickers?limit=1&all=true&_=1",
            "/tickers?symbol=vcb&symbol=FPT&start_date=2025-08-15",
            "/tickers?authority=trusted&end_date=2025-08-14",
            "/tickers?limit=none",
            "/tickers/group",
            "/tickers/changes?since=nowhere",
        ],
    )
    @pytest.mark.parametrize("encoding", ["identity", "gzip, br", "gzip, deflate, br, zstd"])
    def test_answers_are_the_nodes_own(self, path: str, encoding: str, site: Site) -> None:
        own = site.node.get(path, headers={"Accept-Encoding": encoding})
        for _ in range(2):
            answer = site.front.get(path, Accept_Encoding=encoding)
            assert (answer.status_code, answer.content) == (own.status_code, own.content)
            for name in ("ETag", "Cache-Control", "Content-Type", "Content-Encoding", "Vary"):
                assert answer.headers.get(name) == own.headers.get(name), name

    def test_304_and_head_come_through_the_cache(self, site: Site) -> None:
        answer = site.front.get("/tickers")
        unchanged = site.front.get("/tickers", If_None_Match=answer.headers["ETag"])
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert int(unchanged.headers["X-Data-Age"]) >= 0
        head = site.front.request("HEAD", "/tickers")
        assert head.content == b""
        assert head.headers["Content-Length"] == str(len(answer.content))

    def test_a_merge_shows_within_a_second(self, site: Site) -> None:
        path = "/tickers?symbol=VCB&limit=1"
        site.front.get(path)
        sent = a_bar(15, volume=5_000)
        posted = site.front.request(
            "POST",
            "/gossip",
            data=json.dumps(sent),
            Content_Type="application/json",
            Authorization=f"Bearer {PRIMARY}",
        )
        assert posted.status_code == 200
        merged = time.monotonic()
        asked = time.monotonic()
        while site.front.get(path).json() != {"VCB": [sent]}:
            assert asked - merged <= 1
            asked = time.monotonic()

    def test_the_actor_of_public_gossip_is_the_true_client(self, site: Site) -> None:
        answer = site.front.request(
            "POST",
            "/public/gossip",
            source=CLIENT,
            data=json.dumps({**a_bar(15, volume=6_000), "high": 99_000}),
            Content_Type="application/json",
            X_Forwarded_For="203.0.113.77",
        )
        # A failure is in the database before it is answered.
        assert answer.status_code == 400, answer.text
        assert site.actors() == {CLIENT: (0, 1)}

    def test_people_get_their_pages(self, site: Site) -> None:
        page = site.front.get("/")
        assert page.status_code == 200
        assert site.front.get("/static/proxy_site/home.css").status_code == 200
        assert site.front.get("/admin/login/").status_code == 200

    @pytest.mark.parametrize("path", ["/tickers%0a", "/tickers/group%0A", "/health%0d", "/%0a"])
    def test_an_address_with_a_control_character_is_none(self, path: str, site: Site) -> None:
        for answer in (site.front.get(path), site.node.get(path)):
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_a_dead_node_is_read_from_the_cache_and_refuses_the_rest(self, site: Site) -> None:
        before = site.front.get("/tickers")
        site.api.stop()
        wait_for(lambda: site.front.get("/tickers").headers["X-Cache"] == "STALE", "a stale answer")
        after = site.front.get("/tickers")
        assert (after.status_code, after.content) == (200, before.content)
        assert after.headers["ETag"] == before.headers["ETag"]
        for method, path in (("GET", "/tickers?symbol=NEVER"), ("POST", "/gossip")):
            refused = site.front.request(method, path, data=b"{}")
            assert refused.status_code == 503
            assert refused.json()["detail"] == "The node can't be reached; try again soon."
            assert refused.headers["Retry-After"] == "2"
