"""The ledger: what each peer has taken, on the real server."""

import pytest
import redis

from gossip.delivery.ledger import Ledger, delete_others
from tests.support.core import Time, lead
from tests.support.doors import a_bar
from tickers.store.store import ROOT, FencedError, Store
from tickers.verdict import Authority

ALICE, BOB = "a" * 16, "b" * 16


@pytest.fixture
def fence(store: Store) -> str:
    return lead(store)


@pytest.fixture
def now() -> Time:
    return Time()


def open_ledger(store: Store, fence: str, now: Time, peer_id: str = ALICE) -> Ledger:
    ledger = Ledger(store.client, peer_id=peer_id, fence=fence, monotonic=now)
    ledger.refresh()
    return ledger


def fetch(store: Store, fence: str, *symbols: str, volume: int = 1) -> dict[str, int]:
    """A fetch of our own brings bars; returns what has changed."""
    store.merge([a_bar(s, volume=volume) for s in symbols], Authority.CORE, fence=fence)
    return store.changed()


def begin_another_life(store: Store) -> None:
    """As after a restart: the store finds that it runs in another server than before."""
    store.client.set(f"{ROOT}:run_id", "0" * 40)


class TestWhatAPeerLacks:
    def test_everything_at_first(self, store: Store, fence: str, now: Time) -> None:
        changed = fetch(store, fence, "VCB", "FPT")
        assert open_ledger(store, fence, now).lacking(changed) == ["FPT", "VCB"]

    def test_nothing_that_it_has_taken(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        changed = fetch(store, fence, "VCB", "FPT")
        ledger.take({"VCB": changed["VCB"]})
        assert ledger.lacking(changed) == ["FPT"]

    def test_what_changed_while_it_was_sent(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        read_before = fetch(store, fence, "VCB")
        changed = fetch(store, fence, "VCB", volume=2)
        ledger.take(read_before)
        assert ledger.lacking(changed) == ["VCB"]

    def test_the_longest_waiting_first(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        fetch(store, fence, "VCB")
        fetch(store, fence, "FPT")
        assert ledger.lacking(fetch(store, fence, "ACB")) == ["VCB", "FPT", "ACB"]

    def test_what_keeps_changing_keeps_its_place(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        ledger.lacking(fetch(store, fence, "VCB"))
        ledger.lacking(fetch(store, fence, "FPT"))
        assert ledger.lacking(fetch(store, fence, "VCB", volume=2)) == ["VCB", "FPT"]

    def test_what_was_taken_goes_to_the_end(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        changed = fetch(store, fence, "VCB")
        ledger.lacking(changed)
        ledger.take(changed)
        ledger.lacking(fetch(store, fence, "FPT"))
        assert ledger.lacking(fetch(store, fence, "VCB", volume=2)) == ["FPT", "VCB"]

    def test_of_bars_that_changed_together_the_one_taken_longest_ago_first(
        self, store: Store, fence: str, now: Time
    ) -> None:
        ledger = open_ledger(store, fence, now)
        ledger.take(fetch(store, fence, "VCB"))
        ledger.take({"ACB": fetch(store, fence, "ACB")["ACB"]})
        assert ledger.lacking(fetch(store, fence, "ACB", "VCB", volume=2)) == ["VCB", "ACB"]


class TestTime:
    def test_it_knows_when_a_bar_was_taken(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        assert (ledger.taken_at("VCB"), ledger.last_taken_at) == (None, None)
        ledger.take({"VCB": 1})
        now.now += 5
        ledger.take({"FPT": 2})
        assert (ledger.taken_at("VCB"), ledger.last_taken_at) == (1000, 1005)

    def test_another_process_knows_it_too(self, store: Store, fence: str, now: Time) -> None:
        open_ledger(store, fence, now).take({"VCB": 1})
        seconds, microseconds = store.client.time()
        taken_ms = int(seconds) * 1000 + int(microseconds) // 1000 - 40_000
        store.client.hset(f"{ROOT}:ledger:" + ALICE, "VCB", f"1 {taken_ms}")
        now.now = 77_000.0
        age = 77_000 - (open_ledger(store, fence, now).taken_at("VCB") or 0)
        assert 39.9 < age < 50


class TestLives:
    def test_it_survives_its_process(self, store: Store, fence: str, now: Time) -> None:
        changed = fetch(store, fence, "VCB", "FPT")
        open_ledger(store, fence, now).take({"VCB": changed["VCB"]})
        assert open_ledger(store, lead(store), now).lacking(changed) == ["FPT"]

    def test_each_peer_has_its_own(self, store: Store, fence: str, now: Time) -> None:
        changed = fetch(store, fence, "VCB")
        open_ledger(store, fence, now, ALICE).take(changed)
        assert open_ledger(store, fence, now, BOB).lacking(changed) == ["VCB"]

    def test_what_a_former_life_of_the_store_sent_is_not_noted(
        self, store: Store, fence: str, now: Time
    ) -> None:
        ledger = open_ledger(store, fence, now)
        changed = fetch(store, fence, "VCB")
        begin_another_life(store)
        ledger.take(changed)
        assert store.client.hgetall(f"{ROOT}:ledger:" + ALICE) == {}
        ledger.refresh()
        assert ledger.lacking(changed) == ["VCB"]

    def test_in_a_new_life_it_is_read_again(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        changed = fetch(store, fence, "VCB")
        ledger.take(changed)
        store.client.delete(f"{ROOT}:ledger:" + ALICE)  # the older state knows nothing of it
        ledger.refresh()
        assert ledger.lacking(changed) == []
        begin_another_life(store)
        ledger.refresh()
        assert ledger.lacking(changed) == ["VCB"]

    def test_a_store_that_came_back_older_is_lacked_again(
        self, store: Store, fence: str, now: Time
    ) -> None:
        ledger = open_ledger(store, fence, now)
        ledger.take({"VCB": 90})
        begin_another_life(store)
        ledger.refresh()
        assert ledger.lacking({"VCB": 70}) == ["VCB"]

    def test_what_redis_could_not_take_is_noted_later(
        self, store: Store, fence: str, now: Time
    ) -> None:
        ledger = open_ledger(store, fence, now)
        changed = fetch(store, fence, "VCB")
        limit = store.client.config_get("maxmemory")["maxmemory"] or "0"
        store.client.config_set("maxmemory", "1")
        try:
            with pytest.raises(redis.OutOfMemoryError):
                ledger.take(changed)
        finally:
            store.client.config_set("maxmemory", limit)
        assert ledger.lacking(changed) == []
        assert not store.client.exists(f"{ROOT}:ledger:" + ALICE)
        ledger.refresh()
        assert open_ledger(store, fence, now).lacking(changed) == []


class TestFence:
    def test_a_former_leader_notes_nothing(self, store: Store, fence: str, now: Time) -> None:
        ledger = open_ledger(store, fence, now)
        lead(store)
        with pytest.raises(FencedError):
            ledger.take({"VCB": 1})
        assert not store.client.exists(f"{ROOT}:ledger:" + ALICE)

    def test_a_former_leader_learns_it_before_it_sends(
        self, store: Store, fence: str, now: Time
    ) -> None:
        ledger = open_ledger(store, fence, now)
        lead(store)
        with pytest.raises(FencedError):
            ledger.refresh()

    def test_nobody_notes_anything_once_the_lease_has_run_out(
        self, store: Store, fence: str, now: Time
    ) -> None:
        ledger = open_ledger(store, fence, now)
        store.release_lease(fence)
        with pytest.raises(FencedError):
            ledger.take({"VCB": 1})

    def test_a_former_leader_deletes_nothing(self, store: Store, fence: str, now: Time) -> None:
        open_ledger(store, fence, now).take({"VCB": 1})
        lead(store)
        with pytest.raises(FencedError):
            delete_others(store.client, fence=fence, peer_ids=[])
        assert store.client.exists(f"{ROOT}:ledger:" + ALICE)


def test_removed_peers_leave_nothing_behind(store: Store, fence: str, now: Time) -> None:
    before = set(store.client.keys())
    for peer_id in (ALICE, BOB):
        open_ledger(store, fence, now, peer_id).take({"VCB": 1})
    assert delete_others(store.client, fence=fence, peer_ids=[ALICE]) == 1
    assert store.client.exists(f"{ROOT}:ledger:" + ALICE)
    assert not store.client.exists(f"{ROOT}:ledger:" + BOB)
    assert delete_others(store.client, fence=fence, peer_ids=[]) == 1
    assert set(store.client.keys()) - before <= {
        f"{ROOT}:run_id".encode(),
        f"{ROOT}:epoch".encode(),
    }
