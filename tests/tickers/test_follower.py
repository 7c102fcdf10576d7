"""Following a core network: against this project's own API, and against a node of the existing
kind, which has no ETag and no /tickers/changes."""

import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis
from django.conf import settings

from simulator.loopback import LoopbackServer
from tests.support.proxies import BadPeer, bad_peer, hear
from tickers import wiring
from tickers.bar import Bar, epoch_of
from tickers.follower import Follower, FollowError
from tickers.market_clock import MarketClock, is_trading_day
from tickers.snapshot.series import bar_of
from tickers.store.records import Position
from tickers.store.redis_client import connect
from tickers.store.store import ROOT, FencedError, Store
from tickers.suspects import Reason
from tickers.verdict import Authority

TODAY = dt.date(2025, 8, 15)
HISTORY_START = dt.date(2025, 7, 1)


def bar(symbol: str = "VCB", *, day: int = 15, close: float = 64_300, volume: int = 1_000) -> Bar:
    return Bar(symbol, dt.date(2025, 8, day), close, close + 100, close - 100, close, volume)


@dataclass
class Ours:
    """The follower's own store, in another database of the same server."""

    store: Store
    fence: str

    def series(self, symbol: str) -> list[Bar]:
        [(_, rows)] = self.store.series([symbol])
        return [bar_of(encoded) for _, encoded in rows]

    def begin_another_life(self) -> None:
        """As somebody who empties the server beside the running processes."""
        self.store.client.flushdb()
        fence = self.store.acquire_lease(60)
        assert fence
        self.fence = fence

    def follower(self, url: str, **options: Any) -> Follower:
        return Follower(
            self.store,
            url=url,
            refresh_interval=options.pop("refresh_interval", 300),
            history_start=epoch_of(HISTORY_START),
            stop=options.pop("stop", None) or threading.Event(),
            **options,
        )


def is_ready(store: Store) -> bool:
    state = store.state()
    return state.ready_epoch == state.position.epoch


@pytest.fixture
def ours(clean_server: redis.Redis) -> Ours:
    clock = MarketClock(frozen_at=dt.datetime(2025, 8, 15, 4, tzinfo=dt.UTC))
    url = settings.REDIS_URL.replace("db=0", "db=7")
    store = Store(connect(url, timeout=5), clock=clock, trust_window=300)
    fence = store.acquire_lease(60)
    assert fence
    return Ours(store, fence)


def let_time_pass(store: Store, *, seconds: int) -> None:
    """Since the last trusted update."""
    now, _ = store.client.time()
    store.client.set(f"{ROOT}:trusted_at", (int(now) - seconds) * 1_000)


@dataclass
class Core:
    store: Store
    fence: str
    url: str

    def merge(self, *bars: Bar) -> None:
        self.store.merge(bars, Authority.CORE, fence=self.fence)

    def replace(self, symbol: str, bars: list[Bar]) -> None:
        start = epoch_of(HISTORY_START)
        self.store.replace_series(
            symbol, bars, Authority.CORE, fence=self.fence, history_start=start
        )


@pytest.fixture
def core(clean_server: redis.Redis, live_server: Any) -> Core:
    """A core node that serves two symbols through the real API."""
    for cached in (wiring.market_clock, wiring.store, wiring.snapshots):
        cached.cache_clear()
    store = wiring.store()
    fence = store.acquire_lease(600)
    assert fence
    core = Core(store, fence, live_server.url)
    for symbol in ("VCB", "FPT"):
        core.replace(symbol, [bar(symbol, day=day) for day in (11, 12, 13, 14, 15)])
    return core


