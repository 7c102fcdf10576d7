"""Older nodes among our peers: what their answers and their market tell, and what they get."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.delivery.delivery import Delivery
from gossip.delivery.older import FROZEN_AFTER, LOOK_EVERY, OlderNode, is_settled, settles_public
from gossip.delivery.peer import Peer, PeerKind
from gossip.wire import body_of
from tests.support.bars import FRIDAY, exchange_time, let_time_pass
from tests.support.core import Core, until
from tests.support.doors import TODAY, YESTERDAY, a_bar
from tests.support.peers import Node, Nodes, OldNode, Received, internal, public, take
from tickers.bar import Bar
from tickers.market_clock import MarketClock
from tickers.store.records import Newest
from tickers.store.store import ROOT
from tickers.verdict import Authority

SYMBOLS = ("VCB", "FPT", "ACB")


class Hours:
    """The market's clock, which stands until it is set."""

    def __init__(self, hour: int, minute: int = 0) -> None:
        self.set(hour, minute)
        self.clock = MarketClock(wall_time=lambda: self.now)

    def set(self, hour: int, minute: int = 0, *, day: dt.date = FRIDAY) -> None:
        moment = exchange_time(day, hour) + dt.timedelta(minutes=minute)
        self.now = moment.timestamp()


def market(volume: int, *, day: dt.date = TODAY, price: float = 64_300) -> list[Bar]:
    return [a_bar(symbol, day=day, volume=volume, price=price) for symbol in SYMBOLS]


def volumes(old: OldNode) -> dict[str, int]:
    return {symbol: old.last(symbol)["volume"] for symbol in SYMBOLS if symbol in old.market}


def lacks_nothing(delivery: Delivery, kind: str = "internal") -> bool:
    told = delivery.status()[kind]
    return told["lacking"] == 0 and told["sent"] != 0


def send(core: Core, delivery: Delivery, node: Node, *bars: Bar) -> None:
    """Fetch, and wait until the peer has answered to the last of it."""
    before = len(node.received)
    core.fetch(*bars)
    until(lambda: len(node.received) >= before + len(bars))
    until(lambda: lacks_nothing(delivery))


def status(delivery: Delivery, kind: str = "internal") -> dict[str, Any]:
    return delivery.status()[kind]


def wait_out(core: Core, condition: Callable[[], bool], *, step: float = 1) -> None:
    """Until it happens, while the peers' time goes on."""

    def happens() -> bool:
        core.after(step)
        return condition()

    until(happens)


def fifteen_minutes_pass(core: Core, *, day: dt.date = TODAY) -> None:
    """In which the store's bars don't change; a new symbol makes delivery read them anew."""
    let_time_pass(core.store.client, seconds=901)
    core.fetch(a_bar(f"NEW{next(core.numbers)}", day=day))


def frozen(core: Core, nodes: Nodes, hours: Hours, *more: Peer) -> tuple[OldNode, Node, Delivery]:
    """A peer that was found frozen at its first bars of the day."""
    old = OldNode()
    node = nodes(old)
    core.fetch(*market(900, day=YESTERDAY))
    delivery = core.deliver(internal(node), *more, clock=hours.clock)
    until(lambda: len(old.market) == 3)
    send(core, delivery, node, *market(100))
    send(core, delivery, node, *market(200))
    core.after(FROZEN_AFTER + 1)
    until(lambda: status(delivery)["frozen"] == 1)
    # The keep-alive that is due by now is noted, as no revision that could be lacking.
    ledger = f"{ROOT}:ledger:{internal(node).id}"
    noted: Any = core.store.client
    until(lambda: any(text.startswith(b"0 ") for text in noted.hvals(ledger)))
    return old, node, delivery


def looks_and_sends_nothing(core: Core, delivery: Delivery, node: Node) -> None:
    """Delivery ends, which takes a last look, and begins again."""
    sent = len(node.received)
    delivery.stop(timeout=2)
    assert [r.symbols for r in node.received[sent:]] == []
    delivery.start(core.fence)


