import datetime as dt
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from reputation import actors
from reputation.actors import change_by_operator, record_outcome
from reputation.models import Actor, DailyTotal, HourlyCount, StatusChange
from reputation.prune import Limits
from reputation.prune import prune as prune_all
from reputation.transitions import OperatorEvent, Outcome
from reputation.update_counts import hour_of
from tests.support.clock import Clock, at_once

HOME, AWAY = "203.0.113.9", "198.51.100.7"
DAY = 24  # hours

pytestmark = pytest.mark.usefixtures("clean_server")


def prune(*options: str) -> str:
    out = StringIO()
    call_command("prune_actors", *options, stdout=out)
    return out.getvalue()


def judge(outcome: Outcome = Outcome.ACCEPTED, times: int = 1, *, address: str = HOME) -> None:
    for _ in range(times):
        record_outcome(address=address, outcome=outcome, evidence={"symbol": "VCB"})


def by_operator(event: OperatorEvent, *, address: str = HOME) -> None:
    change_by_operator(actor=Actor.objects.get(address=address), event=event, operator="eve")


def days() -> dict[dt.date, tuple[int, int, int]]:
    return {
        total.day: (total.accepted, total.refused, total.actors)
        for total in DailyTotal.objects.all()
    }


@pytest.mark.django_db
class TestActors:
    def test_go_when_they_were_idle_for_long(self, clock: Clock) -> None:
        judge()
        judge(address=AWAY)
        clock.move(hours=89 * DAY)
        judge(address=AWAY)
        clock.move(hours=2 * DAY)
        assert "Forgot: 1 actors idle for 90 days" in prune()
        assert [actor.address for actor in Actor.objects.all()] == [AWAY]

    def test_follow_the_option(self, clock: Clock) -> None:
        judge()
        clock.move(hours=3 * DAY)
        prune("--idle-days", "4")
        assert Actor.objects.exists()
        prune("--idle-days", "2")
        assert not Actor.objects.exists()

    @pytest.mark.parametrize("event", OperatorEvent)
    def test_stay_when_an_operator_had_a_hand_in_them(
        self, event: OperatorEvent, clock: Clock
    ) -> None:
        judge()
        by_operator(event)
        clock.move(hours=4_000 * DAY)
        prune()
        assert Actor.objects.exists()

    def test_stay_when_they_earned_trust(self, clock: Clock) -> None:
        actors.record_claims(confirmed={HOME: 100}, contradicted={})
        clock.move(hours=4_000 * DAY)
        prune()
        assert Actor.objects.exists()

    def test_stay_while_they_are_banned(self, settings: Any, clock: Clock) -> None:
        settings.BAN_HOURS = settings.MAX_BAN_HOURS = 100 * DAY
        judge(Outcome.IMPLAUSIBLE, 6)
        clock.move(hours=99 * DAY)
        prune("--idle-days", "1")
        assert Actor.objects.get().status == "BANNED"

    def test_go_when_their_ban_ended_long_ago(self, clock: Clock) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        clock.move(hours=92 * DAY)
        prune()
        assert not Actor.objects.exists()

    def test_that_went_are_as_unknown_ones(self, clock: Clock) -> None:
        judge(Outcome.IMPLAUSIBLE, 5)
        clock.move(hours=91 * DAY)
        prune()
        assert actors.status_of(address=HOME).status == "PROBATION"
        judge()
        assert Actor.objects.get().failed_updates == 0


def test_whoever_sends_meanwhile_is_not_forgotten(shared_database: None) -> None:
    long_ago = timezone.now() - dt.timedelta(days=100)
    addresses = [f"192.0.2.{n}" for n in range(40)]
    Actor.objects.bulk_create(
        [Actor(address=address, last_seen=long_ago, failed_updates=1) for address in addresses]
    )
    day = dt.timedelta(days=1)
    turns = iter("ps" * 2)

    def prune_or_send() -> None:
        if next(turns) == "p":
            prune_all(Limits(hourly_counts=day, idle_actors=day, history=day))
            return
        for address in addresses:
            judge(Outcome.IMPLAUSIBLE, address=address)

    at_once(prune_or_send, threads=4)
    failures = dict(Actor.objects.values_list("address", "failed_updates"))
    # Two, and the one from before if the first of them was faster than the pruning.
    assert set(failures) == set(addresses)
    assert set(failures.values()) <= {2, 3}


