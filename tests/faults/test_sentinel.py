"""A node on a primary, a replica and three sentinels; the primary is killed.

The replica is frozen before the last merges reach it, so that it is promoted with an older state:
what a client has then is more than what the store has.
"""

import contextlib
import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from proxy_site.local import embedded_redis
from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.nodes import wait_for
from tests.support.yard import PRIMARY, Process, StoreServer, Yard
from tickers.store.redis_client import Sentinels, connect
from tickers.store.store import ROOT
from tickers.universe import Universe

NOON = dt.datetime(2025, 8, 15, 11, 0, tzinfo=dt.timezone(dt.timedelta(hours=7)))
HISTORY_START = dt.date(2025, 7, 1)
SYMBOLS = ("VCB", "FPT", "ACB")
SERVICE, PASSWORD, SENTINEL_PASSWORD = "Market", "p@ss:word", "sentinels-password"
LEASE = f"{ROOT}:lease"


class Cluster:
    """A primary, its replica, and three sentinels that watch them, two of which decide."""

    def __init__(self, yard: Yard, folder: Path, stack: contextlib.ExitStack) -> None:
        self.primary, self.replica = yard.store("primary"), yard.store("replica")
        for server in (self.primary, self.replica):
            server.start()
        for server in (self.primary, self.replica):
            server.client.config_set("masterauth", PASSWORD)
            server.client.config_set("requirepass", PASSWORD)
        self.replica.client.replicaof("127.0.0.1", self.primary.port)
        self._clients = {
            server: stack.enter_context(
                redis.Redis(port=server.port, password=PASSWORD, socket_timeout=5)
            )
            for server in (self.primary, self.replica)
        }
        wait_for(
            lambda: self.info(self.replica)["master_link_status"] == "up",
            "the replica to follow",
            seconds=60,
        )
        self.ports = [yard.port() for _ in range(3)]
        for port in self.ports:
            sentinel = self._sentinel(folder / f"sentinel-{port}", port)
            stack.callback(sentinel.kill)
            sentinel.start()
        for port in self.ports:
            wait_for(
                partial(self._is_ready, port),
                f"sentinel {port} to know the others",
                seconds=60,
            )

    def _sentinel(self, folder: Path, port: int) -> Process:
        folder.mkdir()
        lines = (
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"requirepass {SENTINEL_PASSWORD}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 2",
            f"sentinel auth-pass {SERVICE} {PASSWORD}",
            f"sentinel down-after-milliseconds {SERVICE} 1000",
            f"sentinel failover-timeout {SERVICE} 5000",
        )
        config = folder / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        return Process(
            f"sentinel-{port}",
            *(embedded_redis.binary(), str(config), "--sentinel"),
            log=folder / "sentinel.log",
        )

    def _is_ready(self, port: int) -> bool:
        with redis.Redis(port=port, password=SENTINEL_PASSWORD, socket_timeout=5) as client:
            try:
                reads: Any = client
                state = reads.sentinel_masters()[SERVICE]
            except redis.ConnectionError:
                return False
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)

    @property
    def url(self) -> str:
        # The first one is a port on which nobody listens: a sentinel that died.
        nodes = ",".join(f"127.0.0.1:{port}" for port in (1, *self.ports))
        password = PASSWORD.replace("@", "%40").replace(":", "%3A")
        return (
            f"redis+sentinel://:{password}@{nodes}/{SERVICE}/2"
            f"?sentinel_password={SENTINEL_PASSWORD}"
        )

    def info(self, server: StoreServer) -> dict[str, Any]:
        reads: Any = self._clients[server]
        return dict(reads.info())


