import datetime as dt
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reputation.transitions import (
    CONFIRMED_CAP,
    FLOOR,
    TABLE,
    ClaimEvent,
    Event,
    OperatorEvent,
    Outcome,
    Policy,
    Record,
    Status,
    Strike,
    TimeEvent,
    Transition,
    apply,
    fade,
)

NOW = dt.datetime(2025, 8, 15, 3, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
POLICY = Policy()
ACCEPTED, IMPLAUSIBLE = Outcome.ACCEPTED, Outcome.IMPLAUSIBLE
CONFIRMED, CONTRADICTED = ClaimEvent.CONFIRMED, ClaimEvent.CONTRADICTED
BAN, TRUST, RESET = OperatorEvent.BAN, OperatorEvent.TRUST, OperatorEvent.RESET
ALL_EVENTS: list[Event] = [*Outcome, *ClaimEvent, *OperatorEvent, *TimeEvent]

events = st.sampled_from(ALL_EVENTS)
durations = st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=3))
policies = st.builds(
    Policy,
    ban_after_failures=st.integers(0, 8),
    failure_half_life=durations,
    trust_after_confirmed=st.integers(1, 12),
    confirmed_half_life=durations,
    ban_duration=durations,
    max_ban_duration=st.timedeltas(dt.timedelta(days=3), dt.timedelta(days=90)),
)
# What happens, and how long after the event before it; the clock may be set back meanwhile.
happenings = st.lists(
    st.tuples(events, st.timedeltas(dt.timedelta(days=-2), dt.timedelta(days=4))), max_size=80
)
counts = st.integers(0, 400)
scores = st.floats(0, CONFIRMED_CAP * POLICY.trust_after_confirmed)
moments = st.timedeltas(dt.timedelta(days=-2), dt.timedelta(days=2)).map(lambda delta: NOW + delta)
common = {
    "successful_updates": counts,
    "failed_updates": counts,
    "failure_score": scores,
    "confirmed_score": scores,
    "scored_at": st.none() | moments,
    "bans": st.integers(0, 5_000),
}
on_probation = st.builds(Record, **common)
trusted = st.builds(Record, status=st.just(Status.TRUSTED), trusted_by_hand=st.booleans(), **common)
unbanned = on_probation | trusted
banned = st.builds(
    Record, status=st.just(Status.BANNED), banned_until=st.none() | moments, **common
)
records = unbanned | banned


def step(
    record: Record, event: Event | Strike, *, at: dt.datetime = NOW, policy: Policy = POLICY
) -> Transition:
    return apply(record=record, event=event, policy=policy, at=at)


def after(
    record: Record, *happened: Event | Strike, at: dt.datetime = NOW, policy: Policy = POLICY
) -> Record:
    for event in happened:
        record = step(record, event, at=at, policy=policy).record
    return record


def earned(*, at: dt.datetime = NOW) -> Record:
    """An actor that has just earned trust."""
    record = after(Record(), *[CONFIRMED] * POLICY.trust_after_confirmed, at=at)
    assert record.status is Status.TRUSTED
    return record


