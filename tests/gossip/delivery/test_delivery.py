"""Delivery to all peers: none waits for another, and all begin and end with the lead."""

import datetime as dt
import threading
import time
from functools import partial

import pytest

from gossip.delivery.delivery import Delivery
from tests.support.core import Core, settle, until
from tests.support.doors import a_bar
from tests.support.peers import Gate, Nodes, always, in_turn, internal, public, refuse_lists
from tickers.store.store import ROOT, Store


def has_failed(delivery: Delivery, times: int) -> bool:
    return delivery.status()["internal"]["failures"] == times


def test_no_peer_waits_for_one_that_hangs(core: Core, nodes: Nodes) -> None:
    hanging, healthy = nodes(Gate()), nodes()
    core.deliver(internal(hanging), internal(healthy), public(hanging))
    for count in range(1, 21):
        core.fetch(a_bar("VCB", volume=count))
        healthy.wait_for(count)
    assert len(hanging.received) == 2


class TestLeading:
    def test_the_next_delivery_sends_only_what_is_new(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        first = core.deliver(internal(node))
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        until(lambda: first.status()["internal"]["sent"] == 2)
        first.stop(timeout=2)
        core.lead()
        core.deliver(internal(node))
        assert settle(core, node) == [["FPT", "VCB"]]

    def test_the_ledger_of_a_removed_peer_is_deleted(
        self, core: Core, store: Store, nodes: Nodes
    ) -> None:
        kept, removed = nodes(), nodes()
        core.fetch(a_bar("VCB"))
        both = core.deliver(internal(kept), internal(removed))
        until(lambda: both.status()["internal"]["sent"] == 2)
        both.stop(timeout=2)
        core.deliver(internal(kept))
        ledgers = store.client.keys(f"{ROOT}:ledger:*")
        assert ledgers == [f"{ROOT}:ledger:".encode() + internal(kept).id.encode()]

    def test_without_peers_no_ledger_stays(self, core: Core, store: Store, nodes: Nodes) -> None:
        core.fetch(a_bar("VCB"))
        delivery = core.deliver(internal(nodes()))
        until(lambda: delivery.status()["internal"]["sent"] == 1)
        core.deliver()
        assert store.client.keys(f"{ROOT}:ledger*") == []

    def test_a_start_under_a_lost_lease_sends_nothing(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        core.fetch(a_bar("VCB"))
        lost = core.fence
        core.lead()
        delivery = Delivery(store=core.store, peers=[internal(node)], clock=core.store.clock)
        delivery.start(lost)
        until(lambda: delivery.status()["internal"]["idle"] == 1)
        assert node.received == []


class TestStop:
    def test_it_leaves_within_two_seconds_while_a_peer_hangs(
        self, core: Core, nodes: Nodes
    ) -> None:
        hanging = [nodes(Gate()) for _ in range(3)]
        delivery = core.deliver(*(internal(node) for node in hanging))
        core.fetch(a_bar("VCB"))
        for node in hanging:
            node.wait_for(1)
        threads = [t for t in threading.enumerate() if t.name.startswith("delivery to")]
        assert len(threads) == 3
        started = time.monotonic()
        delivery.stop(timeout=2)
        assert time.monotonic() - started < 2
        assert not any(thread.is_alive() for thread in threads)

    def test_it_leaves_at_once_when_nobody_hangs(self, core: Core, nodes: Nodes) -> None:
        node, refusing = nodes(), nodes(always(401))
        delivery = core.deliver(internal(node), public(node), internal(refusing))
        core.fetch(a_bar("VCB"))
        node.wait_for(2)
        started = time.monotonic()
        delivery.stop(timeout=2)
        assert time.monotonic() - started < 2

    def test_what_was_fetched_before_it_is_still_sent(self, core: Core, nodes: Nodes) -> None:
        """As after run_worker --once; a peer without lists needs several requests."""
        node = nodes(refuse_lists(400))
        delivery = core.deliver(internal(node))
        core.fetch(*(a_bar(f"S{i}") for i in range(20)))
        delivery.stop(timeout=5)
        assert sorted(s for request in node.received[1:] for s in request.symbols) == sorted(
            f"S{i}" for i in range(20)
        )

    def test_a_stopped_delivery_can_start_again(self, core: Core, nodes: Nodes) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        delivery.stop(timeout=2)
        assert delivery.status()["internal"]["idle"] == 1
        delivery.start(core.fence)
        core.fetch(a_bar("VCB"))
        node.wait_for(1)


def test_the_status_counts_and_names_no_address(core: Core, nodes: Nodes) -> None:
    core.fetch(a_bar("VCB"), a_bar("FPT"))
    node, down = nodes(), nodes(always(403))
    delivery = core.deliver(internal(node), internal(down), public(node))
    expected = {
        "internal": {
            "peers": 2,
            "reachable": 1,
            "failing": 1,
            "idle": 0,
            "banned_by": 0,
            "banned_since": None,
            "away": 0,
            "away_since": None,
            "older": 0,
            "frozen": 0,
            "frozen_since": None,
            "sent": 2,
            "refused": 0,
            "failures": 1,
            "lacking": 2,
            "withheld": 0,
        },
        "public": {
            "peers": 1,
            "reachable": 1,
            "failing": 0,
            "idle": 0,
            "banned_by": 0,
            "banned_since": None,
            "away": 0,
            "away_since": None,
            "older": 0,
            "frozen": 0,
            "frozen_since": None,
            "sent": 2,
            "refused": 0,
            "failures": 0,
            "lacking": 0,
            "withheld": 0,
        },
    }
    until(lambda: delivery.status() == expected)


class TestOutages:
    """What /health makes a problem of."""

    def test_a_public_peer_that_bans_us_is_counted_at_once(self, core: Core, nodes: Nodes) -> None:
        core.fetch(a_bar("VCB"))
        delivery = core.deliver(public(nodes(always(403))), public(nodes()))
        until(lambda: delivery.status()["public"]["banned_by"] == 1)
        since = dt.datetime.fromisoformat(str(delivery.status()["public"]["banned_since"]))
        assert abs(dt.datetime.now(dt.UTC) - since) < dt.timedelta(seconds=60)
        assert delivery.status()["public"]["away"] == 0

    @pytest.mark.parametrize("status", [403, 401, 404, 503])
    def test_a_peer_is_away_when_it_took_nothing_for_five_minutes(
        self, core: Core, nodes: Nodes, status: int
    ) -> None:
        core.fetch(a_bar("VCB"))
        delivery = core.deliver(internal(nodes(always(status))))

        failures = 3 if status == 503 else 1  # that open the circuit
        for times in range(1, failures + 1):
            until(partial(has_failed, delivery, times))
            if times < failures:
                core.after(2.5)
        until(lambda: delivery.status()["internal"]["failing"] == 1)
        core.after(299)
        if status != 403:  # which is tried again after 300 s
            until(lambda: delivery.status()["internal"]["failures"] == failures + 1)
        assert delivery.status()["internal"]["away"] == 0
        core.after(301)
        until(lambda: delivery.status()["internal"]["away"] == 1)
        assert delivery.status()["internal"]["banned_by"] == 0
        since = dt.datetime.fromisoformat(str(delivery.status()["internal"]["away_since"]))
        assert since <= dt.datetime.now(dt.UTC) - dt.timedelta(seconds=599)

    def test_a_peer_that_alternates_503_and_429_is_told_of(
        self, core: Core, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        core.fetch(a_bar("VCB"))
        node = nodes(in_turn(*[always(503), always(429)] * 10))
        delivery = core.deliver(internal(node))

        def asks_again() -> bool:
            core.after(10)
            return len(node.received) >= 8

        until(asks_again)
        until(lambda: delivery.status()["internal"]["failing"] == 1)
        (line,) = [r.getMessage() for r in caplog.records if "unreachable" in r.getMessage()]
        assert "503" in line