@pytest.mark.django_db
class TestCounts:
    def test_become_totals_of_their_days(self, clock: Clock) -> None:
        today = clock.now().astimezone(dt.UTC).date()
        record_outcome(address=HOME, outcome=Outcome.IMPLAUSIBLE, evidence={}, bars=(5, 2))
        judge(address=AWAY)
        clock.move(hours=31 * DAY)
        judge(address=AWAY)
        for _ in range(2):
            prune()
            assert days() == {today: (6, 2, 0)}
            assert HourlyCount.objects.count() == 1
        clock.move(hours=60 * DAY)
        judge(address=AWAY)
        prune()
        assert days() == {
            today: (6, 2, 1),
            today + dt.timedelta(days=31): (1, 0, 0),
        }

    def test_of_an_actor_that_goes_become_totals_too(self, clock: Clock) -> None:
        today = clock.now().astimezone(dt.UTC).date()
        judge(times=3)
        clock.move(hours=2 * DAY)
        prune("--idle-days", "1")
        assert days() == {today: (3, 0, 1)}
        assert not HourlyCount.objects.exists()


@pytest.mark.django_db
class TestHistory:
    def test_outlives_its_actor_and_is_its_own_again(self, clock: Clock) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        clock.move(hours=92 * DAY)
        prune()
        assert StatusChange.objects.get().actor_id == HOME
        judge()
        assert [change.to_status for change in Actor.objects.get().status_changes.all()] == [
            "BANNED"
        ]

    def test_goes_long_after_its_actor(self, clock: Clock) -> None:
        judge(Outcome.IMPLAUSIBLE, 6)
        clock.move(hours=731 * DAY)
        assert "1 changes of status older than 730 days" in prune()
        assert not StatusChange.objects.exists()

    def test_of_an_actor_that_stays_stays(self, clock: Clock) -> None:
        judge()
        by_operator(OperatorEvent.BAN)
        clock.move(hours=731 * DAY)
        prune()
        assert StatusChange.objects.count() == 1


@pytest.mark.django_db
class TestCommand:
    def test_only_says_what_would_go_when_asked_so(self, clock: Clock) -> None:
        judge()
        judge(Outcome.IMPLAUSIBLE, 6, address=AWAY)
        clock.move(hours=100 * DAY)
        said = prune("--dry-run")
        assert "Would forget: 2 actors idle for 90 days; 2 hourly counts" in said
        assert Actor.objects.count() == 2
        assert HourlyCount.objects.count() == 2

    @pytest.mark.parametrize("option", ["--idle-days", "--count-days", "--history-days"])
    def test_refuses_to_forget_today(self, option: str) -> None:
        with pytest.raises(CommandError, match=f"{option} must be from 1"):
            prune(option, "0")

    def test_forgets_in_batches(self, django_assert_max_num_queries: Any) -> None:
        self.forget_thousands(2, django_assert_max_num_queries)

    @pytest.mark.slow
    def test_forgets_a_flood_of_actors(self, django_assert_max_num_queries: Any) -> None:
        self.forget_thousands(100, django_assert_max_num_queries)

    def forget_thousands(self, thousands: int, django_assert_max_num_queries: Any) -> None:
        long_ago = timezone.now() - dt.timedelta(days=100)
        hour = hour_of(long_ago)
        for part in range(thousands):
            flood = Actor.objects.bulk_create(
                [
                    Actor(address=f"2001:db8:{part:x}:{n:x}::/64", last_seen=long_ago)
                    for n in range(1_000)
                ]
            )
            HourlyCount.objects.bulk_create(
                [HourlyCount(actor=actor, hour=hour, accepted=1) for actor in flood]
            )
        judge()
        # Some ten statements for each batch of 500, for the counts and for the actors.
        with django_assert_max_num_queries(thousands * 60 + 60):
            prune()
        assert [actor.address for actor in Actor.objects.all()] == [HOME]
        assert DailyTotal.objects.get(day=hour.date()).accepted == 1_000 * thousands
        assert DailyTotal.objects.get(day=hour.date()).actors == 1_000 * thousands