class TestScores:
    @pytest.mark.parametrize(("hours", "left"), [(0, 4), (24, 2), (48, 1), (12, 4 * 0.5**0.5)])
    def test_a_failure_counts_half_after_a_half_life(self, hours: int, left: float) -> None:
        record = after(Record(), *[IMPLAUSIBLE] * 4)
        assert fade(record, POLICY, NOW + hours * HOUR).failure_score == pytest.approx(left)

    def test_a_confirmed_bar_counts_half_after_its_own(self) -> None:
        record = after(Record(), *[CONFIRMED] * 80)
        assert fade(record, POLICY, NOW + dt.timedelta(days=14)).confirmed_score == 40

    def test_end_at_0(self) -> None:
        record = after(Record(), IMPLAUSIBLE, CONFIRMED)
        assert fade(record, POLICY, NOW + dt.timedelta(days=99)) == replace(
            record, failure_score=0, confirmed_score=0, scored_at=NOW + dt.timedelta(days=99)
        )

    @given(records, policies, moments)
    def test_never_grow_with_time_whatever_the_clock_does(
        self, record: Record, policy: Policy, at: dt.datetime
    ) -> None:
        faded = fade(record, policy, at)
        for name in ("failure_score", "confirmed_score"):
            assert 0 <= getattr(faded, name) <= getattr(record, name)
            assert getattr(faded, name) == 0 or getattr(faded, name) >= FLOOR

    @given(unbanned, policies, st.lists(moments, max_size=5))
    def test_fade_alike_in_one_look_and_in_many(
        self, record: Record, policy: Policy, looks: list[dt.datetime]
    ) -> None:
        record = replace(record, scored_at=NOW - dt.timedelta(days=2))
        many = record
        for at in sorted(looks):
            many = fade(many, policy, at)
        end = NOW + dt.timedelta(days=2)
        once, many = fade(record, policy, end), fade(many, policy, end)
        assert math.isclose(once.failure_score, many.failure_score, rel_tol=1e-9, abs_tol=FLOOR)
        assert math.isclose(once.confirmed_score, many.confirmed_score, rel_tol=1e-9, abs_tol=FLOOR)

    def test_stay_while_the_clock_is_back_and_fade_from_there(self) -> None:
        record = after(Record(), *[IMPLAUSIBLE] * 4)
        back = fade(record, POLICY, NOW - dt.timedelta(days=300))
        assert back.failure_score == 4
        later = fade(back, POLICY, NOW - dt.timedelta(days=299))
        assert later.failure_score == 2

    @given(unbanned, policies)
    def test_never_meet(self, record: Record, policy: Policy) -> None:
        for event in (CONFIRMED, CONTRADICTED, ACCEPTED):
            assert (
                after(record, event, policy=policy).failure_score
                == fade(record, policy, NOW).failure_score
            )
        without_merit = replace(record, confirmed_score=0)
        for one in (record, without_merit):
            judged = after(one, IMPLAUSIBLE, policy=policy)
            assert judged.failure_score == fade(record, policy, NOW).failure_score + 1
        assert (after(record, IMPLAUSIBLE, policy=policy).status is Status.BANNED) == (
            after(without_merit, IMPLAUSIBLE, policy=policy).status is Status.BANNED
        )

    @given(st.lists(st.sampled_from(ClaimEvent), max_size=300), policies)
    def test_of_claims_stay_between_0_and_the_cap(
        self, claims: list[Event], policy: Policy
    ) -> None:
        record = after(Record(), *claims, policy=policy)
        assert 0 <= record.confirmed_score <= CONFIRMED_CAP * policy.trust_after_confirmed


class TestOutcomes:
    @given(unbanned, policies)
    def test_each_is_counted_once(self, record: Record, policy: Policy) -> None:
        accepted = after(record, ACCEPTED, policy=policy)
        assert accepted.successful_updates == record.successful_updates + 1
        assert accepted.failed_updates == record.failed_updates
        implausible = after(record, IMPLAUSIBLE, policy=policy)
        assert implausible.failed_updates == record.failed_updates + 1
        assert implausible.successful_updates == record.successful_updates

    @given(banned, policies, st.sampled_from([*Outcome, *ClaimEvent]))
    def test_of_a_banned_actor_change_nothing(
        self, record: Record, policy: Policy, event: Event
    ) -> None:
        assert step(record, event, policy=policy) == Transition(record)


