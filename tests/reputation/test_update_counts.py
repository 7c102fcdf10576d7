import datetime as dt
from typing import Any

import pytest
import redis
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from reputation import actors, update_counts
from reputation.models import Actor, HourlyCount
from reputation.transitions import OperatorEvent, Outcome
from tests.support.cached import cached_keys
from tests.support.clock import Clock, at_once

HOME, AWAY = "203.0.113.9", "2001:db8:1:2::/64"

pytestmark = pytest.mark.usefixtures("clean_server")


def totals() -> dict[str, int]:
    return dict(Actor.objects.values_list("address", "successful_updates"))


def bars() -> dict[str, tuple[int, int]]:
    rows = HourlyCount.objects.values_list("actor__address", "accepted", "refused")
    return {address: (accepted, refused) for address, accepted, refused in rows}


def count_some() -> None:
    actors.count(address=HOME, accepted=3, refused=1)
    actors.count(address=HOME, accepted=1)
    actors.count(address=AWAY, accepted=2)


class CrashError(Exception):
    pass


def crash(*args: Any, **kwargs: Any) -> None:
    raise CrashError


@pytest.mark.django_db
class TestFlush:
    def test_brings_into_sql_what_was_counted(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            count_some()
        assert actors.flush() == 3
        assert totals() == {HOME: 2, AWAY: 1}
        assert bars() == {HOME: (4, 1), AWAY: (2, 0)}

    def test_adds_to_what_is_there(self) -> None:
        for _ in range(3):
            count_some()
            actors.flush()
        assert totals() == {HOME: 6, AWAY: 3}
        assert bars() == {HOME: (12, 3), AWAY: (6, 0)}

    def test_of_nothing_needs_no_sql(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert actors.flush() == 0

    def test_leaves_nothing_in_the_cache(self) -> None:
        count_some()
        actors.flush()
        assert cached_keys() == []

    def test_says_when_an_actor_was_seen(self, clock: Clock) -> None:
        before = clock.now()
        count_some()
        actors.flush()
        actor = Actor.objects.get(address=HOME)
        assert actor.last_seen is not None
        assert before <= actor.first_seen <= actor.last_seen <= clock.now()
        clock.move(hours=30)
        count_some()
        actors.flush()
        actor.refresh_from_db()
        assert actor.last_seen is not None
        assert actor.last_seen - before >= dt.timedelta(hours=30)

    def test_puts_bars_into_the_hour_in_which_they_came(self, clock: Clock) -> None:
        count_some()
        hour = update_counts.hour_of(clock.now())
        clock.move(hours=5)
        count_some()
        actors.flush()
        hours = HourlyCount.objects.filter(actor__address=HOME).order_by("hour")
        assert [(row.hour, row.accepted) for row in hours] == [
            (hour, 4),
            (hour + dt.timedelta(hours=5), 4),
        ]

    def test_changes_no_score_and_no_status(self) -> None:
        for _ in range(6):
            actors.record_outcome(address=HOME, outcome=Outcome.IMPLAUSIBLE, evidence={})
        row = Actor.objects.values("status", "failure_score", "confirmed_score", "banned_until")
        before = row.get()
        count_some()
        actors.flush()
        assert row.get(address=HOME) == before

    def test_of_many_actors_takes_few_statements(self, django_assert_max_num_queries: Any) -> None:
        for n in range(1_000):
            actors.count(address=f"10.0.{n // 256}.{n % 256}", accepted=1 + n % 3)
        # A transaction and its batch take four; 500 actors some eight and their hours' batches.
        with django_assert_max_num_queries(60):
            assert actors.flush() == 1_000
        assert Actor.objects.filter(successful_updates=1).count() == 1_000
        assert HourlyCount.objects.count() == 1_000

    def test_holds_so_many_addresses_and_no_more(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(update_counts, "MAX_WAITING", 10)
        for n in range(30):
            actors.count(address=f"192.0.2.{n}", accepted=1)
        actors.count(address="192.0.2.0", accepted=1)
        assert actors.flush() == 11
        assert Actor.objects.count() == 10
        assert "20 20 0 updates" in caplog.text

    @hypothesis_settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        steps=st.lists(
            st.one_of(
                st.none(),  # a flush
                st.tuples(
                    st.sampled_from([HOME, AWAY, "192.0.2.1"]),
                    st.integers(0, 2**40),
                    st.integers(0, 1_000),
                ),
            ),
            max_size=20,
        )
    )
    def test_loses_and_invents_nothing(
        self, steps: list[tuple[str, int, int] | None], clean_server: redis.Redis
    ) -> None:
        clean_server.flushall()
        Actor.objects.all().delete()
        expected: dict[str, tuple[int, int]] = {}
        for step in [*steps, None]:
            if step is None:
                actors.flush()
                continue
            address, accepted, refused = step
            actors.count(address=address, accepted=accepted, refused=refused)
            before = expected.get(address, (0, 0))
            expected[address] = (before[0] + accepted, before[1] + refused)
        assert bars() == expected


@pytest.mark.django_db
class TestCrash:
    def test_before_the_commit_loses_what_was_taken_and_nothing_else(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count_some()
        with monkeypatch.context() as broken:
            broken.setattr(update_counts, "add_bars", crash)
            with pytest.raises(CrashError):
                actors.flush()
        assert totals() == {}
        count_some()
        assert actors.flush() == 3
        assert totals() == {HOME: 2, AWAY: 1}

    def test_of_the_database_loses_nothing_while_it_cant_be_reached(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count_some()
        with monkeypatch.context() as broken:
            broken.setattr(transaction, "atomic", crash)
            with pytest.raises(CrashError):
                actors.flush()
        count_some()
        assert actors.flush() == 6
        assert totals() == {HOME: 4, AWAY: 2}

    def test_by_the_loss_of_the_cache_breaks_nothing(self, clean_server: redis.Redis) -> None:
        count_some()
        clean_server.flushall()
        assert actors.flush() == 0
        count_some()
        assert actors.flush() == 3


def test_a_crash_after_the_commit_counts_nothing_twice(
    shared_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = update_counts._add

    def add_then_crash(counts: Any) -> None:
        add(counts)
        transaction.on_commit(crash)

    count_some()
    with monkeypatch.context() as broken:
        broken.setattr(update_counts, "_add", add_then_crash)
        with pytest.raises(CrashError):
            actors.flush()
    assert totals() == {HOME: 2, AWAY: 1}
    actors.count(address=HOME, accepted=1)
    assert actors.flush() == 1
    assert totals() == {HOME: 3, AWAY: 1}


class TestConcurrency:
    def test_flushes_at_once_count_nothing_twice(self, shared_database: None) -> None:
        for _ in range(5):
            for n in range(50):
                actors.count(address=f"192.0.2.{n}", accepted=2)
            assert sum(at_once(actors.flush, threads=4)) == 50
        assert set(totals().values()) == {5}
        assert set(bars().values()) == {(10, 0)}

    def test_flushes_beside_counts_failures_and_claims_lose_nothing(
        self, shared_database: None, settings: Any
    ) -> None:
        settings.BAN_AFTER_FAILURES = 1_000_000
        addresses = [f"192.0.2.{n}" for n in range(8)]

        def work() -> None:
            for _ in range(4):
                for address in addresses:
                    actors.count(address=address, accepted=1)
                actors.record_claims(
                    confirmed=dict.fromkeys(addresses, 1), contradicted={"192.0.2.99": 1}
                )
                for address in reversed(addresses):
                    actors.record_outcome(address=address, outcome=Outcome.IMPLAUSIBLE, evidence={})
                actors.flush()

        at_once(work, threads=4)
        actors.flush()
        rows = Actor.objects.filter(address__in=addresses)
        assert set(rows.values_list("successful_updates", "failed_updates")) == {(16, 16)}
        assert {round(row.confirmed_score) for row in rows} == {16}
        assert {bars()[address] for address in addresses} == {(16, 16)}

    def test_a_banned_actor_stays_banned_by_a_flush(self, shared_database: None) -> None:
        count_some()
        actor, _created = Actor.objects.get_or_create(address=HOME)
        actors.change_by_operator(actor=actor, event=OperatorEvent.BAN, operator="eve")
        actors.flush()
        assert actors.status_of(address=HOME).banned
        assert totals()[HOME] == 2
