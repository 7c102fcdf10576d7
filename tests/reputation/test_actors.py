import datetime as dt
from collections import Counter
from typing import Any

import pytest
import redis
from django.core.cache import cache
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from reputation.actors import (
    STATUS_LIFETIME,
    ActorStatus,
    BannedError,
    banned_among,
    change_by_operator,
    record_claims,
    record_outcome,
    status_of,
)
from reputation.evidence import MAX_EVIDENCE
from reputation.models import Actor, AppendOnlyError, HourlyCount, StatusChange
from reputation.transitions import OperatorEvent, Outcome, Status
from tests.support.cached import cached_keys, lifetime
from tests.support.clock import Clock, at_once

HOME, AWAY = "203.0.113.9", "198.51.100.7"
LIE = {"symbol": "VCB", "close": 150380}

pytestmark = pytest.mark.usefixtures("clean_server")


def judge(outcome: Outcome, times: int = 1, *, address: str = HOME) -> ActorStatus:
    for _ in range(times):
        latest = record_outcome(address=address, outcome=outcome, evidence=LIE)
    return latest


def claim(confirmed: int, *, address: str = HOME) -> dict[str, ActorStatus]:
    return record_claims(confirmed={address: confirmed}, contradicted={})


def let_ban_end(address: str = HOME) -> None:
    """As if the ban's time had passed; no process noticed yet."""
    Actor.objects.filter(address=address).update(banned_until=timezone.now())
    cache.clear()


