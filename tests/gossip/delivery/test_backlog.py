"""What a peer lacks: which bars it gets, how many in a request, and when."""

from functools import partial

from gossip.delivery.backlog import MAX_BARS
from tests.support.bars import FRIDAY, exchange_time
from tests.support.core import Core, settle, until, until_taken
from tests.support.doors import TODAY, YESTERDAY, a_bar
from tests.support.peers import TOKEN, Gate, Node, Nodes, Received, internal, public
from tickers.market_clock import MarketClock
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

LATE_EVENING = exchange_time(FRIDAY, 20)


def has_got_more(node: Node, than: int) -> bool:
    return len(node.received) > than


class TestGossip:
    def test_an_internal_peer_gets_what_it_lacks_as_one_list(
        self, core: Core, nodes: Nodes
    ) -> None:
        bars = [a_bar("FPT"), a_bar("VCB", day=YESTERDAY, price=64_300.5)]
        core.fetch(*bars)
        node = nodes()
        core.deliver(internal(node))
        (request,) = node.wait_for(1)
        assert request.path == "/gossip"
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.headers["Content-Type"] == "application/json"
        assert request.body == b"[" + bars[0].encode() + b"," + bars[1].encode() + b"]"

    def test_one_bar_is_sent_as_it_is(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        assert node.wait_for(1)[0].body == a_bar("VCB").encode()

    def test_the_longest_waiting_come_first(self, core: Core, nodes: Nodes) -> None:
        for symbol in ("VCB", "FPT", "ACB"):
            core.fetch(a_bar(symbol))
        node = nodes()
        core.deliver(internal(node))
        assert node.wait_for(1)[0].symbols == ["VCB", "FPT", "ACB"]

    def test_many_bars_come_in_several_lists(self, core: Core, nodes: Nodes) -> None:
        core.fetch(*(a_bar(f"S{i:04}") for i in range(MAX_BARS + 3)))
        node = nodes()
        core.deliver(internal(node))
        assert [len(request.bars) for request in node.wait_for(2)] == [MAX_BARS, 3]

    def test_what_came_by_gossip_or_by_following_is_not_passed_on(
        self, core: Core, store: Store, nodes: Nodes
    ) -> None:
        node = nodes()
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        store.merge([a_bar("VCB", volume=2_000_000)], Authority.INTERNAL)
        store.merge([a_bar("ACB")], Authority.FOLLOWED)
        core.deliver(internal(node))
        node.wait_for(1)
        assert settle(core, node) == [["FPT"]]

    def test_overlays_never_travel(self, core: Core, store: Store, nodes: Nodes) -> None:
        core.fetch(a_bar("VCB", price=64_300))
        lie = a_bar("VCB", price=70_000, volume=2_000_000)
        laid = store.lay([(lie, "64300")], actor="203.0.113.9", late_after=0)
        assert laid.changed == 1
        node = nodes()
        core.deliver(internal(node))
        assert node.wait_for(1)[0].bars[0]["close"] == 64_300
        assert len(settle(core, node)) == 1

    def test_a_slow_peer_gets_the_newest_bar_of_each_symbol_and_nothing_between(
        self, core: Core, nodes: Nodes
    ) -> None:
        gate = Gate()
        node = nodes(gate)
        core.deliver(internal(node))
        core.fetch(a_bar("VCB", volume=1))
        node.wait_for(1)
        for volume in range(2, 6):
            core.fetch(a_bar("VCB", volume=volume), a_bar("FPT", volume=volume))
        gate.opened.set()
        bars = node.wait_for(2)[1].bars
        assert [(bar["symbol"], bar["volume"]) for bar in bars] == [("FPT", 5), ("VCB", 5)]
        assert len(settle(core, node)) == 2


class TestPublicPeers:
    def test_they_get_bars_of_the_current_trading_day_only(self, core: Core, nodes: Nodes) -> None:
        core.fetch(a_bar("FPT", day=YESTERDAY), a_bar("VCB", day=TODAY))
        node = nodes()
        delivery = core.deliver(public(node))
        node.wait_for(1)
        assert settle(core, node) == [["VCB"]]
        until(lambda: delivery.status()["public"]["lacking"] == 0)

    def test_they_get_nothing_outside_office_hours(self, core: Core, nodes: Nodes) -> None:
        core.fetch(a_bar("VCB"))
        node, colleague = nodes(), nodes()
        evening = MarketClock(frozen_at=LATE_EVENING)
        assert evening.trading_day() == TODAY
        core.deliver(public(node), internal(colleague), clock=evening)
        colleague.wait_for(1)
        core.deliveries[0].stop(timeout=2)
        assert node.received == []

    def test_a_symbol_is_sent_at_most_once_a_minute(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        core.deliver(public(node))
        core.fetch(a_bar("VCB", volume=1))
        node.wait_for(1)
        for volume in (2, 3, 4):
            core.fetch(a_bar("VCB", volume=volume))
        assert settle(core, node) == [["VCB"]]
        core.after(59)
        assert settle(core, node, "ZZ2") == [["VCB"], ["ZZZ"]]
        core.after(2)
        assert node.wait_for(4)[3].bars[0]["volume"] == 4

    def test_the_minute_outlasts_the_process(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        first = core.deliver(public(node))
        core.fetch(a_bar("VCB", volume=1))
        until(lambda: first.status()["public"]["sent"] == 1)
        first.stop(timeout=2)
        core.fetch(a_bar("VCB", volume=2))
        core.lead()
        core.deliver(public(node))
        assert settle(core, node) == [["VCB"]]
        core.after(61)
        assert node.wait_for(3)[2].bars[0]["volume"] == 2

    def test_a_peer_that_takes_a_bar_every_ten_seconds_gets_every_symbol_in_turn(
        self, core: Core, nodes: Nodes
    ) -> None:
        """The existing Rust node: no lists, one bar every 10 s, 429 to the rest."""
        let_through_at = core.time.now
        taken: list[tuple[str, int]] = []

        def rust(request: Received) -> None:
            nonlocal let_through_at
            if request.is_list:
                return request.answer(422)
            if core.time.now < let_through_at:
                return request.answer(429)
            let_through_at = core.time.now + 10
            taken.append((request.symbols[0], request.bars[0]["volume"]))
            return request.answer(200)

        symbols = [f"S{i}" for i in range(8)]
        core.fetch(*(a_bar(symbol, volume=1) for symbol in symbols))
        node = nodes(rust)
        delivery = core.deliver(public(node))
        volume = 1
        while len(taken) < 16:
            volume += 1
            core.fetch(*(a_bar(symbol, volume=volume) for symbol in symbols))
            seen = len(node.received)
            core.after(5)
            with node.noted:
                node.noted.wait_for(partial(has_got_more, node, seen), 0.05)
        assert {symbol for symbol, _ in taken[:8]} == set(symbols)
        assert [symbol for symbol, _ in taken[8:]] == [symbol for symbol, _ in taken[:8]]
        volumes = [v for _, v in taken]
        assert volumes == sorted(volumes)
        assert volumes[-1] > volumes[0] + 8
        assert delivery.status()["public"]["failing"] == 0


class TestInternalPeers:
    def test_a_peer_that_was_sent_nothing_for_a_minute_gets_its_newest_bar_again(
        self, core: Core, nodes: Nodes
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        for count, symbol in enumerate(("VCB", "FPT"), start=1):
            core.fetch(a_bar(symbol))
            until_taken(delivery, count)
        core.after(59)
        assert settle(core, node) == [["VCB"], ["FPT"]]
        for count in (3, 4):
            until_taken(delivery, count)
            core.after(61)
            assert node.wait_for(count + 1)[count].symbols == ["ZZZ"]

    def test_it_gets_none_when_our_own_data_is_out_of_date(
        self, core: Core, store: Store, nodes: Nodes
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        until_taken(delivery, 1)
        seconds, _ = store.client.time()
        store.client.set(f"{ROOT}:fetched_at", (int(seconds) - 301) * 1000)
        core.time.now += 61
        delivery.stop(timeout=2)  # which takes a last look
        assert node.symbols == [["VCB"]]
