"""The store goes away, comes back older or empty, runs out of memory, or is slow.

Two real web processes (gunicorn) read a real server that the test kills and puts back; the test is
the worker, so that every bar and every revision is its own.
"""

import datetime as dt
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from django.test import Client

from gossip.delivery.ledger import Ledger
from proxy_site.local import embedded_redis
from simulator.clock import AcceleratedClock
from simulator.market import SimulatedMarket
from simulator.server import SimulatorServer
from tests.support.bars import FRIDAY, THURSDAY, WEDNESDAY, bar, clock_at, exchange_time
from tests.support.nodes import wait_for
from tests.support.yard import PRIMARY, Link, StoreServer, Yard
from tickers import wiring
from tickers.bar import Bar, epoch_of
from tickers.follower import Follower
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.store.records import Change, Position, State
from tickers.store.store import ROOT, FencedError, Store
from tickers.universe import Universe
from tickers.verdict import Authority

NOW = exchange_time(FRIDAY, 11)
SYMBOLS = ("ACB", "FPT", "VCB")
DAYS = (WEDNESDAY, THURSDAY, FRIDAY)
HISTORY_START = dt.date(2025, 8, 1)


@dataclass
class Bench:
    """A market in a server of the test's own, as a leader writes it, and two web processes on it.

    Each has an address of its own, so that the test knows which one answers.
    """

    server: StoreServer
    link: Link
    urls: list[str]

    def __post_init__(self) -> None:
        self.store = Store(self.server.client, clock=clock_at(NOW), trust_window=300)
        self.fence = ""

    def lead(self) -> None:
        self.fence = wait_for(lambda: self.store.acquire_lease(600), "the lease")

    def fill(self) -> None:
        """A complete market, as a first cycle leaves it."""
        for symbol in SYMBOLS:
            self.store.replace_series(
                symbol,
                [bar(symbol, day) for day in DAYS],
                Authority.CORE,
                fence=self.fence,
                history_start=epoch_of(DAYS[0]),
            )
        self.complete()

    def merge(self, *bars: Bar) -> None:
        self.store.merge(bars, Authority.CORE, fence=self.fence)

    def merge_and_serve(self, sent: Bar) -> None:
        """Merge it, and wait until both web processes, which hear of it in a moment, have it."""
        self.merge(sent)
        self.everyone_serves(lambda answer: volume(answer, sent.symbol) == sent.volume, "the bar")

    def complete(self) -> None:
        self.store.complete_cycle(fence=self.fence)

    def revision(self) -> int:
        return self.store.state().position.revision

    @property
    def url(self) -> str:
        return self.urls[0]

    def get(self, path: str = "/tickers", *, at: str = "", **headers: str) -> requests.Response:
        return requests.get(f"{at or self.url}{path}", headers=headers, timeout=30)

    def post(self, path: str, sent: Bar, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.url}{path}",
            data=sent.encode(),
            headers={"Content-Type": "application/json", **headers},
            timeout=60,
        )

    def gossip(self, sent: Bar) -> requests.Response:
        return self.post("/gossip", sent, Authorization=f"Bearer {PRIMARY}")

    def problems(self) -> str:
        return " ".join(self.get("/health").json()["problems"])

    def everyone_serves(self, check: Callable[[requests.Response], bool], what: str) -> None:
        wait_for(lambda: all(check(self.get(at=url)) for url in self.urls), what)


@pytest.fixture(scope="module")
def machine(module_yard: Yard) -> Iterator[Bench]:
    server = module_yard.store("store")
    ports = [module_yard.port() for _ in range(2)]
    with Link(server.port) as link:
        settings = module_yard.environment(
            "web",
            REDIS_URL=link.url,
            TICKERS=",".join(SYMBOLS),
            DEBUG_SYSTEM_TIME=NOW.isoformat(),
            HISTORY_START=HISTORY_START.isoformat(),
            VCI_BASE_URL="http://127.0.0.1:9/api/",
        )
        server.start()
        for port in ports:
            environment = {**settings, "PORT": str(port)}
            module_yard.api(f"api-{port}", environment, workers=1).start()
        bench = Bench(server, link, [f"http://127.0.0.1:{port}" for port in ports])
        wait_for(lambda: all(answers(url) for url in bench.urls), "the web processes")
        yield bench