class TestBan:
    def test_comes_with_the_sixth_failure(self) -> None:
        fifth = after(Record(), *[IMPLAUSIBLE] * 5)
        assert (fifth.status, fifth.failed_updates) == (Status.PROBATION, 5)
        sixth = step(fifth, IMPLAUSIBLE)
        assert sixth.record.status is Status.BANNED
        assert (sixth.record.failed_updates, sixth.record.bans) == (6, 1)
        assert sixth.record.banned_until == NOW + 24 * HOUR
        assert sixth.reason == "6 implausible updates, more than the 5 allowed"

    def test_comes_in_quick_succession_not_only_at_once(self) -> None:
        record = Record()
        for minute in range(6):
            record = after(record, IMPLAUSIBLE, at=NOW + dt.timedelta(minutes=minute))
        assert record.status is Status.BANNED

    def test_doesnt_come_for_a_failure_a_day(self) -> None:
        record = Record()
        for day in range(400):
            record = after(record, IMPLAUSIBLE, at=NOW + dt.timedelta(days=day))
        assert (record.status, record.failed_updates) == (Status.PROBATION, 400)
        assert record.failure_score < 2.1

    @given(unbanned, policies)
    def test_comes_if_and_only_if_failures_exceed_the_allowed_in_any_status(
        self, record: Record, policy: Policy
    ) -> None:
        judged = after(record, IMPLAUSIBLE, policy=policy)
        too_many = fade(record, policy, NOW).failure_score + 1 > policy.ban_after_failures
        assert (judged.status is Status.BANNED) == too_many
        assert (judged.banned_until is not None) == too_many

    @given(records, policies)
    def test_never_comes_from_anything_else_but_an_operator(
        self, record: Record, policy: Policy
    ) -> None:
        if record.status is not Status.BANNED:
            for event in set(ALL_EVENTS) - {IMPLAUSIBLE, BAN}:
                assert after(record, event, policy=policy).status is not Status.BANNED

    def test_takes_twice_as_long_each_time_up_to_a_limit(self) -> None:
        record, hours, at = Record(), [], NOW
        for _ in range(8):
            record = after(record, *[IMPLAUSIBLE] * 6, at=at)
            assert record.banned_until is not None
            hours.append((record.banned_until - at) / HOUR)
            at = record.banned_until
            record = after(record, TimeEvent.BAN_ENDED, at=at)
        assert hours == [24, 48, 96, 192, 384, 720, 720, 720]

    @given(unbanned, policies)
    def test_is_never_longer_than_the_limit(self, record: Record, policy: Policy) -> None:
        record = replace(record, failure_score=10)
        until = after(
            record, IMPLAUSIBLE, policy=replace(policy, ban_after_failures=0)
        ).banned_until
        assert until is not None
        assert policy.ban_duration <= until - NOW <= policy.max_ban_duration

    def test_by_hand_doesnt_count_as_one_and_a_reset_clears_the_count(self) -> None:
        record = after(Record(), BAN, RESET, *[IMPLAUSIBLE] * 6)
        assert record.bans == 1
        assert after(record, TRUST).bans == 1
        assert after(record, RESET).bans == 0

    @given(banned)
    def test_ends_at_its_time_and_not_before(self, record: Record) -> None:
        ended = step(record, TimeEvent.BAN_ENDED)
        if record.banned_until is not None and record.banned_until <= NOW:
            assert ended.record == replace(
                record,
                status=Status.PROBATION,
                banned_until=None,
                failure_score=0,
                confirmed_score=0,
                scored_at=NOW,
            )
            assert ended.reason.startswith("the ban has ended")
        else:
            assert ended == Transition(record)

    @given(unbanned)
    def test_that_was_lifted_already_doesnt_end_again(self, record: Record) -> None:
        assert step(record, TimeEvent.BAN_ENDED) == Transition(record)

    def test_makes_trust_be_earned_again_in_full(self) -> None:
        lying = after(earned(), *[IMPLAUSIBLE] * 6)
        assert lying.status is Status.BANNED
        assert lying.banned_until is not None
        at = lying.banned_until
        freed = after(lying, TimeEvent.BAN_ENDED, at=at)
        assert after(freed, *[CONFIRMED] * 99, at=at).status is Status.PROBATION
        assert after(freed, *[CONFIRMED] * 100, at=at).status is Status.TRUSTED