class Clients(threading.Thread):
    """Readers and peers that go on whatever happens; ``seen`` counts what they were answered."""

    def __init__(self, url: str, bar: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._bar = bar
        self._end = threading.Event()
        self.seen: Counter[tuple[str, int]] = Counter()
        self.retry_after: set[str | None] = set()

    def run(self) -> None:
        while not self._end.wait(0.05):
            self._count("read", requests.get(f"{self._url}/tickers", timeout=30))
            token = {"Authorization": f"Bearer {PRIMARY}"}
            answer = requests.post(f"{self._url}/gossip", json=self._bar, headers=token, timeout=30)
            self._count("gossip", answer)
            if answer.status_code == 503:
                self.retry_after.add(answer.headers.get("Retry-After"))

    def _count(self, what: str, answer: requests.Response) -> None:
        self.seen[what, answer.status_code] += 1

    def end(self) -> None:
        self._end.set()
        self.join()


@dataclass
class Failover:
    """What was seen."""

    cluster: Cluster
    url: str
    exchange: SimulatorServer
    epoch: str = ""
    fence: bytes = b""
    lost: requests.Response = field(default_factory=requests.Response)
    lost_revision: int = 0
    clients: Clients | None = None

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"{self.url}{path}", headers=headers, timeout=30)

    def health(self) -> dict[str, Any]:
        return dict(self.get("/health").json())

    def served(self, symbol: str = "VCB") -> dict[str, Any]:
        return dict(self.get(f"/tickers?symbol={symbol}&limit=1").json()[symbol][-1])

    def trade(self, symbol: str = "VCB") -> None:
        """A trade at the exchange, until the node serves it."""
        volume = self.served(symbol)["volume"] + 1_000
        self.exchange.set_bars({symbol: {"volume": volume}})
        wait_for(lambda: self.served(symbol)["volume"] == volume, f"{symbol}'s trade", seconds=60)

    def lease(self, server: StoreServer) -> bytes:
        """The fence in the server's database 2, which the URL names."""
        with redis.Redis(port=server.port, password=PASSWORD, db=2, socket_timeout=5) as client:
            reads: Any = client
            return bytes(reads.get(LEASE) or b"")


@pytest.fixture(scope="module")
def failover(module_yard: Yard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failover]:
    """A node on the cluster, taken through a failover that loses the last merges."""
    market = SimulatedMarket(
        Universe.read().only(SYMBOLS),
        clock=AcceleratedClock(NOON, 0),
        seed=3,
        history_start=HISTORY_START,
    )
    with contextlib.ExitStack() as stack:
        cluster = Cluster(module_yard, tmp_path_factory.mktemp("sentinels"), stack)
        exchange = stack.enter_context(SimulatorServer(market))
        port = module_yard.port()
        environment = module_yard.environment(
            "node",
            PORT=str(port),
            REDIS_URL=cluster.url,
            VCI_BASE_URL=exchange.url,
            TICKERS=",".join(SYMBOLS),
            HISTORY_START=HISTORY_START.isoformat(),
            DEBUG_SYSTEM_TIME=NOON.isoformat(),
        )
        api = module_yard.api("api", environment)
        workers = [module_yard.worker(name, environment) for name in ("first", "second")]
        for process in (api, *workers):
            process.start()
        seen = Failover(cluster, f"http://127.0.0.1:{port}", exchange)
        try:
            fail_over(seen)
        except AssertionError as error:
            logs = "\n".join(process.log()[-3000:] for process in (api, *workers))
            raise AssertionError(f"{error}\n{logs}") from error
        finally:
            if seen.clients:
                seen.clients.end()
        yield seen


def fail_over(seen: Failover) -> None:
    wait_for(lambda: has_market(seen), "the market", seconds=60)
    cluster = seen.cluster
    wait_for(
        lambda: seen.lease(cluster.replica) == seen.lease(cluster.primary) != b"",
        "the replica to have what the primary has",
    )
    cluster.replica.pause()
    for _ in range(3):
        seen.trade()
    seen.lost, health = seen.get("/tickers"), seen.health()
    seen.epoch, seen.lost_revision = health["epoch"], health["revision"]
    seen.fence = seen.lease(cluster.primary)
    seen.clients = Clients(seen.url, seen.served("ACB"))
    seen.clients.start()
    cluster.primary.kill()
    cluster.replica.wake()
    wait_for(lambda: cluster.info(cluster.replica)["role"] == "master", "a new primary", seconds=60)
    seen.trade("FPT")
    while seen.health()["revision"] < seen.lost_revision + 1:
        seen.trade("FPT")


