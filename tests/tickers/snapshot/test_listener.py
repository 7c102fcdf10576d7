"""The listener: a change is read moments after it was logged, however long snapshots last."""

from typing import Any

from tests.support.bars import OwnServer, a_store, bar, wait_until
from tickers.snapshot.listener import Listener
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.snapshot.snapshot import Selection
from tickers.store.store import Store
from tickers.verdict import Authority

FOR_EVER = 3_600.0  # seconds


def served(refresher: SnapshotRefresher) -> bytes:
    return refresher.current().body(None, Selection())


def is_waiting(store: Store) -> bool:
    """Whether a client waits in the server for a change."""
    return any(client["cmd"] == "xread" for client in store.client.client_list())


def calls(store: Store) -> int:
    """How many scripts were called: merge, and what a refresh asks the store."""
    statistics: Any = store.client.info("commandstats")
    return int(statistics["cmdstat_evalsha"]["calls"])


def test_a_change_is_read_though_the_snapshot_would_last_for_ever(store: Store) -> None:
    store.merge([bar(volume=1)], Authority.INTERNAL)
    refresher = SnapshotRefresher(store, lifetime=FOR_EVER)
    assert b'"volume":1}' in served(refresher)
    Listener(store, refresher).start()
    wait_until(lambda: is_waiting(store))
    for volume in (2, 3, 4):  # the later ones may come between two waits
        store.merge([bar(volume=volume)], Authority.INTERNAL)
    wait_until(lambda: b'"volume":4}' in served(refresher))


def test_it_goes_on_when_the_store_comes_back(own_server: OwnServer) -> None:
    store = a_store(own_server.client)
    store.merge([bar(volume=1)], Authority.INTERNAL)
    refresher = SnapshotRefresher(store, lifetime=FOR_EVER)
    served(refresher)
    listener = Listener(store, refresher)
    listener.start()
    wait_until(lambda: is_waiting(store))
    own_server.stop()
    own_server.start()
    wait_until(lambda: is_waiting(store))
    store.merge([bar(volume=5)], Authority.INTERNAL)
    store.complete_cycle(fence=store.acquire_lease(60) or "")
    wait_until(lambda: b'"volume":5}' in served(refresher))


def test_it_ends_with_its_refresher(store: Store) -> None:
    refresher = SnapshotRefresher(store, lifetime=FOR_EVER)
    listener = Listener(store, refresher)
    listener.start()
    del refresher
    listener.join(timeout=10)
    assert not listener.is_alive()


def test_what_is_read_is_refreshed_before_the_next_read(store: Store) -> None:
    refresher = SnapshotRefresher(store, lifetime=FOR_EVER)
    store.merge([bar(volume=1)], Authority.INTERNAL)
    served(refresher)
    store.merge([bar(volume=2)], Authority.INTERNAL)
    refresher.store_changed()
    asked = calls(store)
    assert b'"volume":2}' in served(refresher)
    assert calls(store) == asked


def test_what_nobody_reads_is_left_until_somebody_does(store: Store) -> None:
    refresher = SnapshotRefresher(store, lifetime=FOR_EVER)
    store.merge([bar(volume=1)], Authority.INTERNAL)
    served(refresher)
    for volume in (2, 3):
        store.merge([bar(volume=volume)], Authority.INTERNAL)
        refresher.store_changed()
    asked = calls(store)
    store.merge([bar(volume=4)], Authority.INTERNAL)
    refresher.store_changed()
    assert calls(store) == asked + 1  # merge's own
    assert b'"volume":4}' in served(refresher)
