"""What an actor's record becomes with each event: the rules of reputation, in one table.

The rules
- An accepted update counts as a success, an implausible one as a failure.
- More failures than the policy allows (5) ban, whatever the status: the sixth failure does.
- PROBATION becomes TRUSTED after enough successes (100) with few failures: at most one in
  ``SUCCESSES_PER_FAILURE`` successes.
- A ban for failures ends by itself after a time (24 h); a ban by an operator has no end.
- A banned actor's outcomes change nothing, not even its counts.
- An operator may ban, trust or reset an actor in any status.

The theory
- A record is what is counted since its actor last began: the end of a ban and a reset begin it anew
  and clear both counts. If successes stayed, an actor that once earned trust would be TRUSTED again
  with its first accepted update after a ban; so trust is earned again, in full. What was cleared
  stands in the reason of the change.
- Trust given by hand clears the failures and keeps the successes: an actor unbanned that way must
  not be banned again by its next mistake, and its successes still tell the operator who it is.
- The end of a ban is an event like any other. Whoever looks at an actor first after its ban has
  ended applies it; a second one finds it applied, because its row asks for BANNED.
- Guards look at the record with the event already counted. The first row that fits decides.
- An operator's event always gives a reason, so that it leaves a trace where the status stays, too.

Nothing here knows of storage, settings or the time of day: values in, values out.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

# True bars are cheap to repeat, so they must not outweigh lies one by one: at 50, the policy's 100
# successes bear two failures, and the five that are survived before a ban ask for 250.
SUCCESSES_PER_FAILURE = 50


class Status(StrEnum):
    PROBATION = "PROBATION"
    TRUSTED = "TRUSTED"
    BANNED = "BANNED"


class Outcome(StrEnum):
    """What became of an actor's update at the public door."""

    ACCEPTED = "ACCEPTED"
    IMPLAUSIBLE = "IMPLAUSIBLE"


class OperatorEvent(StrEnum):
    BAN = "BAN"
    TRUST = "TRUST"
    RESET = "RESET"


class TimeEvent(StrEnum):
    BAN_ENDED = "BAN_ENDED"


Event = Outcome | OperatorEvent | TimeEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``ban_after_failures`` failures are survived; ``ban_duration`` is a ban's for failures."""

    ban_after_failures: int = 5
    trust_after_successes: int = 100
    ban_duration: dt.timedelta = dt.timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """``banned_until`` is set for a ban that ends by itself, and for nothing else."""

    status: Status = Status.PROBATION
    successful_updates: int = 0
    failed_updates: int = 0
    banned_until: dt.datetime | None = None

    def ban_is_over(self, at: dt.datetime) -> bool:
        return self.banned_until is not None and self.banned_until <= at


@dataclass(frozen=True, slots=True)
class Transition:
    """The record after an event; ``reason`` is "" where there is nothing to write down."""

    record: Record
    reason: str = ""


Guard = Callable[[Record, Policy, dt.datetime], bool]
Effect = Callable[[Record, Policy, dt.datetime], Record]


def _always(_record: Record, _policy: Policy, _at: dt.datetime) -> bool:
    return True


def _too_many_failures(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    return record.failed_updates > policy.ban_after_failures


def _trust_is_earned(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    return record.successful_updates >= max(
        policy.trust_after_successes, record.failed_updates * SUCCESSES_PER_FAILURE
    )


def _ban_is_over(record: Record, _policy: Policy, at: dt.datetime) -> bool:
    return record.ban_is_over(at)


def _ban_for_a_time(record: Record, policy: Policy, at: dt.datetime) -> Record:
    return replace(record, banned_until=at + policy.ban_duration)


def _keep_counts(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return replace(record, banned_until=None)


def _clear_failures(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return replace(record, banned_until=None, failed_updates=0)


def _begin_anew(_record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return Record()


@dataclass(frozen=True, slots=True)
class Row:
    """``reason`` may name ``successes``, ``failures`` and ``allowed`` failures."""

    statuses: tuple[Status, ...]
    event: Event
    guard: Guard
    next_status: Status
    effect: Effect
    reason: str


P, T, B = Status.PROBATION, Status.TRUSTED, Status.BANNED
_COUNTS = "{successes} accepted and {failures} implausible updates"

# fmt: off
TABLE: tuple[Row, ...] = (
    Row((P, T), Outcome.IMPLAUSIBLE, _too_many_failures, B, _ban_for_a_time,
        "{failures} implausible updates, more than the {allowed} allowed"),
    Row((P,), Outcome.ACCEPTED, _trust_is_earned, T, _keep_counts, "earned trust with " + _COUNTS),
    Row((B,), TimeEvent.BAN_ENDED, _ban_is_over, P, _begin_anew,
        "the ban has ended; cleared " + _COUNTS),
    Row((P, T, B), OperatorEvent.BAN, _always, B, _keep_counts,
        "banned by hand, without end, at " + _COUNTS),
    Row((P, T, B), OperatorEvent.TRUST, _always, T, _clear_failures,
        "trusted by hand; cleared {failures} implausible updates"),
    Row((P, T, B), OperatorEvent.RESET, _always, P, _begin_anew,
        "reset by hand; cleared " + _COUNTS),
)
# fmt: on


def apply(*, record: Record, event: Event, policy: Policy, at: dt.datetime) -> Transition:
    """The record after ``event``, which happened ``at`` (an aware datetime), and why it changed."""
    counted = _counted(record, event)
    for row in TABLE:
        if row.event is event and record.status in row.statuses and row.guard(counted, policy, at):
            after = replace(row.effect(counted, policy, at), status=row.next_status)
            return Transition(after, _reason(row, counted, policy))
    return Transition(counted)


def _counted(record: Record, event: Event) -> Record:
    if record.status is Status.BANNED:
        return record
    if event is Outcome.ACCEPTED:
        return replace(record, successful_updates=record.successful_updates + 1)
    if event is Outcome.IMPLAUSIBLE:
        return replace(record, failed_updates=record.failed_updates + 1)
    return record


def _reason(row: Row, counted: Record, policy: Policy) -> str:
    return row.reason.format(
        successes=counted.successful_updates,
        failures=counted.failed_updates,
        allowed=policy.ban_after_failures,
    )
