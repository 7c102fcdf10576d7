"""GET /health, as an operator and the network's existing clients read it."""

import datetime as dt
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from gossip.delivery.delivery import Delivery
from gossip.delivery.peer import Peer, PeerKind
from tests.support.bars import let_time_pass
from tests.support.doors import (
    ANCHORS,
    CLIENT,
    HOME,
    TODAY,
    USUAL_VOLUME,
    YESTERDAY,
    a_bar,
    cache_away,
    complete_cycle,
    database_away,
    fill_market,
    forget,
    lead,
    merge_core,
    send_public,
    send_trusted,
    store_away,
    store_lost,
    wire,
)
from tickers import wiring
from tickers.market_clock import OfficeHours
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

pytestmark = pytest.mark.django_db

# The names that existing clients of the network read, each with what it must be.
KNOWN_TO_CLIENTS: dict[str, Any] = {
    "is_office_hours": bool,
    "current_interval_secs": int,
    "office_hours_enabled": bool,
    "timezone": str,
    "office_start_hour": int,
    "office_end_hour": int,
    "environment": str,
    "node_name": str,
    "uptime_secs": int,
    "total_tickers_count": int,
    "active_tickers_count": int,
    "memory_usage_bytes": int,
    "memory_usage_mb": (int, float),
    "memory_limit_mb": (int, float),
    "memory_usage_percent": (int, float),
    "internal_peers_count": int,
    "public_peers_count": int,
    "iteration_count": int,
    "last_update_timestamp": str,
    "current_system_time": str,
    "debug_time_override": str,
    "build_date": str,
    "git_commit": str,
}

LAST_CYCLE = {
    "started_at": "2025-08-15T03:00:00+00:00",
    "duration": 1.25,
    "requests": 6,
    "bars_changed": 12,
    "errors": [],
}


@pytest.fixture
def node(clean_server: redis.Redis) -> Iterator[Store]:
    forget()
    yield wiring.store()
    forget()


@pytest.fixture
def healthy(node: Store) -> Store:
    """A node with a market, whose worker has just told of a cycle."""
    fill_market()
    tell(node)
    return node


def tell(
    store: Store,
    *,
    ago: float = 0,
    interval: float = 5,
    mode: str = "core",
    delivery: dict[str, Any] | None = None,
    **cycle: Any,
) -> None:
    """What a worker leaves after its cycle."""
    status = {
        "mode": mode,
        "delivery": delivery or {},
        "told_at": time.time() - ago,
        "iterations": 42,
        "interval": interval,
        "cycle": {**LAST_CYCLE, **cycle},
    }
    with lead(store) as fence:
        store.write_status(status, fence=fence)


@pytest.fixture
def filled(node: Store) -> Store:
    """A node with a market."""
    fill_market()
    return node


def health(status: int = 200) -> dict[str, Any]:
    answer = CLIENT.get("/health")
    assert answer.status_code == status
    assert answer["Cache-Control"] == "no-store"
    return dict(answer.json())


def problem() -> str:
    body = health()
    assert body["status"] == "degraded"
    (words,) = body["problems"]
    return str(words)


