"""A core node's worker as its peers meet it. The store is the real server; only time is ours."""

import functools
import itertools
from functools import partial
from typing import Any

from gossip.delivery.delivery import Delivery
from gossip.delivery.peer import Peer
from tests.support.bars import bar, wait_until
from tests.support.peers import PATIENCE, Node
from tickers.bar import Bar
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

until = functools.partial(wait_until, timeout=PATIENCE)


class Time:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lead(store: Store) -> str:
    """Take the lease, whoever holds it: as if the holder's time had run out."""
    store.client.delete(f"{ROOT}:lease")
    fence = store.acquire_lease(60)
    assert fence
    return fence


class Core:
    """It leads, fetches, and delivers."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.time = Time()
        self.fence = ""
        self.deliveries: list[Delivery] = []
        self.numbers = itertools.count()
        self.lead()

    def lead(self) -> None:
        self.fence = lead(self.store)

    def fetch(self, *bars: Bar) -> None:
        self.store.merge(bars, Authority.CORE, fence=self.fence)
        self.wake()

    def deliver(self, *peers: Peer, **options: Any) -> Delivery:
        delivery = Delivery(
            store=self.store,
            peers=peers,
            **{
                "clock": self.store.clock,
                "monotonic": self.time,
                "jitter": lambda most: most,
                **options,
            },
        )
        self.deliveries.append(delivery)
        delivery.start(self.fence)
        return delivery

    def wake(self) -> None:
        for delivery in self.deliveries:
            delivery.wake()

    def after(self, seconds: float) -> None:
        self.time.now += seconds
        self.wake()


def until_taken(delivery: Delivery, bars: int, kind: str = "internal") -> None:
    """Until its ledger says that so many bars were taken, and nothing is lacking."""
    until(lambda: delivery.status()[kind]["sent"] == bars)
    until(lambda: delivery.status()[kind]["lacking"] == 0)


def settle(core: Core, node: Node, marker: str = "ZZZ") -> list[list[str]]:
    """What the node got before a marker that is fetched now: all that it will get."""
    core.fetch(bar(marker))
    until(lambda: any(marker in symbols for symbols in node.symbols))
    before = node.symbols[:-1]
    assert node.symbols[-1] == [marker], node.symbols
    return before


def lacking_of(delivery: Delivery) -> int:
    lacking = delivery.status()["internal"]["lacking"]
    assert isinstance(lacking, int)
    return lacking


def lacks_more_than(delivery: Delivery, count: int) -> bool:
    return lacking_of(delivery) > count


def looks_without_sending(core: Core, node: Node) -> None:
    """Twice the delivery is seen to look at the store, and the node gets nothing of it."""
    count, delivery = len(node.received), core.deliveries[0]
    for _ in range(2):
        lacking = lacking_of(delivery)
        core.fetch(bar(f"NEW{next(core.numbers)}"))
        until(partial(lacks_more_than, delivery, lacking))
    assert len(node.received) == count, node.symbols
