"""Delivery to one peer: when it looks, what it notes as taken, and when it ends or waits."""

import time

import pytest

from tests.support.core import Core, until
from tests.support.doors import a_bar, store_lost
from tests.support.peers import Gate, Nodes, internal
from tickers.store.store import ROOT, Store


def test_a_change_is_on_its_way_at_once(core: Core, nodes: Nodes) -> None:
    node = nodes()
    core.deliver(internal(node))
    core.fetch(a_bar("VCB"))
    node.wait_for(1)
    started = time.monotonic()
    core.fetch(a_bar("VCB", volume=2_000_000))
    node.wait_for(2)
    assert time.monotonic() - started < 2


def test_nothing_counts_as_taken_before_the_answer(core: Core, store: Store, nodes: Nodes) -> None:
    gate = Gate()
    node = nodes(gate)
    peer = internal(node)
    delivery = core.deliver(peer)
    core.fetch(a_bar("VCB"))
    node.wait_for(1)
    assert not store.client.exists(f"{ROOT}:ledger:" + peer.id)
    gate.opened.set()
    until(lambda: bool(store.client.exists(f"{ROOT}:ledger:" + peer.id)))
    until(lambda: delivery.status()["internal"]["sent"] == 1)


class TestLease:
    def test_it_ends_with_its_lease_and_begins_with_the_next(
        self, core: Core, nodes: Nodes
    ) -> None:
        node = nodes()
        delivery = core.deliver(internal(node))
        core.lead()
        core.fetch(a_bar("VCB"))
        until(lambda: delivery.status()["internal"]["idle"] == 1)
        assert node.received == []
        delivery.start(core.fence)
        assert node.wait_for(1)[0].symbols == ["VCB"]
        assert delivery.status()["internal"]["idle"] == 0

    def test_what_was_answered_after_the_lease_was_lost_is_not_noted(
        self, core: Core, store: Store, nodes: Nodes
    ) -> None:
        gate = Gate()
        node = nodes(gate)
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        core.lead()
        gate.opened.set()
        until(lambda: delivery.status()["internal"]["idle"] == 1)
        assert not store.client.exists(f"{ROOT}:ledger:" + internal(node).id)


class TestStoreAway:
    def test_delivery_goes_on_when_the_store_is_back(
        self, core: Core, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        node = nodes()
        core.fetch(a_bar("VCB"))
        with store_lost(core.store):
            core.deliver(internal(node))
            until(lambda: "the store fails" in caplog.text)
        core.after(1)
        assert node.wait_for(1)[0].symbols == ["VCB"]

    def test_it_is_told_once(
        self, core: Core, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        with store_lost(core.store):
            delivery = core.deliver(internal(nodes()))
            until(lambda: "the store fails" in caplog.text)
            delivery.stop(timeout=2)  # which takes a last look
        messages = [record.getMessage() for record in caplog.records]
        assert len([line for line in messages if "the store fails" in line]) == 1
        assert len([line for line in messages if "until the next start" in line]) == 1
