"""The transitions of reputation: a table says what each event makes of an actor's record.

The rules
- An implausible update adds 1 to the failure score, a confirmed one adds 1 to the confirmed score,
  a contradicted one takes 1 from it. An accepted update adds to neither, since nobody knows yet
  whether it is true.
- Each score fades by half in its own half-life, and ends at 0 below ``FLOOR``.
- A failure score above what the policy allows (5) bans, whatever the status: the sixth failure in
  quick succession does. Above half of that, TRUSTED becomes PROBATION.
- PROBATION becomes TRUSTED when the confirmed score reaches the policy's (100), with a failure
  score below 1; and PROBATION again when it has faded below half of that.
- A ban for failures ends by itself: after 24 h, the next one after twice as long, up to a limit. A
  ban by an operator has no end.
- A banned actor's outcomes change nothing, not even its counts.
- A failure that the market has shown to be none is struck: what is left of it leaves the failure
  score, and a ban that would not stand without it ends, and is counted no more. An operator's ban
  stays.
- An operator may ban, trust or reset an actor in any status.

The theory
- Scores are counters that decay, as the peer scores of gossipsub 1.1 are: an old mistake is
  forgiven, an old merit runs out. They never meet: no merit pays for a failure, or an actor could
  buy lies with true bars, which are cheap to repeat.
- The confirmed score is capped (as gossipsub caps its counters), so that no long past, however
  good, takes longer than two half-lives, or 1.5 times the policy's number of contradictions, to
  lose trust.
- A contradicted bar counts one, however far off it was, and no score falls below 0: an honest
  sender of an illiquid share is far off now and then, and a liar would leave a debt behind with its
  address.
- Half of what earned trust keeps it, and half of what bans loses it, so that an actor at the edge
  doesn't change sides with every bar.
- Time is a datetime of the wall clock, which may be set back: then nothing fades, and nothing
  grows.
- The end of a ban clears both scores: the actor begins anew, and earns trust again in full. How
  often it was banned stays until an operator resets it. The totals of updates are never cleared.
- Trust by hand doesn't fade, because an operator knows something that no bar says. Failures end it
  like any trust.
- What time does is an event like any other. The first reader of an actor after its ban has ended or
  its merit has faded applies it; a second one finds it applied, because the row asks for the status
  before.
- Guards look at the record with the event already counted. The first row that fits decides.
- An operator's event always gives a reason, so that it leaves a trace where the status stays, too.

The module is pure: it knows nothing of storage, settings or the time of day.
"""

import datetime as dt
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

FLOOR = 0.01  # a lower score is 0: gossipsub's "decay to zero"
CONFIRMED_CAP = 2.0  # times the confirmed score that makes TRUSTED


class Status(StrEnum):
    PROBATION = "PROBATION"
    TRUSTED = "TRUSTED"
    BANNED = "BANNED"


class Outcome(StrEnum):
    """The outcome of an actor's update at the public door."""

    ACCEPTED = "ACCEPTED"
    IMPLAUSIBLE = "IMPLAUSIBLE"


class ClaimEvent(StrEnum):
    """A trusted source's later verdict on an accepted bar."""

    CONFIRMED = "CONFIRMED"
    CONTRADICTED = "CONTRADICTED"


class OperatorEvent(StrEnum):
    BAN = "BAN"
    TRUST = "TRUST"
    RESET = "RESET"


class TimeEvent(StrEnum):
    BAN_ENDED = "BAN_ENDED"
    MERIT_FADED = "MERIT_FADED"


@dataclass(frozen=True, slots=True)
class Strike:
    """The event that the market has shown the failure of ``failed_at`` to be none."""

    failed_at: dt.datetime


Event = Outcome | ClaimEvent | OperatorEvent | TimeEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The numbers of the rules. The failure after ``ban_after_failures`` bans; a first ban for
    failures lasts ``ban_duration``, and none lasts longer than ``max_ban_duration``."""

    ban_after_failures: int = 5
    failure_half_life: dt.timedelta = dt.timedelta(hours=24)
    trust_after_confirmed: int = 100
    confirmed_half_life: dt.timedelta = dt.timedelta(days=14)
    ban_duration: dt.timedelta = dt.timedelta(hours=24)
    max_ban_duration: dt.timedelta = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An actor's record. Its scores are those of ``scored_at``; ``fade`` gives later ones.

    ``successful_updates`` and ``failed_updates`` are totals that decide nothing. ``bans`` counts
    bans for failures. ``banned_until`` is set for a ban that ends by itself, and for nothing else.
    """

    status: Status = Status.PROBATION
    successful_updates: int = 0
    failed_updates: int = 0
    failure_score: float = 0.0
    confirmed_score: float = 0.0
    scored_at: dt.datetime | None = None
    bans: int = 0
    trusted_by_hand: bool = False
    banned_until: dt.datetime | None = None

    def ban_is_over(self, at: dt.datetime) -> bool:
        return self.banned_until is not None and self.banned_until <= at