class TestTrust:
    def test_is_earned_with_the_hundredth_confirmed_bar(self) -> None:
        almost = after(Record(), *[CONFIRMED] * 99)
        assert (almost.status, almost.confirmed_score) == (Status.PROBATION, 99)
        transition = step(almost, CONFIRMED)
        assert transition.record.status is Status.TRUSTED
        assert transition.reason.startswith("earned trust with a score of 100 confirmed bars")

    @given(on_probation, policies)
    def test_is_earned_by_nothing_but_a_confirmed_bar_and_an_operator(
        self, record: Record, policy: Policy
    ) -> None:
        for event in set(ALL_EVENTS) - {CONFIRMED, TRUST}:
            assert after(record, event, policy=policy).status is not Status.TRUSTED

    def test_accepted_bars_alone_never_earn_it(self) -> None:
        assert after(Record(), *[ACCEPTED] * 5_000) == Record(
            successful_updates=5_000, scored_at=NOW
        )

    @given(on_probation, policies)
    def test_asks_for_enough_merit_and_less_than_one_failure(
        self, record: Record, policy: Policy
    ) -> None:
        faded = fade(record, policy, NOW)
        enough = faded.confirmed_score + 1 >= policy.trust_after_confirmed - 0.5
        transition = step(record, CONFIRMED, policy=policy)
        assert (transition.record.status is Status.TRUSTED) == (enough and faded.failure_score < 1)

    def test_is_earned_by_a_hundred_bars_one_after_another(self) -> None:
        record = Record()
        for minute in range(100):
            record = after(record, CONFIRMED, at=NOW + dt.timedelta(minutes=minute))
        assert record.confirmed_score < 100
        assert record.status is Status.TRUSTED

    def test_waits_for_a_failure_to_fade(self) -> None:
        record = after(Record(), IMPLAUSIBLE, *[CONFIRMED] * 150)
        assert record.status is Status.PROBATION
        assert after(record, CONFIRMED, at=NOW + HOUR).status is Status.TRUSTED

    def test_isnt_earned_by_guessing(self) -> None:
        assert after(Record(), *[CONFIRMED, CONTRADICTED] * 10_000).confirmed_score == 0

    def test_is_lost_by_more_than_half_the_failures_that_ban(self) -> None:
        twice = after(earned(), IMPLAUSIBLE, IMPLAUSIBLE)
        assert twice.status is Status.TRUSTED
        thrice = step(twice, IMPLAUSIBLE)
        assert thrice.record.status is Status.PROBATION
        assert thrice.reason == (
            "lost trust: 3 implausible updates, more than half of the 5 allowed"
        )

    def test_fades_a_half_life_after_the_last_confirmed_bar(self) -> None:
        record, fortnight = earned(), NOW + dt.timedelta(days=14)
        assert step(record, TimeEvent.MERIT_FADED, at=fortnight) == Transition(record)
        later = step(record, TimeEvent.MERIT_FADED, at=fortnight + HOUR)
        assert later.record.status is Status.PROBATION
        assert later.reason.startswith("lost trust: faded to a score of 49.9 confirmed bars")

    def test_survives_a_long_holiday(self) -> None:
        at = NOW + dt.timedelta(days=9)
        assert after(earned(), TimeEvent.MERIT_FADED, at=at).status is Status.TRUSTED

    def test_is_lost_by_contradiction(self) -> None:
        record = earned()
        assert after(record, *[CONTRADICTED] * 50).status is Status.TRUSTED
        assert after(record, *[CONTRADICTED] * 51).status is Status.PROBATION

    def test_isnt_kept_for_ever_by_a_great_past(self) -> None:
        great = after(Record(), *[CONFIRMED] * 50_000)
        assert after(great, *[CONTRADICTED] * 151).status is Status.PROBATION
        month = NOW + dt.timedelta(days=29)
        assert after(great, TimeEvent.MERIT_FADED, at=month).status is Status.PROBATION

    @given(records, policies, moments)
    def test_by_hand_doesnt_fade(self, record: Record, policy: Policy, at: dt.datetime) -> None:
        by_hand = after(record, TRUST, policy=policy)
        for event in (TimeEvent.MERIT_FADED, CONTRADICTED):
            assert after(by_hand, event, policy=policy, at=at).status is Status.TRUSTED

    def test_by_hand_is_lost_by_failures_and_then_isnt_by_hand(self) -> None:
        by_hand = after(Record(), TRUST, *[IMPLAUSIBLE] * 3)
        assert (by_hand.status, by_hand.trusted_by_hand) == (Status.PROBATION, False)
        assert after(by_hand, *[IMPLAUSIBLE] * 3).status is Status.BANNED