@pytest.mark.django_db(transaction=True)
class TestANodeOfOurKind:
    def test_the_first_cycle_reads_the_whole_market(self, ours: Ours, core: Core) -> None:
        cycle = ours.follower(core.url).cycle(ours.fence)
        assert (cycle.requests, cycle.series_replaced) == (1, 2)
        assert ours.series("VCB") == [bar(day=day) for day in (11, 12, 13, 14, 15)]
        assert ours.store.newest()["VCB"].authority is Authority.FOLLOWED

    def test_a_core_whose_market_is_empty_is_no_market(self, ours: Ours, core: Core) -> None:
        for symbol in ("VCB", "FPT"):
            core.store.forget(symbol)
        held = [bar(day=day) for day in (14, 15)]
        ours.store.merge(held, Authority.FOLLOWED, fence=ours.fence)
        with pytest.raises(FollowError, match="503 to /tickers: The market is empty"):
            ours.follower(core.url).cycle(ours.fence)
        assert ours.series("VCB") == held

    def test_later_cycles_read_only_what_changed(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        core.merge(bar(volume=2_000, close=64_400))
        cycle = follower.cycle(ours.fence)
        assert (cycle.requests, cycle.bars_received, cycle.bars_changed) == (1, 1, 1)
        assert ours.series("VCB")[-1] == bar(volume=2_000, close=64_400)

    def test_what_its_core_serves_is_a_complete_market(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        assert is_ready(ours.store)
        ours.begin_another_life()
        assert not is_ready(ours.store)
        follower.cycle(ours.fence)
        assert is_ready(ours.store)
        assert [b.day.day for b in ours.series("FPT")] == [11, 12, 13, 14, 15]

    def test_a_new_follower_goes_on_where_the_last_one_was(self, ours: Ours, core: Core) -> None:
        ours.follower(core.url).cycle(ours.fence)
        core.merge(bar(volume=2_000))
        assert ours.follower(core.url).cycle(ours.fence).bars_received == 1

    def test_another_address_of_the_same_store_goes_on_from_there(
        self, ours: Ours, core: Core
    ) -> None:
        ours.follower(core.url).cycle(ours.fence)
        core.merge(bar(volume=2_000))
        elsewhere = core.url.replace("localhost", "127.0.0.1")
        assert elsewhere != core.url
        cycle = ours.follower(elsewhere).cycle(ours.fence)
        assert (cycle.requests, cycle.bars_received) == (1, 1)

    def test_an_address_that_lags_is_left_for_another(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        position = core.store.state().position
        ahead = Position(position.epoch, position.revision + 5)
        place = {core.url: str(ahead), "latest": str(ahead)}
        ours.store.remember_followed(place, fence=ours.fence)
        before = ours.series("VCB")
        with pytest.raises(FollowError, match="lags behind"):
            follower.cycle(ours.fence)
        assert ours.series("VCB") == before

    def test_a_replaced_series_is_read_whole(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        adjusted = [bar(day=day, close=60_000, volume=900) for day in (11, 12, 13, 14, 15)]
        core.replace("VCB", adjusted)
        cycle = follower.cycle(ours.fence)
        assert (cycle.requests, cycle.series_replaced) == (2, 1)
        assert ours.series("VCB") == adjusted

    def test_a_correction_to_a_smaller_volume_arrives_too(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        core.merge(bar(volume=500))
        follower.cycle(ours.fence)
        assert ours.series("VCB")[-1] == bar(volume=500)

    def test_a_position_that_the_core_no_longer_knows_means_the_whole_market(
        self, ours: Ours, core: Core
    ) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        core.merge(bar(volume=2_000))
        core.store.client.set(f"{ROOT}:run_id", "another life")
        wiring.snapshots.cache_clear()
        cycle = follower.cycle(ours.fence)
        assert cycle.requests == 2
        assert ours.series("VCB")[-1] == bar(volume=2_000)

    def test_a_symbol_that_the_core_removes_is_removed(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        core.store.forget("FPT")
        follower.cycle(ours.fence)
        assert ours.store.symbols() == ["VCB"]

    def test_a_symbol_that_the_core_removed_meanwhile_is_removed(
        self, ours: Ours, core: Core
    ) -> None:
        ours.follower(core.url).cycle(ours.fence)
        core.store.forget("FPT")
        ours.store.remember_followed({}, fence=ours.fence)
        ours.follower(core.url).cycle(ours.fence)
        assert ours.store.symbols() == ["VCB"]

    def test_many_removals_at_once_wait_for_an_operator(self, ours: Ours, core: Core) -> None:
        core.replace("PVS", [bar("PVS", day=day) for day in (14, 15)])
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        core.merge(bar(volume=2_000))
        for symbol in ("FPT", "PVS"):
            core.store.forget(symbol)
        for _ in range(2):
            cycle = follower.cycle(ours.fence)
            assert cycle.errors[0].startswith("the core network has removed 2 of 3 symbols at once")
            assert ours.store.symbols() == ["FPT", "PVS", "VCB"]
            assert ours.series("VCB")[-1] == bar(volume=2_000)
        ours.store.forget("PVS", fence=ours.fence)
        assert follower.cycle(ours.fence).errors == []
        assert ours.store.symbols() == ["VCB"]

    @pytest.mark.parametrize(
        "kept", ["a" * 1_000_000 + "-1", "a-" + "9" * 300, "no position at all"]
    )
    def test_a_kept_position_that_no_core_can_have_given_out_is_no_position(
        self, ours: Ours, core: Core, kept: str
    ) -> None:
        ours.store.remember_followed({core.url: kept, "latest": kept}, fence=ours.fence)
        ours.follower(core.url).cycle(ours.fence)
        assert ours.series("VCB") == [bar(day=day) for day in (11, 12, 13, 14, 15)]

    def test_overlays_never_travel(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        lie = (bar(close=65_000, volume=5_000), "64300")
        assert core.store.lay([lie], actor="203.0.113.9", late_after=0).changed == 1
        follower.cycle(ours.fence)
        assert core.store.lay([lie], actor="203.0.113.9", late_after=0).changed == 0
        follower.cycle(ours.fence)
        assert ours.series("VCB")[-1] == bar()

    def test_a_complete_cycle_ends_every_overlay_changed_or_not(
        self, ours: Ours, core: Core
    ) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        ours.store.lay([(bar(volume=5_000), "64300")], actor="203.0.113.9", late_after=0)
        assert set(ours.store.overlays()) == {"VCB"}
        follower.cycle(ours.fence)
        assert ours.store.overlays() == {}

    def test_the_window_starts_as_much_earlier_as_the_core_is_late(
        self, ours: Ours, core: Core
    ) -> None:
        seconds, _ = core.store.client.time()
        core.store.client.set(f"{ROOT}:trusted_at", (int(seconds) - 1_000) * 1_000)
        ours.follower(core.url).cycle(ours.fence)
        age = ours.store.state().age
        assert age is not None
        assert 999 <= age < 1_100

    def test_a_market_of_which_all_is_refused_makes_nothing_fresh(
        self, ours: Ours, core: Core
    ) -> None:
        """And it is no position to go on from: without changes the next answer would be empty."""
        for symbol in ("VCB", "FPT"):
            held = [bar(symbol, day=day) for day in (4, 5, 6, 7, 8, 11, 12, 13, 14, 15)]
            ours.store.merge(held, Authority.FOLLOWED, fence=ours.fence)
            core.store.forget(symbol)
            core.replace(symbol, [bar(symbol, day=day) for day in (11, 12)])
        let_time_pass(ours.store, seconds=200)
        follower = ours.follower(core.url)
        for _ in range(2):
            cycle = follower.cycle(ours.fence)
            assert (cycle.bars_received, cycle.bars_changed, len(cycle.errors)) == (0, 0, 1)
            assert (ours.store.state().age or 0) > 199

    def test_the_contact_between_leaves_public_bars_out(self, ours: Ours, core: Core) -> None:
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        lie = (bar(close=65_000, volume=5_000), "64300")
        assert core.store.lay([lie], actor="203.0.113.9", late_after=0).changed == 1
        ours.store.remember_followed({}, fence=ours.fence)
        cycle = follower.cycle(ours.fence)
        assert (cycle.requests, cycle.bars_received) == (1, 2)
        assert ours.series("VCB")[-1] == bar()

    def test_a_lost_lease_writes_nothing(self, ours: Ours, core: Core) -> None:
        ours.store.release_lease(ours.fence)
        with pytest.raises(FencedError):
            ours.follower(core.url).cycle(ours.fence)
        assert ours.store.symbols() == []


# --- A node of the existing kind ------------------------------------------------------------------


@dataclass
class OldNode:
    """Answers as existing nodes do: the last bar only unless all=true or dates are asked for, bare
    dates, no ETag, and strangers' bars behind its own."""

    url: str = ""
    market: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    changes: tuple[int, bytes] = (404, b"")

    def answer(self, path: str) -> tuple[int, bytes]:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        if parts.path != "/tickers":
            return self.changes
        self.queries.append(query)
        if self.body is not None:
            return self.status, self.body
        [since] = query.get("start_date", [""])
        whole = query.get("all") == ["true"] or since
        served = {
            symbol: [bar for bar in bars if bar["time"] >= since] if whole else bars[-1:]
            for symbol, bars in self.market.items()
        }
        return self.status, json.dumps(served).encode()


@pytest.fixture
def old_node() -> Iterator[OldNode]:
    node = OldNode()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            status, body = node.answer(self.path)
            self.send_response(status)
            for name, value in node.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with LoopbackServer(Handler) as server:
        node.url = f"http://127.0.0.1:{server.port}"
        yield node


def wire(day: str, *, close: float = 64_300, volume: int = 1_000) -> dict[str, Any]:
    return {
        "symbol": "VCB",
        "time": day,
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": volume,
    }


class TestAnExistingNode:
    def test_bare_dates_are_read_and_the_first_bar_of_a_day_counts(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        old_node.market["VCB"] = [
            wire("2025-08-14"),
            wire("2025-08-15", volume=2_000),
            wire("2025-08-15", volume=1_500),
        ]
        ours.follower(old_node.url).cycle(ours.fence)
        assert [(b.day.day, b.volume) for b in ours.series("VCB")] == [(14, 1_000), (15, 2_000)]

    def test_what_it_serves_is_a_complete_market(self, ours: Ours, old_node: OldNode) -> None:
        for symbol in ("VCB", "FPT", "ACB", "VNINDEX"):
            days = ("2025-08-14", "2025-08-15")
            old_node.market[symbol] = [wire(day) | {"symbol": symbol} for day in days]
        follower = ours.follower(old_node.url)
        follower.cycle(ours.fence)
        assert is_ready(ours.store)
        ours.begin_another_life()
        follower.cycle(ours.fence)
        assert is_ready(ours.store)
        assert [b.day.day for b in ours.series("ACB")] == [14, 15]

    def test_what_strangers_append_is_never_followed(self, ours: Ours, old_node: OldNode) -> None:
        """Ten posts of 9.9 % each, into today and an earlier day, whole and in between."""
        true = [wire("2025-08-14", close=64_000), wire("2025-08-15", close=64_300)]
        lies = [
            wire(day, close=round(64_300 * 1.099**n), volume=1_000 + n)
            for day in ("2025-08-14", "2025-08-15", "2025-08-16")
            for n in range(1, 11)
        ]
        old_node.market["VCB"] = sorted(true + lies, key=lambda bar: str(bar["time"]))
        follower = ours.follower(old_node.url)
        for _ in range(2):
            follower.cycle(ours.fence)
            assert [b.close for b in ours.series("VCB")] == [64_000, 64_300]

    def test_between_whole_markets_only_its_latest_days_are_read(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        now = 0.0
        follower = ours.follower(old_node.url, monotonic=lambda: now)
        old_node.market["VCB"] = [wire("2025-07-31"), wire("2025-08-14"), wire("2025-08-15")]
        follower.cycle(ours.fence)
        old_node.market["VCB"][-1] = wire("2025-08-15", volume=3_000)
        assert follower.cycle(ours.fence).bars_received == 1
        assert ours.series("VCB")[-1].volume == 3_000
        now = 301.0
        assert follower.cycle(ours.fence).bars_received == 3
        assert [query.get("start_date") for query in old_node.queries] == [
            None,
            ["2025-08-01"],
            None,
        ]
        assert all(query["all"] == ["true"] for query in old_node.queries)

    def test_a_shorter_history_is_refused_and_its_newest_bars_are_merged(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        """As when the addresses of our kind fail and an older one, which keeps less, is left."""
        days = (4, 5, 6, 7, 8, 11, 12, 13, 14)
        held = [bar(day=day) for day in days]
        ours.store.replace_series(
            "VCB",
            held,
            Authority.FOLLOWED,
            fence=ours.fence,
            history_start=epoch_of(HISTORY_START),
        )
        let_time_pass(ours.store, seconds=200)
        old_node.market["VCB"] = [
            wire("2025-08-13", close=64_310),
            wire("2025-08-14", volume=2_000),
            wire("2025-08-15", close=64_500),
        ]
        cycle = ours.follower(old_node.url).cycle(ours.fence)
        assert cycle.errors == []
        assert cycle.symbol_errors == {"VCB": "the full history was refused (loses_days)"}
        assert [(b.day.day, b.close, b.volume) for b in ours.series("VCB")] == [
            *((day, 64_300, 1_000) for day in days[:-1]),
            (14, 64_300, 2_000),
            (15, 64_500, 1_000),
        ]
        assert (ours.store.state().age or 0) < 100

    def test_nothing_is_as_fresh_as_it_says_when_nothing_was_taken(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        held = [bar(day=day) for day in (11, 12, 13, 14, 15)]
        ours.store.merge(held, Authority.FOLLOWED, fence=ours.fence)
        let_time_pass(ours.store, seconds=200)
        old_node.market["VCB"] = [wire("2025-08-13")]
        follower = ours.follower(old_node.url)
        cycle = follower.cycle(ours.fence)
        assert (cycle.bars_received, len(cycle.errors)) == (0, 1)
        old_node.market = {}
        with pytest.raises(FollowError, match="no market yet"):
            follower.cycle(ours.fence)
        assert (ours.store.state().age or 0) > 199

    def test_a_contact_without_a_bar_makes_nothing_fresh(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        old_node.market["VCB"] = [wire("2025-08-15")]
        follower = ours.follower(old_node.url)
        follower.cycle(ours.fence)
        let_time_pass(ours.store, seconds=200)
        old_node.market = {"VCB": []}
        follower.cycle(ours.fence)
        assert (ours.store.state().age or 0) > 199

    @pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 414, 431])
    def test_any_refusal_of_a_position_means_the_whole_market(
        self, ours: Ours, old_node: OldNode, status: int
    ) -> None:
        old_node.market = {"VCB": [wire("2025-08-15")]}
        old_node.headers, old_node.changes = {"ETag": 'W/"a-1"'}, (status, b"")
        follower = ours.follower(old_node.url)
        for _ in range(2):
            assert follower.cycle(ours.fence).errors == []
        assert [query["all"] for query in old_node.queries] == [["true"], ["true"]]

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
    def test_a_core_that_has_no_time_is_asked_again_with_the_position(
        self, ours: Ours, old_node: OldNode, status: int
    ) -> None:
        old_node.market = {"VCB": [wire("2025-08-15")]}
        old_node.headers, old_node.changes = {"ETag": 'W/"a-1"'}, (status, b"")
        follower = ours.follower(old_node.url)
        follower.cycle(ours.fence)
        with pytest.raises(FollowError, match=str(status)):
            follower.cycle(ours.fence)
        assert len(old_node.queries) == 1

    @pytest.mark.parametrize(
        "body",
        [
            b'{"position":"a-2","replaced":7}',
            b'{"position":"a-2","bars":{}}',
            b'{"position":"a-%s"}' % (b"9" * 300),
            b'{"position":"%s-2"}' % (b"a" * 1_000_000),
            b"[" * 200_000,
            b'{"position":"a-2","bars":[%s]}' % (b"9" * 5_000),
            b"[]",
            b"",
        ],
    )
    def test_changes_that_are_none_make_a_failed_cycle_and_the_next_one_goes_on(
        self, ours: Ours, old_node: OldNode, body: bytes
    ) -> None:
        old_node.market = {"VCB": [wire("2025-08-15")]}
        old_node.headers = {"ETag": 'W/"a-1"', "X-Data-Age": "9" * 400}
        follower = ours.follower(old_node.url)
        follower.cycle(ours.fence)
        old_node.changes = (200, body)
        with pytest.raises(FollowError):
            follower.cycle(ours.fence)
        good = {"position": "a-2", "bars": [wire("2025-08-15", volume=2_000)], "replaced": []}
        old_node.changes = (200, json.dumps(good).encode())
        follower.cycle(ours.fence)
        assert ours.series("VCB")[-1].volume == 2_000

    def test_symbols_that_are_refused_make_one_line(self, ours: Ours, old_node: OldNode) -> None:
        ours.store.merge([bar(f"S{n}") for n in range(3_000)], Authority.INTERNAL)
        old_node.market = {f"T{n}": [{**wire("2025-08-15"), "symbol": f"T{n}"}] for n in range(100)}
        cycle = ours.follower(old_node.url).cycle(ours.fence)
        (line,) = cycle.errors
        assert line.startswith("100 series were refused (full): T0, T1")

    def test_one_wrong_bar_spoils_only_itself(self, ours: Ours, old_node: OldNode) -> None:
        old_node.market["VCB"] = [wire("2025-08-14"), wire("yesterday"), wire("2025-08-15")]
        cycle = ours.follower(old_node.url).cycle(ours.fence)
        assert cycle.bars_dropped == 1
        assert len(ours.series("VCB")) == 2

    @pytest.mark.parametrize(
        ("status", "body", "says"),
        [
            (500, b"", "answered 500 to /tickers$"),
            (500, b"<html>", "answered 500 to /tickers$"),
            (400, b'{"detail": "Use another name."}', "answered 400 to /tickers: Use another name"),
            (302, b"", "answered 302 to /tickers$"),
            (200, b"<html>", "something else than JSON"),
            (200, b"[]", "something else than a market"),
            (200, b"{}", "no market yet"),
        ],
    )
    def test_anything_else_is_an_error_that_says_what_happened(
        self, ours: Ours, old_node: OldNode, status: int, body: bytes, says: str
    ) -> None:
        old_node.status, old_node.body = status, body
        old_node.headers["Location"] = "http://127.0.0.1:9/elsewhere"
        with pytest.raises(FollowError, match=says):
            ours.follower(old_node.url).cycle(ours.fence)
        assert ours.store.symbols() == []
        assert ours.store.state().age is None

    def test_a_node_that_is_away_is_an_error(self, ours: Ours) -> None:
        with pytest.raises(FollowError, match="can't be reached"):
            ours.follower("http://127.0.0.1:9").cycle(ours.fence)


def drip_headers(peer: BadPeer, connection: socket.socket) -> None:
    hear(connection)
    peer.send(connection, b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not peer.closing.wait(0.02):
        peer.send(connection, b"x")


def drip_body(peer: BadPeer, connection: socket.socket) -> None:
    hear(connection)
    peer.send(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{")
    while not peer.closing.wait(0.02):
        peer.send(connection, b" ")


class TestASlowNode:
    @pytest.mark.parametrize("part", [drip_headers, drip_body])
    def test_it_is_left_when_its_time_is_over(self, ours: Ours, part: Any) -> None:
        with bad_peer(part) as core:
            follower = ours.follower(core.url, total_timeout=0.5)
            before = time.monotonic()
            with pytest.raises(FollowError, match=r"wasn't complete after 0\.5 s"):
                follower.cycle(ours.fence)
            assert time.monotonic() - before < 1.5

    @pytest.mark.parametrize("part", [drip_headers, drip_body])
    def test_it_is_left_at_once_when_the_node_stops(self, ours: Ours, part: Any) -> None:
        stop = threading.Event()

        def begin(peer: BadPeer, connection: socket.socket) -> None:
            stop.set()
            part(peer, connection)

        with bad_peer(begin) as core:
            follower = ours.follower(core.url, total_timeout=30, stop=stop)
            before = time.monotonic()
            with pytest.raises(FollowError, match="stopped"):
                follower.cycle(ours.fence)
            assert time.monotonic() - before < 2


def test_positions_are_ordered_within_an_epoch() -> None:
    assert Position("a", 2) < Position("a", 10)


# --- What can't be right --------------------------------------------------------------------------


def a_history(symbol: str, factor: float = 1.0) -> list[Bar]:
    """Closes that wander, differently for each symbol, on trading days until today."""
    seed, price, bars = sum(map(ord, symbol)), 20_000.0 + 137 * sum(map(ord, symbol)), []
    days = [TODAY - dt.timedelta(days=back) for back in reversed(range(40))]
    for at, day in enumerate(filter(is_trading_day, days)):
        first, price = price, price * (1 + ((seed * (at + 3) * 7_919) % 61 - 30) / 1_500)
        high, low = max(first, price) + 100, min(first, price) - 100
        prices = (first * factor, high * factor, low * factor, price * factor)
        bars.append(Bar(symbol, day, *prices, 100_000 + at))
    return bars


@pytest.mark.django_db(transaction=True)
class TestSuspects:
    @pytest.fixture
    def follower(self, ours: Ours, core: Core) -> Follower:
        for symbol in ("VCB", "FPT"):
            core.store.forget(symbol)
            core.replace(symbol, a_history(symbol))
        follower = ours.follower(core.url)
        follower.cycle(ours.fence)
        return follower

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            (a_history("VCB", 1000), Reason.BEYOND),
            ([replace(b, symbol="VCB") for b in a_history("FPT")], Reason.UNSTEADY),
        ],
    )
    def test_a_core_that_says_what_cant_be_right_is_not_followed_in_that(
        self, ours: Ours, core: Core, follower: Follower, wrong: list[Bar], reason: Reason
    ) -> None:
        core.replace("VCB", wrong)
        core.merge(replace(a_history("FPT")[-1], volume=900_000))
        cycle = follower.cycle(ours.fence)
        assert cycle.errors == []
        assert ours.series("VCB") == a_history("VCB")
        assert ours.series("FPT")[-1].volume == 900_000
        assert {s: held.reason for s, held in ours.store.suspects().items()} == {"VCB": reason}
        core.merge(replace(wrong[-1], volume=950_000))
        follower.cycle(ours.fence)
        assert ours.series("VCB") == a_history("VCB")
        core.replace("VCB", a_history("VCB"))
        follower.cycle(ours.fence)
        assert ours.store.suspects() == {}

    def test_a_bar_beyond_ten_times_is_not_merged(
        self, ours: Ours, core: Core, follower: Follower
    ) -> None:
        good = a_history("VCB")
        core.merge(replace(a_history("VCB", 1000)[-1], volume=900_000))
        follower.cycle(ours.fence)
        assert ours.series("VCB") == good
        assert set(ours.store.suspects()) == {"VCB"}
        core.merge(replace(good[-1], volume=950_000))
        follower.cycle(ours.fence)
        assert ours.series("VCB")[-1].volume == 950_000
        assert ours.store.suspects() == {}

    def test_a_suspect_is_read_again_by_itself_and_taken_when_the_core_stays_with_it(
        self, ours: Ours, core: Core, follower: Follower, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = [replace(b, symbol="VCB") for b in a_history("FPT")]
        core.replace("VCB", other)
        follower.cycle(ours.fence)
        now = ours.store.now() + 11 * 60_000
        monkeypatch.setattr(ours.store, "now", lambda: now)
        follower.cycle(ours.fence)
        assert ours.series("VCB") == other
        assert ours.store.suspects() == {}

    def test_an_ordinary_ex_date_is_followed_at_once(
        self, ours: Ours, core: Core, follower: Follower
    ) -> None:
        core.replace("VCB", a_history("VCB", 0.5))
        follower.cycle(ours.fence)
        assert ours.series("VCB") == a_history("VCB", 0.5)


class TestClosedDays:
    def test_a_closed_days_bar_of_an_existing_node_is_dropped_and_counted(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        old_node.market["VCB"] = [wire("2025-08-10"), wire("2025-08-14"), wire("2025-08-15")]
        cycle = ours.follower(old_node.url).cycle(ours.fence)
        assert cycle.bars_dropped == 1
        assert [b.day.day for b in ours.series("VCB")] == [14, 15]

    def test_what_half_of_its_market_has_shows_a_trading_day(
        self, ours: Ours, old_node: OldNode
    ) -> None:
        for symbol in (f"S{n:02}" for n in range(12)):
            old_node.market[symbol] = [
                {**wire(day), "symbol": symbol} for day in ("2025-08-10", "2025-08-15")
            ]
        follower = ours.follower(old_node.url)
        follower.cycle(ours.fence)
        assert ours.store.state().trading_days == {dt.date(2025, 8, 10)}
        follower.cycle(ours.fence)
        assert [b.day.day for b in ours.series("S00")] == [10, 15]