def has_market(seen: Failover) -> bool:
    try:
        answer = seen.get("/tickers")
        return answer.ok and len(answer.json()) == len(SYMBOLS)
    except requests.RequestException:
        return False


@pytest.mark.slow
def test_reads_and_merges_go_on_at_the_promoted_replica(failover: Failover) -> None:
    info = failover.cluster.info(failover.cluster.replica)
    assert info["role"] == "master"
    failover.trade("ACB")
    # What only the killed primary had was fetched again.
    assert failover.served("VCB") == failover.lost.json()["VCB"][-1]


@pytest.mark.slow
def test_reads_never_stop_and_writes_are_refused_with_503_at_most(failover: Failover) -> None:
    assert failover.clients is not None
    seen = failover.clients.seen
    assert set(seen) <= {("read", 200), ("gossip", 200), ("gossip", 503)}
    assert seen["gossip", 200], "gossip is taken before and after"
    assert failover.clients.retry_after <= {"1", "2", "3", "4", "5"}


@pytest.mark.slow
def test_the_promoted_replica_is_another_life_of_the_store(failover: Failover) -> None:
    assert failover.health()["epoch"] != failover.epoch


@pytest.mark.slow
def test_no_304_for_a_market_that_was_lost(failover: Failover) -> None:
    """The revisions are counted again by now, the client's among them."""
    etag = failover.lost.headers["ETag"]
    assert failover.health()["revision"] > failover.lost_revision
    again = failover.get("/tickers", **{"If-None-Match": etag})
    assert again.status_code == 200
    assert again.headers["ETag"] != etag
    assert failover.get(f"/tickers/changes?since={etag[3:-1]}").status_code == 410


@pytest.mark.slow
def test_the_lease_moves_on(failover: Failover) -> None:
    fence = wait_for(lambda: failover.lease(failover.cluster.replica), "a leader")
    assert fence != failover.fence


@pytest.mark.slow
def test_the_cache_follows_to_the_promoted_replica(failover: Failover) -> None:
    """The public door counts its rate limit there."""
    bar = failover.served("FPT")
    door = f"{failover.url}/public/gossip"
    wait_for(
        lambda: requests.post(door, json=bar, timeout=30).status_code == 200,
        "the public door to take a bar",
    )


class TestAddress:
    def test_it_says_where_and_who(self) -> None:
        place = Sentinels.parse(
            "redis+sentinel://user:p%40ss@a.test:1,[::1]:2,b.test/Market/3?sentinel_password=s%26x"
        )
        assert place.nodes == (("a.test", 1), ("::1", 2), ("b.test", 26_379))
        assert (place.service, place.database) == ("Market", 3)
        assert (place.username, place.password) == ("user", "p@ss")
        assert place.sentinel_password == "s&x"

    def test_no_password_is_shown(self) -> None:
        place = Sentinels.parse("redis+sentinel://:hunter2@a/m?sentinel_password=hunter3")
        assert "hunter" not in repr(place)

    @pytest.mark.parametrize(
        "url", ["redis+sentinel://a/m?db=1", "redis+sentinel://a", "redis://a/0", "redis+sentinel:"]
    )
    def test_anything_else_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="sentinel"):
            Sentinels.parse(url)

    def test_sentinels_that_are_all_away_are_an_error_of_the_store(self) -> None:
        with (
            connect("redis+sentinel://127.0.0.1:1/m/0", timeout=1) as client,
            pytest.raises(redis.RedisError),
        ):
            client.ping()
