"""What becomes of a peer's answers: what is sent next, and what is told."""

import logging
import socket
from functools import partial

import pytest

from gossip.delivery.delivery import Delivery
from gossip.delivery.peer import Peer, PeerKind
from tests.support.core import Core, looks_without_sending, settle, until, until_taken
from tests.support.doors import a_bar
from tests.support.peers import TOKEN, Nodes, always, in_turn, internal, public, refuse_lists, take


def counts(delivery: Delivery, **expected: int) -> bool:
    """Whether its internal peers' counters have come to these figures."""
    told = delivery.status()["internal"]
    return {name: told[name] for name in expected} == expected


class TestLists:
    @pytest.mark.parametrize("status", [400, 413, 415, 422])
    def test_a_peer_that_refuses_lists_gets_single_bars(
        self, core: Core, nodes: Nodes, status: int
    ) -> None:
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        node = nodes(refuse_lists(status))
        delivery = core.deliver(internal(node))
        node.wait_for(3)
        assert settle(core, node) == [["FPT", "VCB"], ["FPT"], ["VCB"]]
        assert delivery.status()["internal"]["refused"] == 0

    def test_it_is_offered_a_list_again_after_a_while(self, core: Core, nodes: Nodes) -> None:
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        node = nodes(refuse_lists(422))
        delivery = core.deliver(internal(node))
        node.wait_for(3)
        core.after(590)
        core.fetch(a_bar("VCB", volume=1), a_bar("FPT", volume=1))
        until(lambda: {1} <= {bar["volume"] for bar in node.received[-1].bars})
        until(lambda: delivery.status()["internal"]["lacking"] == 0)
        assert [request.is_list for request in node.received].count(True) == 1
        node.behaviour = take
        core.after(20)
        core.fetch(a_bar("VCB", volume=2), a_bar("FPT", volume=2))
        until(lambda: ["FPT", "VCB"] in node.symbols[3:])

    def test_a_list_whose_every_bar_was_judged_is_not_sent_bar_by_bar(
        self, core: Core, nodes: Nodes
    ) -> None:
        """A public peer counts implausible requests: one is enough."""
        core.fetch(a_bar("VCB"), a_bar("FPT"))
        detail = b'{"detail": "Implausible price change"}'
        node = nodes(in_turn(lambda request: request.answer(400, detail), take))
        delivery = core.deliver(public(node))
        until(lambda: delivery.status()["public"]["refused"] == 2)
        assert settle(core, node) == [["FPT", "VCB"]]


class TestRefusals:
    @pytest.mark.parametrize("status", [400, 422])
    def test_a_refused_bar_is_dropped_until_it_changes(
        self, core: Core, nodes: Nodes, status: int
    ) -> None:
        node = nodes(in_turn(always(status), take))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB", volume=1))
        until(lambda: delivery.status()["internal"]["refused"] == 1)
        assert settle(core, node) == [["VCB"]]
        core.fetch(a_bar("VCB", volume=2))
        assert node.wait_for(3)[2].bars[0]["volume"] == 2

    def test_refusals_are_told_once_and_not_bar_by_bar(
        self, core: Core, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        node = nodes(always(422))
        delivery = core.deliver(internal(node))
        for count in range(1, 6):
            core.fetch(a_bar(f"S{count}"))
            until(partial(counts, delivery, refused=count))
        assert len([r for r in caplog.records if "refuses bars" in r.message]) == 1


class TestRetries:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_they_wait_for_the_backoff_and_send_the_newest_bar(
        self, core: Core, nodes: Nodes, status: int
    ) -> None:
        node = nodes(in_turn(always(status), take))
        core.deliver(internal(node))
        core.fetch(a_bar("VCB", volume=1))
        node.wait_for(1)
        core.fetch(a_bar("VCB", volume=2))
        looks_without_sending(core, node)
        core.after(0.3)
        assert node.wait_for(2)[1].bars[0]["volume"] == 2

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_obeyed(self, core: Core, nodes: Nodes, status: int) -> None:
        node = nodes(in_turn(always(status, Retry_After="30"), take))
        core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        node.wait_for(1)
        looks_without_sending(core, node)
        core.after(29)
        looks_without_sending(core, node)
        core.after(2)
        node.wait_for(2)

    def test_a_peer_that_is_down_gets_everything_when_it_is_back(
        self, core: Core, nodes: Nodes, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "gossip")
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        peer = Peer(f"http://127.0.0.1:{port}", PeerKind.INTERNAL, TOKEN)
        delivery = core.deliver(peer)
        core.fetch(*(a_bar(f"S{i:03}", volume=1) for i in range(200)))
        for failures in range(1, 6):
            until(partial(counts, delivery, failures=failures))
            core.fetch(*(a_bar(f"S{i:03}", volume=failures + 1) for i in range(200)))
            core.after(3)
        until(lambda: delivery.status()["internal"]["failures"] == 6)
        assert delivery.status()["internal"]["failing"] == 1
        node = nodes(port=port)
        core.after(3)
        (request,) = node.wait_for(1)
        assert {bar["volume"] for bar in request.bars} == {6}
        assert len(request.bars) == 200
        until_taken(delivery, 200)
        lines = [record.getMessage() for record in caplog.records]
        assert [line for line in lines if f"127.0.0.1:{port}" in line] == [
            f"peer 127.0.0.1:{port} is unreachable (Connection refused); its bars wait",
            f"peer 127.0.0.1:{port} is back; it lacked 200 bars",
        ]


class TestStoppedPeers:
    @pytest.mark.parametrize(
        ("status", "seconds", "remedy"),
        [
            (401, 60, "PRIMARY_TOKEN"),
            (403, 300, "PRIMARY_TOKEN"),
            (404, 60, "INTERNAL_PEER_URLS"),
            (405, 60, "INTERNAL_PEER_URLS"),
        ],
    )
    def test_they_are_left_alone_for_a_while_and_told_of_once(
        self,
        core: Core,
        nodes: Nodes,
        caplog: pytest.LogCaptureFixture,
        status: int,
        seconds: float,
        remedy: str,
    ) -> None:
        node = nodes(in_turn(always(status), always(status), take))
        delivery = core.deliver(internal(node))
        core.fetch(a_bar("VCB"))
        for count in (1, 2):
            until(partial(counts, delivery, failures=count))
            core.after(seconds - 1)
            looks_without_sending(core, node)
            core.after(2)
        assert "VCB" in node.wait_for(3)[2].symbols
        until(lambda: delivery.status()["internal"]["reachable"] == 1)
        (line,) = [r.getMessage() for r in caplog.records if "wants nothing" in r.message]
        assert remedy in line
        assert str(status) in line
        assert TOKEN not in caplog.text