def answers(url: str) -> bool:
    try:
        return bool(requests.get(f"{url}/health", timeout=10).status_code)
    except requests.RequestException:
        return False


@pytest.fixture
def bench(machine: Bench) -> Bench:
    """A complete market in a new life, that both web processes serve."""
    if not machine.server.lives:
        machine.server.start()
    machine.link.delay = 0
    machine.server.client.config_set("maxmemory", 0)
    machine.server.client.flushall()
    machine.lead()
    machine.fill()
    position = machine.store.state().position
    machine.everyone_serves(lambda answer: etag(answer) == f'W/"{position}"', "the new market")
    return machine


def etag(answer: requests.Response) -> str:
    return answer.headers.get("ETag", "")


def age(answer: requests.Response) -> int:
    return int(answer.headers["X-Data-Age"])


def volume(answer: requests.Response, symbol: str = "VCB") -> int:
    return int(answer.json()[symbol][-1]["volume"])


# --- Older, and empty -----------------------------------------------------------------------------


def shows(shares: int, answer: requests.Response) -> bool:
    return volume(answer) == shares


def test_no_client_is_told_304_for_a_market_it_does_not_have(bench: Bench) -> None:
    kept = bench.server.keep_state()
    lost = [2_000, 3_000, 4_000]
    seen = {}
    for shares in lost:
        bench.merge(bar(volume=shares))
        bench.everyone_serves(partial(shows, shares), "the bar")
        seen[etag(bench.get())] = shares
    bench.server.go_back(kept)
    bench.lead()
    # Other bars, under the revisions that the lost ones had.
    for shares in (2_001, 3_001, 4_001):
        bench.merge(bar(volume=shares))
    bench.complete()
    bench.everyone_serves(lambda answer: volume(answer) == 4_001, "the market of the new life")
    now = etag(bench.get())
    assert [name.split("-")[1] for name in seen] == [f'{bench.revision() - n}"' for n in (2, 1, 0)]
    assert now not in seen
    for name in seen:
        for url in bench.urls:
            answer = bench.get(at=url, **{"If-None-Match": name})
            assert (answer.status_code, volume(answer)) == (200, 4_001)
            since = name.removeprefix('W/"').removesuffix('"')
            assert bench.get(f"/tickers/changes?since={since}").status_code == 410
    assert bench.get(**{"If-None-Match": now}).status_code == 304


@pytest.mark.parametrize("comes_back", ["older", "empty"])
def test_the_last_snapshot_is_served_until_the_market_is_complete_again(
    bench: Bench, comes_back: str
) -> None:
    kept = bench.server.keep_state()
    bench.merge(bar(volume=5_000))
    bench.everyone_serves(lambda answer: volume(answer) == 5_000, "the bar")
    held = bench.get()
    if comes_back == "older":
        bench.server.go_back(kept)
    else:
        bench.server.forget()
    bench.lead()
    # A peer's bar is no market; nor is the first part of a refill.
    assert bench.gossip(bar("FPT", volume=7_000)).status_code == 200
    bench.merge(bar(volume=6_000))
    for url in bench.urls:
        answer = bench.get(at=url)
        assert (answer.content, etag(answer)) == (held.content, etag(held))
        assert bench.get(at=url, **{"If-None-Match": etag(held)}).status_code == 304
    bench.fill()
    bench.everyone_serves(lambda answer: etag(answer) != etag(held), "the new market")
    assert len(bench.get().json()) == len(SYMBOLS)


def test_a_snapshot_that_is_read_across_a_restart_is_not_kept(bench: Bench) -> None:
    """Its bars would be of one life and its label of another."""
    kept = bench.server.keep_state()
    for shares in (2_000, 3_000):
        bench.merge(bar(volume=shares))
    lost = bench.store.state().position

    class RestartedMeanwhile(Store):
        def symbols(self) -> list[str]:
            bench.server.go_back(kept)
            return super().symbols()

    refresher = SnapshotRefresher(
        RestartedMeanwhile(bench.server.client, clock=clock_at(NOW), trust_window=300)
    )
    with pytest.raises(Exception, match="can't be reached"):
        refresher.current()
    assert bench.store.state().position != lost


