import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reputation.transitions import (
    SUCCESSES_PER_FAILURE,
    TABLE,
    Event,
    OperatorEvent,
    Outcome,
    Policy,
    Record,
    Status,
    TimeEvent,
    apply,
)

NOW = dt.datetime(2025, 8, 15, 3, 0, tzinfo=dt.UTC)
POLICY = Policy()
ACCEPTED, IMPLAUSIBLE = Outcome.ACCEPTED, Outcome.IMPLAUSIBLE

events = st.sampled_from([*Outcome, *OperatorEvent, *TimeEvent])
policies = st.builds(
    Policy,
    ban_after_failures=st.integers(0, 8),
    trust_after_successes=st.integers(1, 120),
    ban_duration=st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=3)),
)
counts = st.integers(0, 400)
unbanned = st.builds(
    Record,
    status=st.sampled_from([Status.PROBATION, Status.TRUSTED]),
    successful_updates=counts,
    failed_updates=counts,
)
banned = st.builds(
    Record,
    status=st.just(Status.BANNED),
    successful_updates=counts,
    failed_updates=counts,
    banned_until=st.none()
    | st.timedeltas(dt.timedelta(days=-2), dt.timedelta(days=2)).map(lambda delta: NOW + delta),
)
records = unbanned | banned


def after(record: Record, *happened: Event, policy: Policy = POLICY) -> Record:
    for event in happened:
        record = apply(record=record, event=event, policy=policy, at=NOW).record
    return record


class TestOutcomes:
    @given(unbanned, policies)
    def test_each_is_counted_once(self, record: Record, policy: Policy) -> None:
        accepted = after(record, ACCEPTED, policy=policy)
        assert accepted.successful_updates == record.successful_updates + 1
        assert accepted.failed_updates == record.failed_updates
        implausible = after(record, IMPLAUSIBLE, policy=policy)
        assert implausible.failed_updates == record.failed_updates + 1
        assert implausible.successful_updates == record.successful_updates

    @given(banned, policies, st.sampled_from(Outcome))
    def test_of_a_banned_actor_change_nothing(
        self, record: Record, policy: Policy, outcome: Outcome
    ) -> None:
        transition = apply(record=record, event=outcome, policy=policy, at=NOW)
        assert transition.record == record
        assert transition.reason == ""


class TestBan:
    def test_comes_with_the_sixth_failure(self) -> None:
        fifth = after(Record(), *[IMPLAUSIBLE] * 5)
        assert fifth == Record(failed_updates=5)
        sixth = apply(record=fifth, event=IMPLAUSIBLE, policy=POLICY, at=NOW)
        assert sixth.record == Record(
            status=Status.BANNED, failed_updates=6, banned_until=NOW + dt.timedelta(hours=24)
        )
        assert sixth.reason == "6 implausible updates, more than the 5 allowed"

    @given(unbanned, policies)
    def test_comes_if_and_only_if_failures_exceed_the_allowed_in_any_status(
        self, record: Record, policy: Policy
    ) -> None:
        judged = after(record, IMPLAUSIBLE, policy=policy)
        too_many = record.failed_updates + 1 > policy.ban_after_failures
        assert (judged.status is Status.BANNED) == too_many
        assert judged.banned_until == (NOW + policy.ban_duration if too_many else None)

    @given(unbanned, policies)
    def test_never_comes_from_an_accepted_update(self, record: Record, policy: Policy) -> None:
        assert after(record, ACCEPTED, policy=policy).status is not Status.BANNED

    @given(banned)
    def test_ends_at_its_time_and_not_before(self, record: Record) -> None:
        ended = apply(record=record, event=TimeEvent.BAN_ENDED, policy=POLICY, at=NOW)
        if record.banned_until is not None and record.banned_until <= NOW:
            assert ended.record == Record()
            assert f"{record.failed_updates} implausible" in ended.reason
        else:
            assert ended.record == record
            assert ended.reason == ""

    @given(unbanned)
    def test_that_was_lifted_already_doesnt_end_again(self, record: Record) -> None:
        ended = apply(record=record, event=TimeEvent.BAN_ENDED, policy=POLICY, at=NOW)
        assert ended.record == record
        assert ended.reason == ""

    def test_makes_trust_be_earned_again_in_full(self) -> None:
        trusted = after(Record(), *[ACCEPTED] * 5_000)
        lying = after(trusted, *[IMPLAUSIBLE] * 6)
        assert (trusted.status, lying.status) == (Status.TRUSTED, Status.BANNED)
        assert lying.banned_until is not None
        freed = apply(
            record=lying, event=TimeEvent.BAN_ENDED, policy=POLICY, at=lying.banned_until
        ).record
        assert after(freed, *[ACCEPTED] * 99).status is Status.PROBATION
        assert after(freed, *[ACCEPTED] * 100).status is Status.TRUSTED