class TestAnInternalOne:
    def test_it_gets_every_change_until_it_is_found_frozen(self, core: Core, nodes: Nodes) -> None:
        old, hours = OldNode(), Hours(10)
        node = nodes(old)
        delivery = core.deliver(internal(node), clock=hours.clock)
        for volume in (100, 200, 300):
            send(core, delivery, node, *market(volume))
        assert len(node.received) >= 9
        assert status(delivery)["older"] == 1
        core.after(FROZEN_AFTER - 1)
        send(core, delivery, node, *market(400))
        assert (old.looks, status(delivery)["frozen"]) == ([], 0)

    def test_one_that_keeps_its_first_bars_is_found_frozen_by_one_plain_look(
        self, core: Core, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        old, _, delivery = frozen(core, nodes, Hours(10))
        assert old.looks == ["/tickers"]
        since = dt.datetime.fromisoformat(str(status(delivery)["frozen_since"]))
        assert abs(dt.datetime.now(dt.UTC) - since) < dt.timedelta(minutes=1)
        assert sum("is frozen" in record.getMessage() for record in caplog.records) == 1

    def test_a_frozen_one_gets_no_change_of_a_day_that_goes_on(
        self, core: Core, nodes: Nodes
    ) -> None:
        _, node, delivery = frozen(core, nodes, Hours(10))
        core.fetch(*market(300))
        looks_and_sends_nothing(core, delivery, node)
        assert status(delivery)["lacking"] == 0

    def test_it_gets_the_settled_bar_of_the_next_day_and_serves_the_right_market(
        self, core: Core, nodes: Nodes
    ) -> None:
        """The promise: what an older node without a fetch of its own serves at night is true."""
        hours = Hours(10)
        old, node, delivery = frozen(core, nodes, hours)
        monday = FRIDAY + dt.timedelta(days=3)
        core.store.clock = hours.clock
        hours.set(10, day=monday)
        core.fetch(*market(100, day=monday))
        core.fetch(*market(500, day=monday))
        looks_and_sends_nothing(core, delivery, node)
        hours.set(15, 16, day=monday)
        core.fetch(*market(500, day=monday))  # unchanged after the close
        looks_and_sends_nothing(core, delivery, node)  # but not for 15 min
        fifteen_minutes_pass(core, day=monday)
        until(lambda: volumes(old) == dict.fromkeys(SYMBOLS, 500))
        until(lambda: lacks_nothing(delivery))
        looks_and_sends_nothing(core, delivery, node)

    def test_its_keep_alive_is_the_settled_bar_of_the_day_before(
        self, core: Core, nodes: Nodes
    ) -> None:
        old, node, _ = frozen(core, nodes, Hours(10))
        before = len(node.received)
        wait_out(core, lambda: len(node.received) >= before + 3, step=20)
        for last in node.received[before:]:
            assert last.bars[0]["time"].startswith(YESTERDAY.isoformat())
            assert last.bars[0]["volume"] == 900
        assert volumes(old) == dict.fromkeys(SYMBOLS, 100)

    def test_one_that_fetches_by_itself_is_not_frozen(self, core: Core, nodes: Nodes) -> None:
        old, hours = OldNode(), Hours(10)
        node = nodes(old)
        delivery = core.deliver(internal(node), clock=hours.clock)
        send(core, delivery, node, *market(100))
        send(core, delivery, node, *market(200))
        old.fetch(*({**old.last(symbol), "volume": 190} for symbol in SYMBOLS))
        core.after(FROZEN_AFTER + 1)
        until(lambda: len(old.looks) == 1)
        send(core, delivery, node, *market(300))
        assert status(delivery)["frozen"] == 0

    def test_a_frozen_one_that_begins_to_fetch_gets_every_change_again(
        self, core: Core, nodes: Nodes
    ) -> None:
        hours = Hours(10)
        old, node, delivery = frozen(core, nodes, hours)
        core.fetch(*market(300))
        old.fetch(*({**old.last(symbol), "volume": 290} for symbol in SYMBOLS))
        before = len(node.received)
        core.after(LOOK_EVERY + 1)
        until(lambda: status(delivery)["frozen"] == 0)
        node.wait_for(before + 3)
        until(lambda: lacks_nothing(delivery))

    def test_it_is_looked_at_once_an_hour(self, core: Core, nodes: Nodes) -> None:
        old, node, _ = frozen(core, nodes, Hours(10))
        before = len(node.received)
        core.after(LOOK_EVERY - 1)
        node.wait_for(before + 1)  # a keep-alive: a turn has passed
        assert len(old.looks) == 1
        core.after(2)
        until(lambda: len(old.looks) == 2)

    def test_it_stays_frozen_for_the_next_process(self, core: Core, nodes: Nodes) -> None:
        hours = Hours(10)
        old, node, first = frozen(core, nodes, hours)
        first.stop(timeout=2)
        core.lead()
        core.fetch(*market(300))
        before = len(node.received)
        second = core.deliver(internal(node), clock=hours.clock)
        until(lambda: status(second)["frozen"] == 1)
        assert (status(second)["lacking"], len(node.received), len(old.looks)) == (0, before, 1)

    def test_one_that_began_anew_gets_the_last_settled_bars_again(
        self, core: Core, nodes: Nodes
    ) -> None:
        hours = Hours(10)
        old, _, delivery = frozen(core, nodes, hours)
        old.market.clear()
        core.after(LOOK_EVERY + 1)
        until(lambda: volumes(old) == dict.fromkeys(SYMBOLS, 900))
        assert status(delivery)["frozen"] == 1

    def test_one_that_becomes_ours_gets_everything_at_once(self, core: Core, nodes: Nodes) -> None:
        old, node, delivery = frozen(core, nodes, Hours(10))
        core.fetch(*market(300))
        node.behaviour = take
        before = len(node.received)
        core.after(61)  # the keep-alive, whose answer tells
        until(lambda: (status(delivery)["frozen"], status(delivery)["older"]) == (0, 0))
        until(lambda: {b["volume"] for r in node.received[before + 1 :] for b in r.bars} == {300})
        assert len(old.looks) == 1

    def test_what_is_known_of_a_removed_peer_is_deleted(self, core: Core, nodes: Nodes) -> None:
        _, node, delivery = frozen(core, nodes, Hours(10))
        key = f"{ROOT}:older:{internal(node).id}"
        assert core.store.client.hkeys(key)
        delivery.stop(timeout=2)
        core.deliver()
        assert not core.store.client.exists(key)

    @pytest.mark.parametrize(
        "body",
        [b"", b"[" * 100_000, b"7", b"x" * 17_000_000, b'{"VCB":7}', b'{"VCB":[7]}', b'{"VCB":[]}'],
    )
    def test_a_look_that_shows_nothing_stops_nothing(
        self, core: Core, nodes: Nodes, body: bytes
    ) -> None:
        class Broken(OldNode):
            def tickers(self) -> bytes:
                return body

        old, hours = Broken(), Hours(10)
        node = nodes(old)
        delivery = core.deliver(internal(node), clock=hours.clock)
        send(core, delivery, node, *market(100))
        send(core, delivery, node, *market(200))
        core.after(FROZEN_AFTER + 1)
        send(core, delivery, node, *market(300))
        assert status(delivery)["frozen"] == 0


class TestAPublicOne:
    def deliver(self, core: Core, nodes: Nodes, hours: Hours) -> tuple[OldNode, Node, Delivery]:
        """It has had a bar of each symbol during the day."""
        old = OldNode(time=core.time)
        node = nodes(old)
        delivery = core.deliver(public(node), clock=hours.clock)
        core.fetch(*market(100))
        wait_out(core, lambda: len(old.market) == 3 and len(old.looks) == 1)
        return old, node, delivery

    def test_it_gets_the_settled_bar_once_and_never_again(self, core: Core, nodes: Nodes) -> None:
        hours = Hours(14, 50)
        old, node, delivery = self.deliver(core, nodes, hours)
        hours.set(15, 10)
        core.fetch(*market(500))
        fifteen_minutes_pass(core)
        before = len(node.received)
        core.after(100)
        delivery.stop(timeout=2)
        assert len(node.received) == before
        hours.set(15, 20)
        core.fetch(*market(500))
        delivery.start(core.fence)
        # A new process sends nothing before it has seen what the peer serves.
        wait_out(core, lambda: volumes(old) == dict.fromkeys(SYMBOLS, 500), step=60)
        core.fetch(*market(600))
        fifteen_minutes_pass(core)
        for _ in range(2):
            delivery.stop(timeout=2)
            core.lead()
            delivery = core.deliver(public(node), clock=hours.clock)
            looks = len(old.looks)
            wait_out(core, lambda looks=looks: len(old.looks) > looks, step=60)  # type: ignore[misc]
        delivery.stop(timeout=2)
        assert volumes(old) == dict.fromkeys(SYMBOLS, 500)
        assert len([r for r in node.received if r.bars[0]["volume"] == 600]) == 0

    def test_it_gets_nothing_after_five(self, core: Core, nodes: Nodes) -> None:
        hours = Hours(14, 50)
        _, node, delivery = self.deliver(core, nodes, hours)
        hours.set(17)
        core.fetch(*market(500))
        fifteen_minutes_pass(core)
        before = len(node.received)
        core.after(100)
        delivery.stop(timeout=2)
        assert len(node.received) == before

    @pytest.mark.parametrize(
        "stranger", [{"close": 80_000, "high": 80_000}, {"close": 80_000}, {"close": 71_500}]
    )
    def test_it_is_never_sent_a_bar_that_would_count_against_us(
        self, core: Core, nodes: Nodes, stranger: dict[str, int]
    ) -> None:
        """A stranger has moved what it judges by, maybe with what is no bar."""
        hours = Hours(14, 50)
        old, node, delivery = self.deliver(core, nodes, hours)
        old.append({**old.last("VCB"), **stranger})
        wait_out(core, lambda: len(old.looks) == 2, step=60)
        core.fetch(*market(200))
        wait_out(core, lambda: (volumes(old)["FPT"], volumes(old)["ACB"]) == (200, 200))
        until(lambda: status(delivery, "public")["withheld"] == 1)
        hours.set(15, 20)
        core.fetch(*market(500))
        fifteen_minutes_pass(core)
        wait_out(core, lambda: (volumes(old)["FPT"], volumes(old)["ACB"]) == (500, 500))
        delivery.stop(timeout=2)
        assert old.failures == 0
        assert {r.bars[0]["volume"] for r in node.received if r.symbols == ["VCB"]} == {100}

    def test_a_bar_that_counted_is_not_followed_by_another_before_the_next_look(
        self, core: Core, nodes: Nodes
    ) -> None:
        old, _, delivery = self.deliver(core, nodes, Hours(14))
        old.append({**old.last("VCB"), "close": 80_000})
        for volume in (200, 300, 400):
            core.after(61)
            core.fetch(*market(volume))
            wait_out(core, lambda volume=volume: volumes(old)["FPT"] == volume)  # type: ignore[misc]
        assert old.failures <= 1
        assert status(delivery, "public")["banned_by"] == 0


def test_one_of_ours_is_never_looked_at(core: Core, nodes: Nodes) -> None:
    """A node of ours that got a GET would fail the test: it has no market here."""
    node, hours = nodes(), Hours(10)
    delivery = core.deliver(internal(node), public(node), clock=hours.clock)
    for volume in (100, 200):
        core.fetch(*market(volume))
        core.after(LOOK_EVERY)
        until(lambda: lacks_nothing(delivery) and lacks_nothing(delivery, "public"))
    assert status(delivery)["older"] == status(delivery, "public")["older"] == 0


@pytest.mark.parametrize("body", [b"", b"{}", b"ok", b'"OK"', b"OK!"])
def test_only_a_plain_ok_is_an_older_nodes_answer(core: Core, nodes: Nodes, body: bytes) -> None:
    def answer(request: Received) -> None:
        request.answer(200, body)

    node = nodes(answer)
    delivery = core.deliver(internal(node))
    core.fetch(a_bar("VCB"))
    until(lambda: lacks_nothing(delivery))
    assert status(delivery)["older"] == 0


# --- As values ------------------------------------------------------------------------------------


def newest(bar: Bar) -> Newest:
    close = bar.price_texts[3]
    return Newest(bar.epoch, Authority.CORE, bar.volume, close, 0, bar.encode())


def an_older(kind: PeerKind, *bars: Bar) -> OlderNode:
    older = OlderNode(kind)
    older.learn(is_plain_ok=True)
    for bar in bars:
        older.took(body_of([bar.encode()]), now=0, settled=False)
    return older


traded = st.integers(1, 10**9)


@given(first=traded, ours=st.lists(traded, min_size=3, max_size=3), trading=st.booleans())
def test_one_that_serves_what_we_have_is_never_frozen(
    first: int, ours: list[int], trading: bool
) -> None:
    older = an_older(PeerKind.INTERNAL, *market(first))
    bars = {s: a_bar(s, volume=first + v) for s, v in zip(SYMBOLS, ours, strict=True)}
    for now in (FROZEN_AFTER, 2 * FROZEN_AFTER):
        mine = {symbol: newest(bar) for symbol, bar in bars.items()}
        older.serves(bars, mine, now=now, at=1, trading=trading)
        assert not older.is_frozen


@given(first=traded, moved=traded, trading=st.booleans())
def test_one_is_frozen_by_most_of_its_symbols_and_not_before_ten_minutes(
    first: int, moved: int, trading: bool
) -> None:
    for stuck in range(4):
        older = an_older(PeerKind.INTERNAL, *market(first))
        mine = {bar.symbol: newest(bar) for bar in market(first + moved)}
        served = {bar.symbol: bar for bar in market(first)}
        served |= {bar.symbol: bar for bar in market(first + moved)[stuck:]}
        older.serves(served, mine, now=FROZEN_AFTER - 1, at=1, trading=trading)
        assert not older.is_frozen
        older.serves(served, mine, now=FROZEN_AFTER, at=1, trading=trading)
        assert older.is_frozen == (stuck >= 2)


def test_one_is_frozen_at_another_nodes_first_bars_too() -> None:
    """Or at those of an earlier process of ours: what a look shows is known from then on."""
    older = an_older(PeerKind.INTERNAL, *market(500))
    served = {bar.symbol: bar for bar in market(300)}
    older.serves(served, {b.symbol: newest(b) for b in market(600)}, now=100, at=1, trading=True)
    assert not older.is_frozen
    older.serves(served, {b.symbol: newest(b) for b in market(900)}, now=3_700, at=1, trading=True)
    assert older.is_frozen


def test_at_night_nothing_shows_that_it_moves_again() -> None:
    older = OlderNode(PeerKind.INTERNAL)
    older.restore({"older": "1", "frozen": "1"}, looked_at=0)
    settled = {bar.symbol: bar for bar in market(900)}
    mine = {symbol: newest(bar) for symbol, bar in settled.items()}
    older.serves(settled, mine, now=4_000, at=2, trading=False)
    assert older.is_frozen


@given(served=st.integers(1_000, 10**6), ours=st.integers(1_000, 10**6))
def test_what_is_sent_to_a_public_one_is_never_a_failure_by_what_it_serves(
    served: int, ours: int
) -> None:
    older = an_older(PeerKind.PUBLIC, a_bar("VCB", price=served))
    counts = older.counts_against_us("VCB", newest(a_bar("VCB", price=ours)))
    assert counts == (abs(float(ours) - float(served)) / float(served) > 0.10)


class TestSettledBars:
    FETCHED = 60.0  # seconds ago
    NOW = 10**12

    def settled(self, hours: Hours, *, unchanged: float, since_fetch: float | None = 60) -> bool:
        bar = newest(a_bar("VCB"))
        changed_at = round(self.NOW - unchanged * 1000)
        bar = Newest(bar.day, bar.authority, bar.volume, bar.anchor, changed_at, bar.json)
        return is_settled(bar, clock=hours.clock, now_ms=self.NOW, since_fetch=since_fetch)

    def test_after_the_close_and_unchanged_for_15_minutes_though_we_fetched(self) -> None:
        assert self.settled(Hours(15, 17), unchanged=900)
        assert not self.settled(Hours(15, 17), unchanged=899)
        assert not self.settled(Hours(15, 14), unchanged=3_600)
        assert not self.settled(Hours(15, 17), unchanged=3_600, since_fetch=None)

    def test_a_bar_that_nobody_fetched_after_the_close_is_not(self) -> None:
        """The worker was away since noon."""
        assert not self.settled(Hours(20), unchanged=8 * 3_600, since_fetch=8 * 3_600)

    def test_public_ones_get_theirs_on_a_trading_day_before_five(self) -> None:
        times = ((15, 14), (15, 15), (16, 59), (17, 0), (8, 0))
        assert [settles_public(Hours(*time).clock) for time in times] == [
            False,
            True,
            True,
            False,
            False,
        ]
        saturday = Hours(16)
        saturday.set(16, day=FRIDAY + dt.timedelta(days=1))
        assert not settles_public(saturday.clock)