def test_changes_that_are_read_across_a_restart_are_gone(
    bench: Bench, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = bench.server.keep_state()
    keeper = SnapshotRefresher(bench.store)
    since = keeper.current().position
    for shares in (2_000, 3_000):
        bench.merge(bar(volume=shares))

    class RestartedMeanwhile(Store):
        """What the log has then under the revisions asked for isn't what it had."""

        def changes_since(self, since: Position) -> tuple[State, list[Change] | None]:
            bench.server.go_back(kept)
            bench.lead()
            bench.merge(bar("FPT", volume=4_000))
            bench.complete()
            return super().changes_since(since)

    store = RestartedMeanwhile(bench.server.client, clock=clock_at(NOW), trust_window=300)
    monkeypatch.setattr(keeper, "_store", store)
    monkeypatch.setattr(wiring, "snapshots", lambda: keeper)
    assert client.get(f"/tickers/changes?since={since}").status_code == 410


# --- Followers ------------------------------------------------------------------------------------


@pytest.fixture
def follower_server(yard: Yard) -> StoreServer:
    server = yard.store("follower-store")
    server.start()
    return server


def a_follower(bench: Bench, store: Store) -> Follower:
    return Follower(
        store,
        url=bench.url,
        refresh_interval=300,
        history_start=epoch_of(DAYS[0]),
        stop=threading.Event(),
    )


def market_of(store: Store) -> dict[str, list[tuple[int, bytes]]]:
    return dict(store.series(store.symbols()))


def test_no_follower_skips_a_bar_of_an_older_core(
    bench: Bench, follower_server: StoreServer
) -> None:
    ours = Store(follower_server.client, clock=clock_at(NOW), trust_window=300)
    fence = wait_for(lambda: ours.acquire_lease(600), "the lease")
    follower = a_follower(bench, ours)
    follower.cycle(fence)
    kept = bench.server.keep_state()
    for symbol in SYMBOLS:
        bench.merge_and_serve(bar(symbol, volume=2_000))
        follower.cycle(fence)
    bench.server.go_back(kept)
    bench.lead()
    # The revisions that the follower has seen, each with another bar, and one more.
    bench.merge(bar("VCB", volume=3_000))
    bench.merge(bar("FPT", volume=3_000))
    bench.merge(bar("ACB", volume=3_000))
    bench.merge(bar("VCB", WEDNESDAY, volume=3_000))
    bench.complete()
    bench.everyone_serves(lambda answer: volume(answer) == 3_000, "the market of the new life")
    follower.cycle(fence)
    assert market_of(ours) == market_of(bench.store)
    bench.merge_and_serve(bar("FPT", volume=9_000))
    follower.cycle(fence)
    assert market_of(ours) == market_of(bench.store)


def test_a_follower_whose_own_store_goes_back_in_a_cycle_skips_no_bar(
    bench: Bench, follower_server: StoreServer
) -> None:
    """It must not keep a place in the core's log that names bars which its store has lost."""
    ours = Store(follower_server.client, clock=clock_at(NOW), trust_window=300)
    fence = wait_for(lambda: ours.acquire_lease(600), "the lease")
    follower = a_follower(bench, ours)
    follower.cycle(fence)
    kept = follower_server.keep_state()
    bench.merge_and_serve(bar("FPT", volume=2_000))
    follower.cycle(fence)

    class GoesBackMeanwhile(Store):
        """The restart comes between what is read and what is written."""

        def merge(self, *arguments: Any, **options: Any) -> Any:
            follower_server.go_back(kept)
            return super().merge(*arguments, **options)

    bench.merge_and_serve(bar("VCB", volume=2_000))
    unlucky = GoesBackMeanwhile(follower_server.client, clock=clock_at(NOW), trust_window=300)
    with pytest.raises(FencedError):
        a_follower(bench, unlucky).cycle(fence)
    fence = wait_for(lambda: ours.acquire_lease(600), "a lease of the new life")
    follower.cycle(fence)
    assert market_of(ours) == market_of(bench.store)


@pytest.mark.parametrize("comes_back", ["older", "empty"])
def test_a_ledger_from_before_hides_nothing(bench: Bench, comes_back: str) -> None:
    def ledger() -> Ledger:
        return Ledger(bench.server.client, peer_id="peer", fence=bench.fence, monotonic=lambda: 0.0)

    def lacking(of: Ledger) -> list[str]:
        of.refresh()
        return sorted(of.lacking(bench.store.changed()))

    before = ledger()
    assert lacking(before) == list(SYMBOLS)
    before.take(bench.store.changed())
    kept = bench.server.keep_state()
    bench.merge(bar("FPT", volume=2_000))
    bench.merge(bar("VCB", volume=2_000))
    before.take(bench.store.changed())
    assert lacking(before) == []
    if comes_back == "older":
        bench.server.go_back(kept)
    else:
        bench.server.forget()
    with pytest.raises(FencedError):
        before.refresh()
    bench.lead()
    if comes_back == "empty":
        bench.fill()
    # The other way round: each under the revision that the other one was taken with.
    bench.merge(bar("VCB", volume=2_500))
    bench.merge(bar("FPT", volume=2_500))
    after = ledger()
    expected = ["FPT", "VCB"] if comes_back == "older" else list(SYMBOLS)
    assert lacking(after) == expected
    after.take({"FPT": bench.store.changed()["FPT"]})
    assert lacking(after) == [symbol for symbol in expected if symbol != "FPT"]


# --- The public door ------------------------------------------------------------------------------


def test_an_empty_store_has_no_trust_window_and_still_limits(bench: Bench) -> None:
    offer = bar(volume=1_100)
    assert bench.post("/public/gossip", offer).status_code == 200
    bench.server.forget()
    closed = bench.post("/public/gossip", offer)
    assert closed.status_code == 503
    assert "untrusted data" in closed.json()["detail"]
    assert "no trusted update" not in bench.problems(), "the held market has an age"
    answers = [bench.post("/public/gossip", offer) for _ in range(60)]
    assert {answer.status_code for answer in answers} == {503, 429}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)
    bench.lead()
    bench.fill()
    wait_for(
        lambda: bench.post("/public/gossip", offer).status_code == 200, "the door to open again"
    )