class TestTrust:
    def test_is_earned_with_the_hundredth_success(self) -> None:
        almost = after(Record(), *[ACCEPTED] * 99)
        assert almost == Record(successful_updates=99)
        earned = apply(record=almost, event=ACCEPTED, policy=POLICY, at=NOW)
        assert earned.record == Record(status=Status.TRUSTED, successful_updates=100)
        assert earned.reason == "earned trust with 100 accepted and 0 implausible updates"

    @pytest.mark.parametrize(("failures", "needed"), [(0, 100), (2, 100), (3, 150), (5, 250)])
    def test_takes_fifty_successes_for_each_failure(self, failures: int, needed: int) -> None:
        record = Record(failed_updates=failures, successful_updates=needed - 2)
        assert after(record, ACCEPTED).status is Status.PROBATION
        assert after(record, ACCEPTED, ACCEPTED).status is Status.TRUSTED

    @given(unbanned, policies)
    def test_is_earned_only_by_an_accepted_update(self, record: Record, policy: Policy) -> None:
        on_probation = replace(record, status=Status.PROBATION)
        accepted = after(on_probation, ACCEPTED, policy=policy)
        earned = (
            accepted.successful_updates >= policy.trust_after_successes
            and accepted.failed_updates * SUCCESSES_PER_FAILURE <= accepted.successful_updates
        )
        assert (accepted.status is Status.TRUSTED) == earned
        assert after(on_probation, IMPLAUSIBLE, policy=policy).status is not Status.TRUSTED

    @given(unbanned)
    def test_is_not_lost_by_failures_short_of_a_ban(self, record: Record) -> None:
        trusted = replace(record, status=Status.TRUSTED, failed_updates=4)
        assert after(trusted, IMPLAUSIBLE).status is Status.TRUSTED


class TestOperator:
    @given(records)
    def test_bans_without_end_and_keeps_the_counts(self, record: Record) -> None:
        expected = replace(record, status=Status.BANNED, banned_until=None)
        assert after(record, OperatorEvent.BAN) == expected

    @given(records)
    def test_trusts_and_clears_only_the_failures(self, record: Record) -> None:
        assert after(record, OperatorEvent.TRUST) == Record(
            status=Status.TRUSTED, successful_updates=record.successful_updates
        )

    @given(records)
    def test_resets_to_a_new_record(self, record: Record) -> None:
        assert after(record, OperatorEvent.RESET) == Record()

    @given(records, st.sampled_from(OperatorEvent))
    def test_always_leaves_a_reason(self, record: Record, event: OperatorEvent) -> None:
        assert "by hand" in apply(record=record, event=event, policy=POLICY, at=NOW).reason


class TestEveryTransition:
    @given(records, events, policies)
    def test_gives_a_reason_when_the_status_changes(
        self, record: Record, event: Event, policy: Policy
    ) -> None:
        transition = apply(record=record, event=event, policy=policy, at=NOW)
        if transition.record.status is not record.status:
            assert transition.reason

    @given(st.lists(events, max_size=60), policies)
    def test_keeps_a_record_that_the_database_accepts(
        self, happened: list[Event], policy: Policy
    ) -> None:
        record = Record()
        for step, event in enumerate(happened):
            at = NOW + dt.timedelta(hours=step)
            record = apply(record=record, event=event, policy=policy, at=at).record
            assert record.successful_updates >= 0
            assert record.failed_updates >= 0
            assert record.banned_until is None or record.status is Status.BANNED
            if record.status is not Status.BANNED:
                assert record.failed_updates <= policy.ban_after_failures

    def test_has_one_row_for_a_status_and_event(self) -> None:
        cases = [(status, row.event) for row in TABLE for status in row.statuses]
        assert len(cases) == len(set(cases))