@dataclass(frozen=True, slots=True)
class Transition:
    """The record after an event; ``reason`` is "" when no StatusChange is due."""

    record: Record
    reason: str = ""


# --- What an event counts -------------------------------------------------------------------------


def fade(record: Record, policy: Policy, at: dt.datetime) -> Record:
    """Return the record with its scores as they are ``at``; a clock that was set back changes
    nothing."""
    since = dt.timedelta(0) if record.scored_at is None else at - record.scored_at
    return replace(
        record,
        failure_score=_faded(record.failure_score, since / policy.failure_half_life),
        confirmed_score=_faded(record.confirmed_score, since / policy.confirmed_half_life),
        scored_at=at,
    )


def _faded(score: float, half_lives: float) -> float:
    left = score * 0.5 ** max(0.0, half_lives)
    return left if left >= FLOOR else 0.0


@dataclass(frozen=True, slots=True)
class CountRule:
    successful: int = 0
    failed: int = 0
    failure_score: float = 0.0
    confirmed_score: float = 0.0


NOTHING = CountRule()
COUNTS: Mapping[Event, CountRule] = {
    Outcome.ACCEPTED: CountRule(successful=1),
    Outcome.IMPLAUSIBLE: CountRule(failed=1, failure_score=1),
    ClaimEvent.CONFIRMED: CountRule(confirmed_score=1),
    ClaimEvent.CONTRADICTED: CountRule(confirmed_score=-1),
}


def _counted(record: Record, event: Event, policy: Policy) -> Record:
    count = COUNTS.get(event, NOTHING)
    if record.status is Status.BANNED:
        return record
    confirmed = record.confirmed_score + count.confirmed_score
    return replace(
        record,
        successful_updates=record.successful_updates + count.successful,
        failed_updates=record.failed_updates + count.failed,
        failure_score=record.failure_score + count.failure_score,
        confirmed_score=max(0.0, min(confirmed, CONFIRMED_CAP * policy.trust_after_confirmed)),
    )


def _struck(record: Record, failed_at: dt.datetime, policy: Policy) -> Record:
    """Return the record without the failure. ``scored_at`` stays: for a banned actor it is the
    moment of its ban."""
    scored_at = record.scored_at or failed_at
    left = _faded(1.0, (scored_at - failed_at) / policy.failure_half_life)
    score = record.failure_score - left
    return replace(
        record,
        failed_updates=max(0, record.failed_updates - 1),
        failure_score=score if score >= FLOOR else 0.0,
    )


# --- Guards and effects ---------------------------------------------------------------------------

Guard = Callable[[Record, Policy, dt.datetime], bool]
Effect = Callable[[Record, Policy, dt.datetime], Record]


def _always(_record: Record, _policy: Policy, _at: dt.datetime) -> bool:
    return True