@pytest.mark.django_db
class TestRecordOutcome:
    def test_creates_an_actor_on_probation_with_its_first_outcome(self) -> None:
        before = timezone.now()
        assert judge(Outcome.ACCEPTED) == ActorStatus(Status.PROBATION)
        actor = Actor.objects.get(address=HOME)
        assert (actor.successful_updates, actor.failed_updates) == (1, 0)
        assert actor.last_seen is not None
        assert before <= actor.first_seen <= actor.last_seen <= timezone.now()

    def test_bans_with_the_sixth_failure_and_writes_down_why(self) -> None:
        assert judge(Outcome.IMPLAUSIBLE, 5).status is Status.PROBATION
        assert judge(Outcome.IMPLAUSIBLE).banned
        actor = Actor.objects.get(address=HOME)
        assert (actor.status, actor.failed_updates) == ("BANNED", 6)
        change = StatusChange.objects.get()
        assert (change.from_status, change.to_status) == ("PROBATION", "BANNED")
        assert change.actor == actor
        assert change.reason == "6 implausible updates, more than the 5 allowed"
        assert change.evidence == LIE
        assert change.by_operator == ""

    def test_follows_the_settings(self, settings: Any) -> None:
        settings.BAN_AFTER_FAILURES, settings.BAN_HOURS = 1, 2.5
        settings.TRUST_AFTER_CONFIRMED = 3
        assert claim(2, address="198.51.100.7") == {}
        assert claim(1, address="198.51.100.7") == {"198.51.100.7": ActorStatus(Status.TRUSTED)}
        before = timezone.now()
        until = judge(Outcome.IMPLAUSIBLE, 2).banned_until
        assert until is not None
        assert before <= until - dt.timedelta(hours=2.5) <= timezone.now()

    def test_of_a_banned_actor_changes_nothing(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        row = Actor.objects.values().get(address=HOME)
        for outcome in Outcome:
            with pytest.raises(BannedError):
                judge(outcome)
        assert Actor.objects.values().get(address=HOME) == row
        assert StatusChange.objects.count() == 1

    def test_of_a_banned_actor_mends_a_standing_from_before(self) -> None:
        """As a process leaves it that is killed before it has told of a ban."""
        Actor.objects.create(address=AWAY, status="PROBATION")
        assert not status_of(address=AWAY).banned
        Actor.objects.filter(address=AWAY).update(status="BANNED")
        assert not status_of(address=AWAY).banned
        with pytest.raises(BannedError):
            record_outcome(address=AWAY, outcome=Outcome.IMPLAUSIBLE, evidence=None)
        assert status_of(address=AWAY).banned

    def test_fades_with_the_half_life_of_the_settings(self, settings: Any, clock: Clock) -> None:
        settings.FAILURE_HALF_LIFE = 2
        judge(Outcome.IMPLAUSIBLE, 4)
        clock.move(hours=2)
        judge(Outcome.IMPLAUSIBLE)
        assert Actor.objects.get().failure_score == pytest.approx(3, abs=0.01)

    def test_forgives_failures_that_come_one_by_one(self, clock: Clock) -> None:
        for _ in range(12):
            assert not judge(Outcome.IMPLAUSIBLE).banned
            clock.move(hours=12)
        assert Actor.objects.get().failed_updates == 12

    def test_bans_all_the_same_when_the_clock_is_set_back(self, clock: Clock) -> None:
        judge(Outcome.IMPLAUSIBLE, 4)
        clock.move(hours=-1_000)
        assert not judge(Outcome.IMPLAUSIBLE).banned
        assert judge(Outcome.IMPLAUSIBLE).banned

    def test_bans_twice_as_long_the_second_time(self, clock: Clock) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        clock.move(hours=24)
        until = judge(Outcome.IMPLAUSIBLE, 6).banned_until
        assert until is not None
        assert dt.timedelta(hours=47.9) < until - clock.now() <= dt.timedelta(hours=48)

    def test_counts_the_bars_of_the_hour(self) -> None:
        record_outcome(address=HOME, outcome=Outcome.IMPLAUSIBLE, evidence=LIE, bars=(7, 2))
        judge(Outcome.IMPLAUSIBLE)
        judge(Outcome.ACCEPTED)
        hours = HourlyCount.objects.aggregate(Sum("accepted"), Sum("refused"))
        assert hours == {"accepted__sum": 8, "refused__sum": 3}

    def test_after_a_ban_scores_from_zero(self) -> None:
        judge(Outcome.ACCEPTED, 3)
        judge(Outcome.IMPLAUSIBLE, 6)
        let_ban_end()
        assert judge(Outcome.IMPLAUSIBLE) == ActorStatus(Status.PROBATION)
        actor = Actor.objects.get(address=HOME)
        assert (actor.successful_updates, actor.failed_updates) == (3, 7)
        assert actor.failure_score == 1
        ended = StatusChange.objects.latest("pk")
        assert (ended.from_status, ended.to_status) == ("BANNED", "PROBATION")
        assert ended.reason == "the ban has ended, at 3 accepted and 6 implausible updates"

    def test_bounds_the_evidence(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 5)
        record_outcome(address=HOME, outcome=Outcome.IMPLAUSIBLE, evidence=[LIE] * 1_000)
        evidence = StatusChange.objects.get().evidence
        assert len(str(evidence)) <= MAX_EVIDENCE
        assert "VCB" in evidence["excerpt"]


@pytest.mark.django_db(transaction=True)
class TestCommit:
    def test_an_outcome_is_refused_inside_a_transaction(self) -> None:
        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
            judge(Outcome.IMPLAUSIBLE)

    def test_a_ban_that_is_not_committed_is_not_announced(self) -> None:
        actor = Actor.objects.create(address=HOME)
        assert not status_of(address=HOME).banned
        with transaction.atomic():
            change_by_operator(actor=actor, event=OperatorEvent.BAN, operator="eve")
            transaction.set_rollback(True)
        assert not status_of(address=HOME).banned
        assert not StatusChange.objects.exists()

    def test_a_hand_made_change_acts_at_once_and_survives_a_lost_cache(
        self, server: redis.Redis
    ) -> None:
        actor = Actor.objects.create(address=HOME)
        for event, status in [
            (OperatorEvent.BAN, Status.BANNED),
            (OperatorEvent.RESET, Status.PROBATION),
            (OperatorEvent.TRUST, Status.TRUSTED),
        ]:
            status_of(address=HOME)
            change_by_operator(actor=actor, event=event, operator="eve")
            assert status_of(address=HOME).status is status
            server.flushall()
            assert status_of(address=HOME).status is status

    def test_a_hand_made_change_is_kept_when_the_cache_is_away(
        self, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        actor = Actor.objects.create(address=HOME)
        away = {**settings.CACHES["default"], "LOCATION": "unix:///nonexistent.sock?db=1"}
        settings.CACHES = {"default": away}
        change_by_operator(actor=actor, event=OperatorEvent.BAN, operator="eve")
        assert Actor.objects.get().status == "BANNED"
        assert "publish in on_commit() during transaction" in caplog.text


@pytest.mark.django_db(transaction=True)
class TestCachedStatus:
    def test_of_an_unknown_actor_is_probation_and_leaves_no_row(self) -> None:
        assert status_of(address=HOME) == ActorStatus(Status.PROBATION)
        assert not Actor.objects.exists()

    def test_of_a_banned_flood_needs_no_sql(self, django_assert_num_queries: Any) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        with django_assert_num_queries(0):
            assert all(status_of(address=HOME).banned for _ in range(50))

    @pytest.mark.parametrize("known", [True, False])
    def test_is_read_from_sql_once(self, known: bool, django_assert_num_queries: Any) -> None:
        if known:
            judge(Outcome.ACCEPTED)
        with django_assert_num_queries(1):
            for _ in range(50):
                status_of(address=HOME)

    def test_of_a_ban_survives_a_lost_cache(
        self, server: redis.Redis, django_assert_num_queries: Any
    ) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        server.flushall()
        with django_assert_num_queries(1):
            assert status_of(address=HOME).banned
            assert status_of(address=HOME).banned

    def test_is_cached_for_a_short_time(self) -> None:
        status_of(address=HOME)
        judge(Outcome.IMPLAUSIBLE, 6, address="198.51.100.7")
        keys = cached_keys()
        assert len(keys) == 2
        for key in keys:
            assert 0 < lifetime(key) <= STATUS_LIFETIME * 1_000

    def test_of_a_ban_is_never_cached_beyond_its_end(self, settings: Any) -> None:
        settings.BAN_HOURS = 10 / 3_600
        judge(Outcome.IMPLAUSIBLE, 6)
        (written,) = cached_keys()
        assert 0 < lifetime(written) <= 10_000
        cache.clear()
        status_of(address=HOME)
        (read,) = cached_keys()
        assert 0 < lifetime(read) <= 10_000

    def test_changes_at_once_with_a_ban_by_outcomes(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 5)
        assert not status_of(address=HOME).banned
        judge(Outcome.IMPLAUSIBLE)
        assert status_of(address=HOME).banned

    def test_changes_at_once_with_trust_by_claims(self, settings: Any) -> None:
        settings.TRUST_AFTER_CONFIRMED = 2
        claim(1)
        assert not status_of(address=HOME).trusted
        claim(1)
        assert status_of(address=HOME).trusted

    def test_changes_when_merit_has_faded_and_is_written_down_once(
        self, settings: Any, clock: Clock, server: redis.Redis
    ) -> None:
        claim(settings.TRUST_AFTER_CONFIRMED)
        for hours, expected in [(335, Status.TRUSTED), (2, Status.PROBATION), (1, "PROBATION")]:
            clock.move(hours=hours)
            server.flushall()
            assert status_of(address=HOME).status == expected
        faded = StatusChange.objects.latest("pk")
        assert (faded.from_status, faded.to_status) == ("TRUSTED", "PROBATION")
        assert StatusChange.objects.count() == 2

    def test_of_trust_by_hand_doesnt_fade(self, clock: Clock, server: redis.Redis) -> None:
        actor = Actor.objects.create(address=HOME)
        change_by_operator(actor=actor, event=OperatorEvent.TRUST, operator="eve")
        clock.move(hours=100_000)
        server.flushall()
        assert status_of(address=HOME).trusted

    def test_of_an_ended_ban_is_probation_written_down_once(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        let_ban_end()
        assert status_of(address=HOME) == ActorStatus(Status.PROBATION)
        assert status_of(address=HOME) == ActorStatus(Status.PROBATION)
        actor = Actor.objects.get(address=HOME)
        assert (actor.status, actor.failure_score) == ("PROBATION", 0)
        assert actor.banned_until is None
        assert [change.to_status for change in StatusChange.objects.order_by("pk")] == [
            "BANNED",
            "PROBATION",
        ]

    def test_of_an_ended_ban_is_seen_through_an_entry_that_is_still_cached(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        later = timezone.now() + dt.timedelta(hours=24)
        monkeypatch.setattr(timezone, "now", lambda: later)
        assert status_of(address=HOME) == ActorStatus(Status.PROBATION)

    def test_of_a_hand_made_ban_has_no_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        actor = Actor.objects.create(address=HOME)
        change_by_operator(actor=actor, event=OperatorEvent.BAN, operator="eve")
        later = timezone.now() + dt.timedelta(days=3_650)
        monkeypatch.setattr(timezone, "now", lambda: later)
        cache.clear()
        assert status_of(address=HOME).banned

    def test_that_was_read_before_a_ban_doesnt_hide_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A slow reader finds probation in SQL, and comes to the cache after the ban did."""
        judge(Outcome.IMPLAUSIBLE, 5)
        add = cache.add

        def add_after_the_ban(*args: Any, **kwargs: Any) -> bool:
            judge(Outcome.IMPLAUSIBLE)
            return bool(add(*args, **kwargs))

        monkeypatch.setattr(cache, "add", add_after_the_ban)
        status_of(address=HOME)
        assert status_of(address=HOME).banned


@pytest.mark.django_db
class TestBannedAmong:
    def test_names_those_that_are_banned_now(self, django_assert_num_queries: Any) -> None:
        soon = timezone.now() + dt.timedelta(hours=1)
        Actor.objects.create(address="192.0.2.1", status="BANNED", banned_until=soon)
        Actor.objects.create(address="192.0.2.2", status="BANNED")
        Actor.objects.create(address="192.0.2.3", status="BANNED", banned_until=timezone.now())
        Actor.objects.create(address="192.0.2.4", status="TRUSTED")
        Actor.objects.create(address="192.0.2.5", status="BANNED")
        with django_assert_num_queries(1):
            banned = banned_among(addresses=[f"192.0.2.{n}" for n in (1, 2, 3, 4, 9)])
        assert banned == {"192.0.2.1", "192.0.2.2"}

    def test_of_nobody_is_nobody_without_sql(self, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert banned_among(addresses=[]) == set()

    def test_takes_more_addresses_than_a_query(self) -> None:
        addresses = [f"10.0.{n // 256}.{n % 256}" for n in range(3_000)]
        for address in (addresses[0], addresses[1_500], addresses[-1]):
            Actor.objects.create(address=address, status="BANNED")
        assert banned_among(addresses=set(addresses)) == {
            addresses[0],
            addresses[1_500],
            addresses[-1],
        }


@pytest.mark.django_db
class TestOperator:
    def test_leaves_its_name_and_note(self) -> None:
        judge(Outcome.ACCEPTED, 2)
        actor = Actor.objects.get()
        standing_after = change_by_operator(
            actor=actor, event=OperatorEvent.BAN, operator="eve", note="Sends yesterday's bars."
        )
        assert standing_after == ActorStatus(Status.BANNED)
        change = StatusChange.objects.get()
        assert (change.from_status, change.to_status) == ("PROBATION", "BANNED")
        assert change.by_operator == "eve"
        assert change.reason == (
            "banned by hand, without end, at 2 accepted and 0 implausible updates. "
            "Sends yesterday's bars."
        )
        assert change.evidence == {}

    def test_leaves_a_row_where_the_status_stays(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 4)
        actor = Actor.objects.get()
        change_by_operator(actor=actor, event=OperatorEvent.RESET, operator="eve")
        actor.refresh_from_db()
        assert (actor.status, actor.failure_score) == ("PROBATION", 0)
        assert StatusChange.objects.get().reason == (
            "reset by hand, at 0 accepted and 4 implausible updates"
        )
        assert actor.touched_by_operator

    def test_loses_no_count_made_since_the_actor_was_read(self) -> None:
        judge(Outcome.ACCEPTED)
        stale = Actor.objects.get()
        judge(Outcome.ACCEPTED, 2)
        change_by_operator(actor=stale, event=OperatorEvent.TRUST, operator="eve")
        assert Actor.objects.get().successful_updates == 3


@pytest.mark.django_db
class TestClaims:
    def test_earn_trust_and_leave_the_evidence(self) -> None:
        changed = record_claims(confirmed={HOME: 100}, contradicted={}, evidence={HOME: LIE})
        assert changed == {HOME: ActorStatus(Status.TRUSTED)}
        change = StatusChange.objects.get()
        assert (change.from_status, change.to_status) == ("PROBATION", "TRUSTED")
        assert change.evidence == LIE

    def test_are_each_actors_own(self) -> None:
        changed = record_claims(
            confirmed={HOME: 100, "192.0.2.1": 150, "192.0.2.2": 99},
            contradicted={"192.0.2.1": 51, "192.0.2.3": 4},
        )
        assert set(changed) == {HOME}
        scores = dict(Actor.objects.values_list("address", "confirmed_score"))
        assert scores == {HOME: 100, "192.0.2.1": 99, "192.0.2.2": 99, "192.0.2.3": 0}

    def test_for_and_against_in_one_call_earn_nothing(self) -> None:
        assert record_claims(confirmed={HOME: 5_000}, contradicted={HOME: 5_000}) == {}
        assert not Actor.objects.exists()

    def test_against_take_trust(self) -> None:
        claim(100)
        assert record_claims(confirmed={}, contradicted={HOME: 51})[HOME].status == "PROBATION"
        assert StatusChange.objects.latest("pk").reason.startswith("lost trust: contradicted")

    def test_of_a_banned_actor_change_nothing(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        row = Actor.objects.values().get()
        assert claim(1_000) == {}
        assert Actor.objects.values().get() == row

    def test_count_no_update(self) -> None:
        claim(3)
        actor = Actor.objects.get()
        assert (actor.successful_updates, actor.failed_updates) == (0, 0)
        assert actor.last_seen is not None

    def test_of_many_actors_are_taken(self) -> None:
        confirmed = {f"10.0.{n // 256}.{n % 256}": 100 for n in range(250)}
        assert len(record_claims(confirmed=confirmed, contradicted={})) == 250
        assert Actor.objects.filter(status="TRUSTED").count() == 250


class TestConcurrency:
    """Threads with connections of their own, on a database that they share."""

    def test_no_count_is_lost(self, shared_database: None, settings: Any) -> None:
        settings.BAN_AFTER_FAILURES = 1_000_000
        outcomes = [Outcome.ACCEPTED, Outcome.IMPLAUSIBLE]

        def ten_of_each() -> None:
            for outcome in outcomes * 10:
                record_outcome(address=HOME, outcome=outcome, evidence=LIE)

        at_once(ten_of_each, threads=8)
        actor = Actor.objects.get()
        assert (actor.successful_updates, actor.failed_updates) == (80, 80)

    def test_the_sixth_failure_bans_once(self, shared_database: None) -> None:
        def fail() -> str:
            try:
                return str(judge(Outcome.IMPLAUSIBLE).status)
            except BannedError:
                return "before"

        found = Counter(at_once(fail, threads=12))
        assert found == {"PROBATION": 5, "BANNED": 1, "before": 6}
        assert Actor.objects.get().failed_updates == 6
        assert StatusChange.objects.count() == 1

    def test_an_ended_ban_is_written_down_once(self, shared_database: None) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        let_ban_end()
        standings = at_once(lambda: status_of(address=HOME), threads=8)
        assert {found.status for found in standings} == {Status.PROBATION}
        assert StatusChange.objects.filter(to_status="PROBATION").count() == 1

    def test_the_last_change_committed_is_the_standing_cached(self, shared_database: None) -> None:
        actor = Actor.objects.create(address=HOME)
        events = iter(list(OperatorEvent) * 8)

        def change() -> None:
            change_by_operator(actor=actor, event=next(events), operator="eve")

        at_once(change, threads=8)
        assert status_of(address=HOME).status == Actor.objects.get().status


@pytest.mark.django_db
class TestDatabase:
    @pytest.mark.parametrize(
        "fields",
        [
            {"status": "FORGIVEN"},
            {"status": ""},
            {"successful_updates": -1},
            {"failed_updates": -1},
            {"failure_score": -0.1},
            {"confirmed_score": -1},
            {"trusted_by_hand": True},
            {"status": "PROBATION", "banned_until": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
            {"status": "TRUSTED", "banned_until": dt.datetime(2030, 1, 1, tzinfo=dt.UTC)},
            {"address": "198.51.100.7"},
        ],
    )
    def test_refuses_a_row_that_makes_no_actor(self, fields: dict[str, Any]) -> None:
        Actor.objects.create(address="198.51.100.7")
        with pytest.raises(IntegrityError), transaction.atomic():
            Actor.objects.create(**{"address": HOME, **fields})

    @pytest.mark.parametrize(
        "fields", [{"from_status": "NEW"}, {"to_status": "GONE"}, {"reason": ""}]
    )
    def test_refuses_a_change_that_says_nothing(self, fields: dict[str, Any]) -> None:
        actor = Actor.objects.create(address=HOME)
        row = {"from_status": "PROBATION", "to_status": "BANNED", "reason": "why", **fields}
        with pytest.raises(IntegrityError), transaction.atomic():
            StatusChange.objects.create(actor=actor, **row)

    def test_keeps_an_actor_with_its_history(self) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        with pytest.raises(IntegrityError), transaction.atomic():
            Actor.objects.all().delete()


@pytest.mark.django_db
class TestHistory:
    @pytest.fixture
    def change(self) -> StatusChange:
        judge(Outcome.IMPLAUSIBLE, 6)
        return StatusChange.objects.get()

    def test_is_neither_changed_nor_deleted_through_the_model(self, change: StatusChange) -> None:
        change.reason = "forged"
        for forbidden in (
            change.save,
            change.delete,
            StatusChange.objects.all().delete,
            lambda: StatusChange.objects.update(reason="forged"),
            lambda: StatusChange.objects.bulk_update([change], ["reason"]),
            lambda: change.actor.status_changes.all().delete(),
            lambda: StatusChange.objects.update_or_create(pk=change.pk, defaults={"reason": "x"}),
            lambda: StatusChange.objects.bulk_create(
                [change],
                update_conflicts=True,
                unique_fields=["id"],
                update_fields=["reason"],
            ),
        ):
            with pytest.raises(AppendOnlyError), transaction.atomic():
                forbidden()
        assert StatusChange.objects.get().reason == "6 implausible updates, more than the 5 allowed"

    def test_is_not_changed_past_the_model_either(self, change: StatusChange) -> None:
        with (
            pytest.raises(DatabaseError, match="never changed"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("UPDATE reputation_statuschange SET reason = 'forged'")

    @pytest.mark.skipif("connection.vendor != 'postgresql'")
    def test_is_not_deleted_past_the_model_while_its_actor_is_there(
        self, change: StatusChange
    ) -> None:
        with (
            pytest.raises(DatabaseError, match="never changed"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("DELETE FROM reputation_statuschange")

    def test_keeps_its_actor_from_being_deleted(self, change: StatusChange) -> None:
        with pytest.raises(IntegrityError), transaction.atomic():
            change.actor.delete()
