"""The lease: one worker leads, another takes over, and nobody writes under a lease that is over."""

import logging
import threading
from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from tests.support.bars import (
    FRIDAY,
    OwnServer,
    a_store,
    bar,
    clock_at,
    exchange_time,
    wait_until,
)
from tickers.store import lease
from tickers.store.lease import Lease
from tickers.store.redis_client import connect
from tickers.store.store import ROOT, FencedError, Store
from tickers.verdict import Authority

KEY = f"{ROOT}:lease"


@pytest.fixture
def standby(clean_server: redis.Redis) -> Iterator[Store]:
    """The store as another worker, with a connection of its own, reaches it."""
    with connect(settings.REDIS_URL, timeout=5) as client:
        yield a_store(client)


@pytest.fixture(autouse=True)
def quick_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL", 0.02)


def test_a_lease_has_one_holder(store: Store, standby: Store) -> None:
    leads, waits = Lease(store), Lease(standby)
    fence = leads.try_acquire()
    assert fence is not None
    assert leads.fence == leads.try_acquire() == fence
    assert waits.try_acquire() is None
    assert waits.fence is None


def test_a_lease_goes_to_one_of_many_who_ask_at_once(clean_server: redis.Redis) -> None:
    fences, start = [], threading.Barrier(8)

    def ask() -> None:
        with connect(settings.REDIS_URL, timeout=5) as client:
            worker = Lease(a_store(client))
            start.wait(5)
            fences.append(worker.try_acquire())

    workers = [threading.Thread(target=ask) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(fences) == 8
    assert len([fence for fence in fences if fence]) == 1


def test_the_lease_of_a_killed_leader_runs_out_and_the_standby_takes_over(
    store: Store, standby: Store
) -> None:
    killed, waits = Lease(store, lifetime=0.2), Lease(standby)  # never entered: nobody renews
    earlier = killed.try_acquire()
    assert earlier is not None
    assert waits.try_acquire() is None
    wait_until(lambda: waits.try_acquire() is not None)
    assert killed.fence is None
    assert waits.fence != earlier
    with pytest.raises(FencedError):
        store.merge([bar()], Authority.CORE, fence=earlier)
    assert standby.merge([bar()], Authority.CORE, fence=waits.fence or "").changed == 1


def test_a_lease_is_given_up_no_later_than_the_store_gives_it_away(store: Store) -> None:
    """Its own reckoning begins before the store's, so two workers never both think they lead."""
    worker = Lease(store, lifetime=0.1)
    worker.try_acquire()
    wait_until(lambda: not store.client.exists(KEY))
    assert worker.fence is None


def test_a_lease_is_renewed_while_a_cycle_takes_longer_than_it_lasts(
    store: Store, standby: Store
) -> None:
    waits = Lease(standby)
    with Lease(store, lifetime=0.3) as leads:
        fence = leads.try_acquire()
        over = threading.Event()
        timer = threading.Timer(1.0, over.set)
        timer.start()
        while not over.wait(0.02):
            assert leads.fence == fence is not None
            assert waits.try_acquire() is None
        timer.join()
        assert store.merge([bar()], Authority.CORE, fence=fence or "").changed == 1


def test_a_lease_that_is_lost_is_noticed(
    store: Store, store_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Lease(store) as worker:
        assert worker.try_acquire() is not None
        store_client.set(KEY, "9:anothers")
        wait_until(lambda: worker.fence is None)
        assert worker.try_acquire() is None
        assert "another worker leads" in caplog.text
    assert store_client.get(KEY) == b"9:anothers"


def test_a_lease_that_was_lost_is_acquired_again_under_another_fence(
    store: Store, store_client: redis.Redis
) -> None:
    with Lease(store) as worker:
        earlier = worker.try_acquire()
        store_client.delete(KEY)
        wait_until(lambda: worker.fence is None)
        later = worker.try_acquire()
        assert later not in (None, earlier)


def test_a_lease_is_released_by_who_leaves(store: Store, standby: Store) -> None:
    waits = Lease(standby)
    with Lease(store) as leads:
        leads.try_acquire()
        assert waits.try_acquire() is None
    assert leads.fence is None
    assert waits.try_acquire() is not None


def test_the_lease_of_another_is_not_released_by_who_leaves(store: Store, standby: Store) -> None:
    leads = Lease(standby)
    leads.try_acquire()
    with Lease(store) as waits:
        waits.try_acquire()
    standby.merge([bar()], Authority.CORE, fence=leads.fence or "")
    assert store.client.exists(KEY)


def test_fences_differ_between_lives_of_the_store(store: Store, store_client: redis.Redis) -> None:
    earlier = Lease(store).try_acquire()
    store_client.flushall()
    later = Lease(store).try_acquire()
    assert earlier is not None
    assert later not in (None, earlier)


class SlowRenewal(Store):
    """Its answer to a renewal is held up."""

    asked: threading.Event
    may_answer: threading.Event

    def renew_lease(self, fence: str, lifetime: float) -> bool:
        renewed = super().renew_lease(fence, lifetime)
        self.asked.set()
        assert self.may_answer.wait(10)
        return renewed


@pytest.mark.parametrize("renewed", [False, True], ids=["lost", "renewed"])
def test_late_news_of_an_earlier_lease_does_not_touch_the_present_one(
    store_client: redis.Redis, renewed: bool
) -> None:
    store = SlowRenewal(store_client, clock=clock_at(exchange_time(FRIDAY, 10)), trust_window=300)
    store.asked, store.may_answer = threading.Event(), threading.Event()
    worker = Lease(store, lifetime=0.5)
    earlier = worker.try_acquire()
    if not renewed:
        store_client.delete(KEY)
    with worker:
        assert store.asked.wait(5)
        wait_until(lambda: worker.try_acquire() not in (None, earlier))
        later = worker.fence
        store.asked.clear()
        store.may_answer.set()
        assert store.asked.wait(5)  # the next renewal: the one before has been told
        assert worker.fence == later is not None


def test_a_lease_ends_by_itself_while_the_store_is_away(
    own_server: OwnServer, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        Lease(a_store(own_server.client), lifetime=0.3) as worker,
    ):
        assert worker.try_acquire() is not None
        own_server.stop()
        wait_until(lambda: worker.fence is None)
    assert "can't be renewed" in caplog.text
    assert "can't be released" in caplog.text