def _too_many_failures(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    return record.failure_score > policy.ban_after_failures


def _half_too_many_failures(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    return record.failure_score > policy.ban_after_failures / 2


def _trust_is_earned(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    # A hundred bars that were confirmed one after another have faded to 99.9 with the last one.
    enough = record.confirmed_score >= policy.trust_after_confirmed - 0.5
    return enough and record.failure_score < 1


def _merit_has_faded(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    faded = record.confirmed_score < policy.trust_after_confirmed / 2
    return faded and not record.trusted_by_hand


def _ban_is_over(record: Record, _policy: Policy, at: dt.datetime) -> bool:
    return record.ban_is_over(at)


def _as_counted(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return replace(record, banned_until=None, trusted_by_hand=False)


def _ban_for_a_time(record: Record, policy: Policy, at: dt.datetime) -> Record:
    # A timedelta overflows where a float is only large.
    seconds = min(
        policy.ban_duration.total_seconds() * 2.0 ** min(record.bans, 100),
        policy.max_ban_duration.total_seconds(),
    )
    until = at + dt.timedelta(seconds=seconds)
    return replace(record, banned_until=until, bans=record.bans + 1, trusted_by_hand=False)


def _ban_falls(record: Record, policy: Policy, _at: dt.datetime) -> bool:
    return record.banned_until is not None and not _too_many_failures(record, policy, _at)


def _unchanged(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return record


def _take_back_the_ban(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return replace(record, banned_until=None, bans=max(0, record.bans - 1))


def _clear_scores(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    return replace(
        record, banned_until=None, trusted_by_hand=False, failure_score=0.0, confirmed_score=0.0
    )


def _trust_by_hand(record: Record, _policy: Policy, _at: dt.datetime) -> Record:
    # The failures go too, or the next mistake would ban an actor that was unbanned this way.
    return replace(record, banned_until=None, trusted_by_hand=True, failure_score=0.0)


def _begin_anew(record: Record, policy: Policy, at: dt.datetime) -> Record:
    return replace(_clear_scores(record, policy, at), bans=0)


# --- The table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table; ``reason`` may name the fields that ``_reason`` fills in."""

    statuses: tuple[Status, ...]
    event: Event | type[Strike]
    guard: Guard
    next_status: Status
    effect: Effect
    reason: str


P, T, B = Status.PROBATION, Status.TRUSTED, Status.BANNED
_STRUCK = "the market showed that a refused request was right: its failure is struck"
_TOTALS = ", at {successes} accepted and {failures} implausible updates"

# fmt: off
TABLE: tuple[Row, ...] = (
    Row((P, T), Outcome.IMPLAUSIBLE, _too_many_failures, B, _ban_for_a_time,
        "{failure_score} implausible updates, more than the {allowed} allowed"),
    Row((T,), Outcome.IMPLAUSIBLE, _half_too_many_failures, P, _as_counted,
        "lost trust: {failure_score} implausible updates, more than half of the {allowed} allowed"),
    Row((P,), ClaimEvent.CONFIRMED, _trust_is_earned, T, _as_counted,
        "earned trust with a score of {confirmed_score} confirmed bars" + _TOTALS),
    Row((T,), ClaimEvent.CONTRADICTED, _merit_has_faded, P, _as_counted,
        "lost trust: contradicted down to a score of {confirmed_score} confirmed bars, less than "
        "half of the {needed} that earn it"),
    Row((T,), TimeEvent.MERIT_FADED, _merit_has_faded, P, _as_counted,
        "lost trust: faded to a score of {confirmed_score} confirmed bars, less than half of the "
        "{needed} that earn it"),
    Row((B,), TimeEvent.BAN_ENDED, _ban_is_over, P, _clear_scores, "the ban has ended" + _TOTALS),
    Row((B,), Strike, _ban_falls, P, _take_back_the_ban,
        _STRUCK + ", and the ban that rested on it ends" + _TOTALS),
    Row((P,), Strike, _always, P, _unchanged, _STRUCK),
    Row((T,), Strike, _always, T, _unchanged, _STRUCK),
    Row((B,), Strike, _always, B, _unchanged, _STRUCK),
    Row((P, T, B), OperatorEvent.BAN, _always, B, _as_counted,
        "banned by hand, without end" + _TOTALS),
    Row((P, T, B), OperatorEvent.TRUST, _always, T, _trust_by_hand, "trusted by hand" + _TOTALS),
    Row((P, T, B), OperatorEvent.RESET, _always, P, _begin_anew, "reset by hand" + _TOTALS),
)
# fmt: on


def apply(*, record: Record, event: Event | Strike, policy: Policy, at: dt.datetime) -> Transition:
    """Return the record after ``event``, which happened ``at`` (an aware datetime), and the reason.

    An event that counts nothing and matches no row returns the very record that was given.
    """
    if isinstance(event, Strike):
        counted = _struck(record, event.failed_at, policy)
    else:
        counted = _counted(fade(record, policy, at), event, policy)
    kind = Strike if isinstance(event, Strike) else event
    for row in TABLE:
        if row.event is kind and record.status in row.statuses and row.guard(counted, policy, at):
            after = replace(row.effect(counted, policy, at), status=row.next_status)
            return Transition(after, _reason(row, counted, policy))
    counts = event in COUNTS and record.status is not Status.BANNED
    return Transition(counted if counts else record)


def _reason(row: Row, counted: Record, policy: Policy) -> str:
    return row.reason.format(
        successes=counted.successful_updates,
        failures=counted.failed_updates,
        failure_score=_in_tenths(counted.failure_score),
        confirmed_score=_in_tenths(counted.confirmed_score),
        allowed=policy.ban_after_failures,
        needed=policy.trust_after_confirmed,
    )


def _in_tenths(score: float) -> str:
    """Return the score rounded up to tenths: six failures of the last minutes are 5.997, which a
    person reads as 6."""
    return f"{math.ceil(score * 10) / 10:g}"