class TestOperator:
    @given(records)
    def test_bans_without_end_and_keeps_the_rest(self, record: Record) -> None:
        expected = replace(fade(record, POLICY, NOW), status=Status.BANNED, banned_until=None)
        assert after(record, BAN) == replace(expected, trusted_by_hand=False)

    @given(records)
    def test_trusts_and_clears_only_the_failure_score(self, record: Record) -> None:
        assert after(record, TRUST) == replace(
            fade(record, POLICY, NOW),
            status=Status.TRUSTED,
            failure_score=0,
            trusted_by_hand=True,
            banned_until=None,
        )

    @given(records)
    def test_resets_all_but_the_totals(self, record: Record) -> None:
        assert after(record, RESET) == Record(
            successful_updates=record.successful_updates,
            failed_updates=record.failed_updates,
            scored_at=NOW,
        )

    @given(records, st.sampled_from(OperatorEvent))
    def test_always_leaves_a_reason(self, record: Record, event: OperatorEvent) -> None:
        assert "by hand" in step(record, event).reason


class TestStrike:
    """A failure that the market has shown to be none."""

    def test_ends_the_ban_that_rested_on_it_and_counts_it_no_more(self) -> None:
        record = after(Record(), *[IMPLAUSIBLE] * 6)
        assert (record.status, record.bans) == (Status.BANNED, 1)
        transition = step(record, Strike(NOW), at=NOW + HOUR)
        assert transition.record.status is Status.PROBATION
        assert transition.record.banned_until is None
        assert (transition.record.bans, transition.record.failed_updates) == (0, 5)
        assert "the market showed" in transition.reason
        assert "ends" in transition.reason

    def test_makes_the_ban_after_it_no_longer_than_a_first_one(self) -> None:
        record = after(Record(), *[IMPLAUSIBLE] * 6, *[Strike(NOW)] * 6, *[IMPLAUSIBLE] * 6)
        assert record.banned_until == NOW + POLICY.ban_duration

    def test_leaves_a_ban_that_stands_without_it(self) -> None:
        policy = replace(POLICY, ban_after_failures=3)
        record = replace(after(Record(), *[IMPLAUSIBLE] * 6), failure_score=6.0)
        transition = step(record, Strike(NOW), policy=policy)
        assert transition.record.status is Status.BANNED
        assert transition.record.banned_until == record.banned_until
        assert transition.record.failure_score == 5

    def test_leaves_an_operators_ban(self) -> None:
        record = after(Record(), *[IMPLAUSIBLE] * 6, BAN)
        assert step(record, Strike(NOW)).record.status is Status.BANNED
        assert step(record, Strike(NOW)).record.banned_until is None

    def test_judges_a_ban_as_it_was_when_it_began(self) -> None:
        """Both scores fade while the ban lasts, so that neither the hour of the strike decides."""
        record = after(Record(), *[IMPLAUSIBLE] * 6)
        for hours in (0, 1, 20):
            ended = step(record, Strike(NOW), at=NOW + hours * HOUR)
            assert ended.record.status is Status.PROBATION

    @given(gaps=st.lists(durations, min_size=1, max_size=5), struck=st.integers(0, 4))
    def test_leaves_the_score_as_if_the_failure_had_not_been(
        self, gaps: list[dt.timedelta], struck: int
    ) -> None:
        struck %= len(gaps)
        with_it, without, at, failed_at = Record(), Record(), NOW, NOW
        for place, gap in enumerate(gaps):
            at += gap
            with_it = after(with_it, IMPLAUSIBLE, at=at)
            if place == struck:
                failed_at = at
            else:
                without = after(without, IMPLAUSIBLE, at=at)
        left = after(with_it, Strike(failed_at), at=at)
        expected = fade(without, POLICY, at)
        # Twice the floor: a score that has faded below it is 0 in one of the two.
        assert left.failure_score == pytest.approx(expected.failure_score, abs=2 * FLOOR)
        assert left.failed_updates == expected.failed_updates

    @given(record=records, before=durations)
    def test_never_adds_a_failure_nor_a_ban(self, record: Record, before: dt.timedelta) -> None:
        left = step(record, Strike(NOW - before)).record
        assert 0 <= left.failure_score <= record.failure_score
        assert 0 <= left.failed_updates <= record.failed_updates
        assert left.bans <= record.bans
        assert left.confirmed_score == record.confirmed_score