def test_an_older_store_has_an_older_trust_window(bench: Bench) -> None:
    client = bench.server.client
    client.decrby(f"{ROOT}:trusted_at", 400_000)
    kept = bench.server.keep_state()
    bench.merge_and_serve(bar(volume=1_001))
    assert bench.post("/public/gossip", bar(volume=1_100)).status_code == 200
    bench.server.go_back(kept)
    assert bench.post("/public/gossip", bar(volume=1_100)).status_code == 503
    assert age(bench.get()) < 60, "what is served is of the life before, and as fresh as it was"
    bench.lead()
    bench.merge(bar(volume=1_001))
    assert bench.post("/public/gossip", bar(volume=1_100)).status_code == 200
    assert age(bench.get()) < 60


# --- A node with a server of its own --------------------------------------------------------------


@pytest.fixture
def exchange() -> Iterator[SimulatorServer]:
    market = SimulatedMarket(
        Universe.read().only(SYMBOLS),
        clock=AcceleratedClock(NOW, 0),
        seed=3,
        history_start=HISTORY_START,
    )
    with SimulatorServer(market) as exchange:
        yield exchange


def test_an_embedded_server_that_dies_is_started_again_with_what_it_had(
    yard: Yard, exchange: SimulatorServer
) -> None:
    environment = yard.environment(
        "laptop",
        TICKERS=",".join(SYMBOLS),
        VCI_BASE_URL=exchange.url,
        HISTORY_START=HISTORY_START.isoformat(),
        DEBUG_SYSTEM_TIME=NOW.isoformat(),
    )
    data = Path(environment["DATA_DIR"])
    worker = yard.worker("laptop", environment)
    with redis.Redis.from_url(embedded_redis.url(data)) as client:
        reads: Any = client
        try:
            worker.start()
            wait_for(lambda: worker.says("cycle 1"), "the worker")
            client.set("kept", "this")
            first = reads.info("server")["process_id"]
            os.kill(first, signal.SIGKILL)
            wait_for(lambda: worker.says("it runs again"), "the server to be started again")
            assert reads.get("kept") == b"this"
            assert reads.info("server")["process_id"] != first
            cycles = worker.log().count("bars changed")
            wait_for(lambda: worker.log().count("leading") == 2, "the worker to lead again")
            wait_for(lambda: worker.log().count("bars changed") > cycles + 2, "it to go on")
        finally:
            worker.kill()
            embedded_redis.stop(data)