class TestHealthyNode:
    def test_says_so(self, healthy: Store) -> None:
        body = health()
        assert (body["status"], body["problems"]) == ("ok", [])

    @pytest.mark.parametrize(("name", "kind"), KNOWN_TO_CLIENTS.items())
    def test_has_the_names_that_clients_read(self, name: str, kind: Any, healthy: Store) -> None:
        assert isinstance(health()[name], kind)

    def test_tells_of_itself(self, healthy: Store, settings: Any) -> None:
        settings.NODE_NAME = "node-a"
        body = health()
        assert (body["node_name"], body["environment"], body["mode"]) == (
            "node-a",
            "development",
            "core",
        )
        settings.IS_PUBLIC_NODE = True
        assert health()["mode"] == "public"

    def test_tells_of_its_market(self, healthy: Store, settings: Any) -> None:
        body = health()
        position = healthy.state().position
        assert (body["epoch"], body["revision"]) == (position.epoch, position.revision)
        assert body["symbols_known"] == body["total_tickers_count"] == 287
        assert body["symbols_filled"] == body["active_tickers_count"] == len(ANCHORS)
        assert 0 <= body["last_trusted_update_age_secs"] < 5
        updated = dt.datetime.fromisoformat(body["last_update_timestamp"])
        assert dt.timedelta() <= dt.datetime.now(dt.UTC) - updated < dt.timedelta(seconds=5)
        assert body["overlays"] == 0

    def test_counts_overlays(self, healthy: Store) -> None:
        send_public([wire("VCB"), wire("PVS")])
        assert health()["overlays"] == 2

    def test_tells_of_the_workers_last_cycle(self, healthy: Store) -> None:
        body = health()
        assert body["worker"]["cycle"] == LAST_CYCLE
        assert body["iteration_count"] == 42
        assert body["current_interval_secs"] == 5

    def test_tells_of_its_clock(self, healthy: Store) -> None:
        """The tests' clock stands at ten o'clock of a Friday."""
        body = health()
        ten_o_clock = dt.datetime(2025, 8, 15, 3, tzinfo=dt.UTC)
        for name in ("current_system_time", "debug_time_override"):
            assert dt.datetime.fromisoformat(body[name]) == ten_o_clock
        assert body["trading_day"] == str(TODAY)
        assert body["is_office_hours"] is True
        assert body["trading_hours"] == "09:00-15:00"
        assert (body["office_start_hour"], body["office_end_hour"]) == (9, 15)
        assert body["timezone"] == "Asia/Ho_Chi_Minh"

    def test_tells_of_its_pace(self, filled: Store, settings: Any) -> None:
        assert health()["current_interval_secs"] == settings.CYCLE == 5
        settings.DEBUG_SYSTEM_TIME = dt.datetime(2025, 8, 15, 12, tzinfo=dt.UTC)
        forget()
        body = health()
        assert body["is_office_hours"] is False
        assert body["current_interval_secs"] == 300
        settings.OFFICE_HOURS = OfficeHours(enabled=False)
        forget()
        body = health()
        # Clients show the exchange's hours; the node's pace is the fast one all the same.
        assert (body["office_hours_enabled"], body["is_office_hours"]) == (False, False)
        assert body["current_interval_secs"] == settings.CYCLE

    def test_hours_that_are_off_are_told_as_configured(self, filled: Store, settings: Any) -> None:
        settings.OFFICE_HOURS = OfficeHours(enabled=False, start=dt.time(8, 30), end=dt.time(16))
        forget()
        body = health()
        assert (body["office_hours_enabled"], body["is_office_hours"]) == (False, True)
        assert (body["office_start_hour"], body["office_end_hour"]) == (8, 16)
        assert body["trading_hours"] == "08:30-16:00"

    @pytest.mark.parametrize(("interval", "told"), [(0.1, 1), (1, 1), (2.5, 3), (12.0, 12)])
    def test_its_pace_is_a_whole_number_of_seconds(
        self, interval: float, told: int, healthy: Store
    ) -> None:
        tell(healthy, interval=interval)
        pace = health()["current_interval_secs"]
        assert (pace, type(pace)) == (told, int)

    def test_its_pace_is_of_this_run(
        self, healthy: Store, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tell(healthy, interval=60)
        assert health()["current_interval_secs"] == 60
        tell(healthy, interval=60, mode="public")
        assert health()["current_interval_secs"] == settings.CYCLE
        tell(healthy, interval=60, ago=3 * 60 + 31)  # that worker is gone
        assert health()["current_interval_secs"] == settings.CYCLE
        tell(healthy, interval=60, ago=10)
        monkeypatch.setattr("proxy_site.health.STARTED_AT", time.time() - 5)
        assert health()["current_interval_secs"] == settings.CYCLE

    @pytest.mark.parametrize(
        ("frozen", "told"),
        [
            ("2025-08-15T10:00:00+07:00", "2025-08-15T03:00:00Z"),
            ("2025-08-15T03:00:00.5+00:00", "2025-08-15T03:00:00.500000Z"),
        ],
    )
    def test_an_override_is_told_in_utc_with_a_z(
        self, frozen: str, told: str, filled: Store, settings: Any
    ) -> None:
        settings.DEBUG_SYSTEM_TIME = dt.datetime.fromisoformat(frozen)
        forget()
        assert health()["debug_time_override"] == told

    def test_without_a_rehearsal_there_is_no_override(self, filled: Store, settings: Any) -> None:
        settings.DEBUG_SYSTEM_TIME = None
        forget()
        assert health()["debug_time_override"] is None

    def test_tells_of_its_memory(self, healthy: Store) -> None:
        body = health()
        assert body["memory_usage_bytes"] > 10_000_000
        assert body["memory_usage_mb"] == pytest.approx(body["memory_usage_bytes"] / 2**20, abs=1)
        assert 0 < body["memory_usage_percent"] < 100
        assert body["memory_usage_mb"] < body["memory_limit_mb"]

    def test_tells_of_its_snapshot(self, healthy: Store, settings: Any) -> None:
        snapshot = health()["snapshot"]
        assert 0 < snapshot["memory_bytes"] < snapshot["memory_limit_bytes"] == 512 * 2**20
        assert snapshot["symbols_with_history"] == len(healthy.symbols())
        assert snapshot["symbols_without_history"] == 0
        settings.SNAPSHOT_MEMORY = 0
        forget()
        body = health()
        assert body["snapshot"]["symbols_with_history"] == 0
        assert body["snapshot"]["symbols_without_history"] == body["symbols_filled"]

    def test_tells_of_the_server_that_holds_the_market(self, healthy: Store) -> None:
        server = health()["store"]
        assert server["append_only_file"] is True
        assert server["eviction"] == "noeviction"
        assert server["used_memory_bytes"] > 0

    def test_counts_peers_without_their_addresses(self, healthy: Store, settings: Any) -> None:
        settings.INTERNAL_PEER_URLS = ["http://alpha.test", "http://beta.test"]
        settings.PUBLIC_PEER_URLS = ["http://gamma.test"]
        settings.CORE_NETWORK_URLS = ["http://delta.test"]
        body = health()
        assert body["peers"] == {"internal": 2, "public": 1}
        assert (body["internal_peers_count"], body["public_peers_count"]) == (2, 1)
        assert ".test" not in str(body)

    def test_keeps_secrets(self, healthy: Store, settings: Any) -> None:
        text = str(health())
        for secret in (
            settings.PRIMARY_TOKEN,
            settings.SECONDARY_TOKEN,
            settings.SECRET_KEY,
            settings.REDIS_URL,
            str(settings.DATA_DIR),
        ):
            assert secret not in text

    def test_is_read_only(self, healthy: Store) -> None:
        answer = CLIENT.post("/health")
        assert (answer.status_code, list(answer.json())) == (405, ["detail", "code"])


class TestContradictedPeers:
    def test_a_peer_is_named_when_its_lie_had_to_go(
        self, healthy: Store, clean_server: redis.Redis
    ) -> None:
        merge_core(a_bar())
        send_trusted(wire(price=70_000, volume=2 * USUAL_VOLUME), address="198.51.100.7")
        assert health()["contradicted_peers"] == []
        let_time_pass(clean_server, seconds=61)
        complete_cycle()
        tell(healthy)
        body = health()
        assert body["contradicted_peers"] == [
            {"peer": "198.51.100.7", "contradicted": 1, "impossible": 0}
        ]
        assert problem() == "bars of peers were contradicted in the last 24 h: 198.51.100.7"

    def test_a_peer_is_named_when_it_sent_what_cant_be(self, healthy: Store) -> None:
        send_trusted(wire(price=9e11))
        assert health()["contradicted_peers"] == [
            {"peer": HOME, "contradicted": 0, "impossible": 1}
        ]
        assert problem().endswith(HOME)

    def test_those_with_the_most_are_named(self, healthy: Store) -> None:
        for host in range(25):
            for _ in range(1 + (host == 24)):
                send_trusted(wire(price=9e11), address=f"198.51.100.{host}")
        named = health()["contradicted_peers"]
        assert len(named) == 20
        assert named[0] == {"peer": "198.51.100.24", "contradicted": 0, "impossible": 2}
        assert problem().endswith(" and 22 more")


class TestProblems:
    def test_an_empty_market(self, node: Store) -> None:
        tell(node)
        body = health(503)
        assert (body["status"], body["can_serve"]) == ("degraded", False)
        assert body["problems"] == [
            "the market is empty: there is nothing to serve yet",
            "no trusted update has come yet: public bars are refused",
        ]
        assert body["last_trusted_update_age_secs"] is None
        assert body["last_update_timestamp"] is None
        assert body["symbols_filled"] == 0

    def test_the_trust_window_is_over(self, node: Store) -> None:
        node.merge([a_bar(day=YESTERDAY)], Authority.FOLLOWED, age=301)
        tell(node)
        assert problem() == "the last trusted update is older than the trust window"
        assert health()["last_trusted_update_age_secs"] >= 301

    def test_no_worker_yet(self, node: Store) -> None:
        fill_market()
        assert problem().startswith("no worker has told of a cycle yet")

    def test_symbols_in_error_and_symbols_missing(self, healthy: Store) -> None:
        tell(healthy, symbols_in_error=30, symbol_errors={"VCB": "its columns are empty"})
        assert problem() == "symbols in error (30), among them VCB: its columns are empty"
        tell(healthy, symbols_missing=2, missing=["FPT", "VCB"])
        assert problem() == "symbols missing from the answers (2): FPT, VCB"

    def test_no_worker_leads_however_lately_one_has_told(
        self, healthy: Store, clean_server: redis.Redis
    ) -> None:
        """Outside office hours it tells every five minutes only."""
        tell(healthy, interval=300)
        assert health()["status"] == "ok"
        assert 20_000 < clean_server.pttl(f"{ROOT}:led") <= 25_000
        clean_server.delete(f"{ROOT}:led")
        assert problem() == "no worker leads: is manage.py run_worker running?"
        with lead(healthy):
            assert health()["status"] == "ok"

    @pytest.mark.parametrize(("ago", "interval"), [(46, 5), (1_000, 300)])
    def test_a_silent_worker(self, ago: float, interval: float, healthy: Store) -> None:
        tell(healthy, ago=ago, interval=interval)
        assert problem() == f"no worker has told of a cycle for {ago} s"

    @pytest.mark.parametrize(("ago", "interval"), [(44, 5), (920, 300)])
    def test_not_a_worker_that_takes_its_time(
        self, ago: float, interval: float, healthy: Store
    ) -> None:
        tell(healthy, ago=ago, interval=interval)
        assert health()["status"] == "ok"

    def test_a_cycle_with_errors(self, healthy: Store) -> None:
        tell(healthy, errors=["the upstream answered 502", "and again"])
        assert problem() == "the last cycle had errors: the upstream answered 502"

    def test_a_server_that_may_lose_the_market(
        self, healthy: Store, clean_server: redis.Redis
    ) -> None:
        clean_server.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert problem() == "the store evicts keys: set maxmemory-policy noeviction"
        finally:
            clean_server.config_set("maxmemory-policy", "noeviction")

    def test_a_server_without_its_append_only_file(
        self, healthy: Store, clean_server: redis.Redis
    ) -> None:
        clean_server.config_set("appendonly", "no")
        try:
            assert problem() == ("the store's append-only file is off: a restart loses the market")
        finally:
            clean_server.config_set("appendonly", "yes")

    def test_the_database_is_away(self, healthy: Store) -> None:
        with database_away():
            assert problem().startswith("the database's file can't be written: ")
        assert health()["status"] == "ok"

    def test_the_cache_is_away(self, healthy: Store, settings: Any) -> None:
        with cache_away(settings):
            assert problem() == "the cache can't be reached (ConnectionError)"
        assert health()["status"] == "ok"

    def test_a_worker_of_another_mode_isnt_this_nodes(self, healthy: Store) -> None:
        tell(healthy, mode="public", errors=["the core network answered 502"])
        assert problem().startswith("no worker has told of a cycle yet")

    @pytest.mark.parametrize(
        ("kind", "banned_by", "away", "words"),
        [
            ("public", 1, 0, ["a public peer bans this node, since 10:00: ask its operator"]),
            ("public", 2, 0, ["2 public peers ban this node, since 10:00: ask its operator"]),
            ("public", 0, 1, ["a public peer has failed or refused us since 11:00: see the log"]),
            (
                "internal",
                0,
                1,
                ["an internal peer has failed or refused us since 11:00: see the log"],
            ),
            (
                "internal",
                0,
                3,
                ["3 internal peers have failed or refused us since 11:00: see the log"],
            ),
        ],
    )
    def test_peers_that_ban_us_or_are_away(
        self, kind: str, banned_by: int, away: int, words: list[str], healthy: Store
    ) -> None:
        told = {
            "banned_by": banned_by,
            "banned_since": "10:00" if banned_by else None,
            "away": away,
            "away_since": "11:00" if away else None,
        }
        tell(healthy, delivery={kind: told})
        body = health()
        assert (body["status"], body["problems"]) == ("degraded", words)
        assert body["worker"]["delivery"] == {kind: told}

    @pytest.mark.parametrize(
        ("frozen", "who"), [(1, "an internal peer is frozen"), (2, "2 internal peers are frozen")]
    )
    def test_older_nodes_that_are_frozen(self, frozen: int, who: str, healthy: Store) -> None:
        tell(healthy, delivery={"internal": {"frozen": frozen, "frozen_since": "10:00"}})
        (words,) = health()["problems"]
        assert words.startswith(f"{who}: settled bars only, since 10:00")

    def test_what_delivery_tells_is_what_is_read_here(self, healthy: Store) -> None:
        peers = [Peer("http://127.0.0.1:9", PeerKind.PUBLIC)]
        delivery = Delivery(store=healthy, peers=peers, clock=healthy.clock)
        told = delivery.status()
        tell(healthy, delivery=told)
        assert health()["status"] == "ok"
        told["public"] |= {"banned_by": 1, "banned_since": "10:00", "away": 1, "away_since": "9"}
        told["public"] |= {"frozen": 1, "frozen_since": "8"}
        tell(healthy, delivery=told)
        assert len(health()["problems"]) == 3


FAULTS = ("cycle", "cache", "database", "store")


@pytest.mark.parametrize(
    "wrong", [some for count in range(5) for some in itertools.combinations(FAULTS, count)]
)
def test_status_and_problems_never_contradict_each_other(
    wrong: tuple[str, ...], healthy: Store, settings: Any
) -> None:
    """Whichever look finds something, and however many do."""
    tell(healthy, errors=["it failed"] if "cycle" in wrong else [])
    health()  # which leaves a snapshot
    with ExitStack() as faults:
        if "cache" in wrong:
            faults.enter_context(cache_away(settings))
        if "database" in wrong:
            faults.enter_context(database_away())
        if "store" in wrong:
            faults.enter_context(store_lost())
        body = health()
    # Without the store nobody knows of the cycle.
    found = set(wrong) - ({"cycle"} if "store" in wrong else set())
    assert len(body["problems"]) == len(found)
    assert body["status"] == ("degraded" if found else "ok")


class TestStrict:
    def test_any_problem_is_a_status(self, healthy: Store) -> None:
        assert CLIENT.get("/health", {"strict": "true"}).status_code == 200
        tell(healthy, errors=["it failed"])
        for query, status in (
            ("strict=true", 503),
            ("strict=1", 503),
            ("strict=TRUE", 503),
            ("strict=false", 200),
            ("strict=", 200),
            ("", 200),
        ):
            answer = CLIENT.get(f"/health?{query}")
            assert (answer.status_code, answer.json()["status"]) == (status, "degraded"), query

    def test_a_value_that_is_neither_is_refused(self, healthy: Store) -> None:
        """Or a probe that is written wrong would never fail."""
        answer = CLIENT.get("/health", {"strict": "yes"})
        assert answer.status_code == 400
        assert answer.json()["detail"] == "strict must be true or false."

    def test_a_store_that_is_away_is_one(self, healthy: Store) -> None:
        health()
        with store_lost():
            assert CLIENT.get("/health", {"strict": "true"}).status_code == 503
            assert CLIENT.get("/health").status_code == 200


class TestStoreAway:
    def test_with_a_snapshot_it_is_degraded(self, healthy: Store) -> None:
        before = health()
        with store_lost():
            assert problem() == "the store can't be reached (ConnectionError)"
            body = health()
        for name in ("epoch", "revision", "symbols_filled"):
            assert body[name] == before[name]
        assert body["last_trusted_update_age_secs"] >= before["last_trusted_update_age_secs"]
        assert body["overlays"] is None
        assert body["store"] == body["worker"] == {}

    def test_without_one_it_cant_serve(self, healthy: Store, settings: Any) -> None:
        with store_away(settings):
            body = health(503)
        assert body["status"] == "degraded"
        assert body["problems"] == ["the store can't be reached (ConnectionError)"]
        assert (body["epoch"], body["revision"], body["symbols_filled"]) == (None, None, 0)
        assert set(KNOWN_TO_CLIENTS) <= set(body)

    def test_everything_may_be_away(self, healthy: Store, settings: Any) -> None:
        with store_away(settings), cache_away(settings), database_away():
            assert len(health(503)["problems"]) == 3