class TestEveryTransition:
    @given(records, events, policies)
    def test_gives_a_reason_when_the_status_changes(
        self, record: Record, event: Event, policy: Policy
    ) -> None:
        transition = step(record, event, policy=policy)
        if transition.record.status is not record.status:
            assert transition.reason

    @given(happenings, policies)
    def test_keeps_a_record_that_the_database_accepts(
        self, happened: list[tuple[Event, dt.timedelta]], policy: Policy
    ) -> None:
        record, at = Record(), NOW
        for event, later in happened:
            at += later
            before, record = record, after(record, event, at=at, policy=policy)
            assert record.successful_updates >= before.successful_updates
            assert record.failed_updates >= before.failed_updates
            assert 0 <= record.failure_score <= policy.ban_after_failures + 1
            assert 0 <= record.confirmed_score <= CONFIRMED_CAP * policy.trust_after_confirmed
            assert record.banned_until is None or record.status is Status.BANNED
            assert not record.trusted_by_hand or record.status is Status.TRUSTED
            assert record.bans >= before.bans or event is RESET
            if record.status is not Status.BANNED:
                assert record.failure_score <= policy.ban_after_failures

    @given(happenings, policies)
    def test_has_the_failures_that_a_look_back_counts(
        self, happened: list[tuple[Event, dt.timedelta]], policy: Policy
    ) -> None:
        """A score is the sum of what each failure since the last clearing still counts."""
        policy = replace(policy, ban_after_failures=1_000)
        record, at, failures = Record(), NOW, list[dt.datetime]()
        for event, later in happened:
            at += abs(later)
            if event in (BAN, TimeEvent.BAN_ENDED):
                continue
            record = after(record, event, at=at, policy=policy)
            if event is IMPLAUSIBLE:
                failures.append(at)
            elif event in (RESET, TRUST):
                failures = []
        expected = sum(0.5 ** ((at - failed) / policy.failure_half_life) for failed in failures)
        score = fade(record, policy, at).failure_score
        assert math.isclose(score, expected, rel_tol=1e-6, abs_tol=2 * FLOOR)

    def test_of_a_status_has_a_row_with_the_stricter_guard_first(self) -> None:
        cases = [(status, row.event) for row in TABLE for status in row.statuses]
        twice = {case for case in cases if cases.count(case) > 1}
        # A trusted actor's failure may ban it, or else cost it its trust; a strike may end a ban.
        assert twice == {(Status.TRUSTED, IMPLAUSIBLE), (Status.BANNED, Strike)}