# --- Down, out of memory, slow --------------------------------------------------------------------


def refuses_for_a_while(answer: requests.Response) -> bool:
    return answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0


def test_without_the_store_reads_go_on_with_a_growing_age_and_writes_wait(bench: Bench) -> None:
    held = bench.get()
    bench.server.kill()
    first = bench.get()
    assert (first.status_code, first.content, etag(first)) == (200, held.content, etag(held))
    wait_for(lambda: age(bench.get()) >= age(first) + 2, "the age to grow")
    assert refuses_for_a_while(bench.gossip(bar(volume=2_000)))
    assert refuses_for_a_while(bench.post("/public/gossip", bar(volume=2_000)))
    assert refuses_for_a_while(bench.get(f"/tickers/changes?since={etag(held)[3:-1]}"))
    health = bench.get("/health")
    assert health.status_code == 200
    assert "the store can't be reached" in bench.problems()
    bench.server.start()
    wait_for(lambda: bench.gossip(bar(volume=2_000)).status_code == 200, "writes to go on")
    assert "the store can't be reached" not in bench.problems()


def test_out_of_memory_reads_go_on_writes_wait_and_it_is_said(bench: Bench) -> None:
    client: Any = bench.server.client
    before, held = client.dump(f"{ROOT}:last"), bench.get()
    client.config_set("maxmemory", 200_000)
    fresh = SnapshotRefresher(bench.store).current()
    assert (fresh.position, len(fresh.series)) == (bench.store.state().position, len(SYMBOLS))
    for url in bench.urls:
        since = etag(held)[3:-1].split("-")[0] + "-0"
        assert bench.get(f"/tickers/changes?since={since}", at=url).json()["replaced"]
    for answer in [bench.get(at=url) for url in bench.urls]:
        assert (answer.status_code, etag(answer)) == (200, etag(held))
    assert refuses_for_a_while(bench.gossip(bar(volume=2_000)))
    assert refuses_for_a_while(bench.post("/public/gossip", bar(volume=2_000)))
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        bench.merge(bar(volume=2_000))
    assert client.dump(f"{ROOT}:last") == before
    assert bench.revision() == int(etag(held).split("-")[1].rstrip('"'))
    assert "out of memory" in bench.problems()
    client.config_set("maxmemory", 0)
    assert bench.gossip(bar(volume=2_000)).status_code == 200
    bench.everyone_serves(lambda answer: volume(answer) == 2_000, "the bar")
    assert "out of memory" not in bench.problems()


def test_a_slow_store_delays_and_spoils_nothing(bench: Bench) -> None:
    bench.link.delay = 0.3
    assert bench.gossip(bar(volume=2_000)).status_code == 200
    wait_for(lambda: volume(bench.get()) == 2_000, "the bar")
    bench.link.delay = 0
    bench.everyone_serves(lambda answer: volume(answer) == 2_000, "the bar everywhere")


@pytest.mark.slow
def test_a_store_that_hangs_delays_one_reader_and_no_other(bench: Bench) -> None:
    held = bench.get()
    bench.link.delay = 60
    answers: list[requests.Response] = []
    began = dt.datetime.now(dt.UTC)
    readers = [
        threading.Thread(target=lambda: answers.append(bench.get()), daemon=True) for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    # One of them refreshes, as long as the store's timeout; the others don't wait for it.
    wait_for(lambda: len(answers) == 3, "the other readers to be answered", seconds=4)
    for reader in readers:
        reader.join(30)
    assert all(answer.content == held.content for answer in answers)
    assert len(answers) == 4
    assert dt.datetime.now(dt.UTC) - began < dt.timedelta(seconds=25)
    assert refuses_for_a_while(bench.gossip(bar(volume=2_000)))
