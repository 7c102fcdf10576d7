"""Actors: this module reads and changes their status for the doors, the worker and the admin.

The public door needs a status with every request, so it is read from the cache that all processes
share. SQL is asked once in ``STATUS_LIFETIME`` for each actor, known or not, and only for requests
within the rate limit. A change is committed first and then written over the cached status, so that
it acts at once everywhere.

Failures, and whatever changes a status, are in SQL before they are answered. Accepted updates are
counted in Redis and flushed (reputation.update_counts).

No race can leave a stale status in the cache: a reader only fills a gap (``add``), and a writer
publishes what is committed while it holds the actor's row, so that the last to publish is right.

The doors' queries go through a bulkhead (reputation.database_bulkhead): a database that hangs must
not hold all of a process's threads.

Every ``address`` here is an actor in canonical form, from ``reputation.address.actor_of``. Errors
of the database and of Redis pass through: the doors answer 503 to both.
"""

import datetime as dt
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from reputation import appeals
from reputation.database_bulkhead import bulkhead
from reputation.evidence import bounded
from reputation.models import Actor, Appeal, StatusChange
from reputation.transitions import (
    ClaimEvent,
    Event,
    OperatorEvent,
    Outcome,
    Policy,
    Record,
    Status,
    Strike,
    TimeEvent,
    apply,
    fade,
)
from reputation.update_counts import ADDRESSES_A_QUERY, UpdateCounts, add_bars, hour_of, locked
from reputation.update_counts import count as count
from reputation.update_counts import flush as flush

STATUS_LIFETIME = 60.0  # seconds in the cache
_ACTORS_A_TRANSACTION = 100  # a transaction holds the rows of all its actors

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ActorStatus:
    """An actor's status. ``banned_until`` is None for a ban without end, and without a ban.

    ``failures_left`` says how many more are allowed in quick succession; only ``record_outcome``
    sets it.
    """

    status: Status = Status.PROBATION
    banned_until: dt.datetime | None = None
    failures_left: int | None = field(default=None, compare=False)

    @property
    def banned(self) -> bool:
        return self.status is Status.BANNED

    @property
    def trusted(self) -> bool:
        return self.status is Status.TRUSTED

    def ban_is_over(self, at: dt.datetime) -> bool:
        return self.banned_until is not None and self.banned_until <= at


class BannedError(Exception):
    """The actor was banned before, whatever a cached status said; ``until`` None: without end."""

    def __init__(self, address: str, *, until: dt.datetime | None) -> None:
        super().__init__(address)
        self.until = until


def cached_status(*, address: str) -> ActorStatus | None:
    """Return an actor's status from the cache alone; None if SQL has to be asked."""
    known = _cached(address)
    return None if known is None or known.ban_is_over(timezone.now()) else known


def status_of(*, address: str) -> ActorStatus:
    """Return an actor's status now; an actor that was never judged is on PROBATION."""
    known = cached_status(address=address)
    if known is not None:
        return known
    with bulkhead().inside():
        actor = Actor.objects.filter(address=address).first()
        if actor is not None and is_due(actor=actor):
            return _settle(address)
    found = ActorStatus() if actor is None else _status(actor)
    cache.add(_key(address), _entry(found), timeout=_lifetime(found))
    return found


def record_outcome(
    *,
    address: str,
    outcome: Outcome,
    evidence: object,
    bars: tuple[int, int] | None = None,
    appeal: Sequence[object] = (),
) -> ActorStatus:
    """Count an outcome and judge the actor by it; the change is committed when this returns.

    ``evidence`` is what was sent, anything that JSON holds; a bounded part of it is kept with a
    change of status. ``bars`` says how many were accepted and how many refused; None: one.
    ``appeal`` is what would have to come true for a failure to be struck (empty: it can't be).
    Returns the status after the outcome; raises BannedError, and counts nothing, for an actor that
    was banned before. It must not be called in a transaction.
    """
    with bulkhead().inside():
        return _record_outcome(address, outcome, evidence, bars, appeal)


def _record_outcome(
    address: str,
    outcome: Outcome,
    evidence: object,
    bars: tuple[int, int] | None,
    appeal: Sequence[object],
) -> ActorStatus:
    now = timezone.now()
    accepted, refused = bars or ((1, 0) if outcome is Outcome.ACCEPTED else (0, 1))
    with transaction.atomic(durable=True):
        actor, _created = Actor.objects.select_for_update().get_or_create(
            address=address, defaults={"first_seen": now}
        )
        changed = _apply_time(actor, at=now)
        was_banned = actor.status == Status.BANNED
        if not was_banned:
            actor.last_seen = now
            changed |= _apply(actor, outcome, at=now, evidence=evidence)
            add_bars(hour_of(now), {actor.pk: UpdateCounts(0, accepted, refused)})
            if appeal:
                appeals.file(actor=actor, failed_at=now, content=appeal)
        if changed:
            # The cache forgets it before the commit: a process that is killed right after the
            # commit leaves no older status there, under which a banned actor would go on.
            cache.delete(_key(address))
    if changed or was_banned:
        _publish(address)
    if was_banned:
        raise BannedError(address, until=actor.banned_until)
    return replace(_status(actor), failures_left=_failures_left(actor, at=now))


def record_claims(
    *,
    confirmed: Mapping[str, int],
    contradicted: Mapping[str, int],
    evidence: Mapping[str, object] | None = None,
) -> dict[str, ActorStatus]:
    """Judge actors by how many of their claims a trusted source has confirmed and contradicted.

    All three mappings are by address. The change is committed and published when this returns.
    Confirmations and contradictions of one call are set off against each other first, so that a
    guesser gains nothing by the order of its bars. A bounded part of ``evidence`` is kept with a
    change of status. Returns each status that changed. It must not be called in a transaction.
    """
    net = {
        address: confirmed.get(address, 0) - contradicted.get(address, 0)
        for address in sorted(confirmed.keys() | contradicted.keys())
    }
    judged = [address for address, claims in net.items() if claims]
    changed: dict[str, ActorStatus] = {}
    for start in range(0, len(judged), _ACTORS_A_TRANSACTION):
        part = judged[start : start + _ACTORS_A_TRANSACTION]
        changed.update(_record_claims({address: net[address] for address in part}, evidence or {}))
    return changed


def _record_claims(
    net: Mapping[str, int], evidence: Mapping[str, object]
) -> dict[str, ActorStatus]:
    now = timezone.now()
    changed = {}
    with transaction.atomic(durable=True):
        pks = locked(net.keys(), first_seen=now)
        actors = Actor.objects.in_bulk(pks.values())
        for address, claims in net.items():
            actor = actors[pks[address]]
            event = ClaimEvent.CONFIRMED if claims > 0 else ClaimEvent.CONTRADICTED
            has_changed = _apply_time(actor, at=now)
            has_changed |= _apply(
                actor, event, times=abs(claims), at=now, evidence=evidence.get(address)
            )
            if has_changed:
                changed[address] = _status(actor)
    for address in changed:
        _publish(address)
    return changed


def grant(*, appeal: Appeal, evidence: object) -> ActorStatus | None:
    """Strike the failure that was appealed, and end the ban that rested on it.

    ``evidence`` is what showed that the request was right. The change is committed and published
    when this returns. Returns None when another process ended the appeal meanwhile.
    """
    now, address = timezone.now(), appeal.actor.address
    with transaction.atomic(durable=True):
        actor = Actor.objects.select_for_update().filter(pk=appeal.actor_id).first()
        deleted, _ = Appeal.objects.filter(pk=appeal.pk).delete()
        if actor is None or not deleted:
            return None
        _apply_time(actor, at=now)
        _apply(actor, Strike(appeal.failed_at), at=now, evidence=evidence)
    _publish(address)
    return _status(actor)


def banned_among(*, addresses: Collection[str]) -> set[str]:
    """Return those of ``addresses`` that are banned now."""
    still_banned = Q(banned_until__isnull=True) | Q(banned_until__gt=timezone.now())
    wanted = sorted(set(addresses))
    banned: set[str] = set()
    for start in range(0, len(wanted), ADDRESSES_A_QUERY):
        part = wanted[start : start + ADDRESSES_A_QUERY]
        banned.update(
            Actor.objects.filter(still_banned, status=Status.BANNED, address__in=part).values_list(
                "address", flat=True
            )
        )
    return banned


def is_due(*, actor: Actor) -> bool:
    """Tell whether an event of time has changed an actor's status and isn't applied yet."""
    record, now = _record(actor), timezone.now()
    return any(
        apply(record=record, event=event, policy=_policy(), at=now).reason for event in TimeEvent
    )


def scores_now(*, actor: Actor) -> Record:
    """Return an actor's record with its scores as they have faded until now."""
    return fade(_record(actor), _policy(), timezone.now())


def change_by_operator(
    *, actor: Actor, event: OperatorEvent, operator: str, note: str = ""
) -> ActorStatus:
    """Ban, trust or reset an actor by hand; leaves a StatusChange with the operator's user name.

    When the cache can't be reached, the change is kept and the failure logged; the change then
    acts within ``STATUS_LIFETIME``.
    """

    # Django's log line of a failure needs the function's name, and a partial has none.
    def publish() -> None:
        _publish(actor.address)

    with transaction.atomic():
        locked = Actor.objects.select_for_update().get(pk=actor.pk)
        _apply(locked, event, at=timezone.now(), operator=operator, note=note)
        transaction.on_commit(publish, robust=True)
    return _status(locked)


def _settle(address: str) -> ActorStatus:
    """Apply and save the events of time that are due for an actor."""
    with transaction.atomic(durable=True):
        actor = Actor.objects.select_for_update().filter(address=address).first()
        if actor is None:  # pruned meanwhile
            return ActorStatus()
        _apply_time(actor, at=timezone.now())
    _publish(address)
    return _status(actor)


def _apply_time(actor: Actor, *, at: dt.datetime) -> bool:
    changed = [_apply(actor, event, at=at) for event in TimeEvent]
    return any(changed)


def _apply(
    actor: Actor,
    event: Event | Strike,
    *,
    at: dt.datetime,
    times: int = 1,
    evidence: object = None,
    operator: str = "",
    note: str = "",
) -> bool:
    """Apply the table to a locked row and save it; True if a StatusChange was added."""
    record = first = _record(actor)
    policy, changes = _policy(), []
    for _ in range(times):
        before = record
        transition = apply(record=before, event=event, policy=policy, at=at)
        record = transition.record
        if transition.reason:
            reason = f"{transition.reason}. {note}" if note else transition.reason
            changes.append(
                StatusChange(
                    actor=actor,
                    at=at,
                    from_status=before.status.value,
                    to_status=record.status.value,
                    reason=reason,
                    evidence={} if evidence is None else bounded(evidence),
                    by_operator=operator,
                )
            )
            logger.info(
                "Actor %s: %s → %s: %s",
                actor.address,
                before.status,
                record.status,
                transition.reason,
            )
    if record != first or changes:
        for name in Record.__slots__:
            setattr(actor, name, getattr(record, name))
        actor.touched_by_operator |= bool(operator)
        actor.save()
        StatusChange.objects.bulk_create(changes)
    return bool(changes)


def _policy() -> Policy:
    return Policy(
        ban_after_failures=settings.BAN_AFTER_FAILURES,
        failure_half_life=dt.timedelta(hours=settings.FAILURE_HALF_LIFE),
        trust_after_confirmed=settings.TRUST_AFTER_CONFIRMED,
        confirmed_half_life=dt.timedelta(hours=settings.CONFIRMED_HALF_LIFE),
        ban_duration=dt.timedelta(hours=settings.BAN_HOURS),
        max_ban_duration=dt.timedelta(hours=settings.MAX_BAN_HOURS),
    )


def _record(actor: Actor) -> Record:
    kept = {name: getattr(actor, name) for name in Record.__slots__}
    return Record(**{**kept, "status": Status(actor.status)})


def _failures_left(actor: Actor, *, at: dt.datetime) -> int:
    left = _policy().ban_after_failures - fade(_record(actor), _policy(), at).failure_score
    return max(0, math.floor(left + 0.01))  # failures of the last minutes have faded a little


def _status(actor: Actor) -> ActorStatus:
    return ActorStatus(Status(actor.status), actor.banned_until)


def _publish(address: str) -> None:
    """Write the committed status over the cached one, under the row's lock."""
    with transaction.atomic():
        actor = Actor.objects.select_for_update().filter(address=address).first()
        # A pruned actor has no row.
        current = ActorStatus() if actor is None else _status(actor)
        cache.set(_key(address), _entry(current), timeout=_lifetime(current))


def _lifetime(current: ActorStatus) -> float:
    """Return the seconds that a status may be cached: never longer than its ban lasts."""
    if current.banned_until is None:
        return STATUS_LIFETIME
    return min(STATUS_LIFETIME, (current.banned_until - timezone.now()).total_seconds())


def _key(address: str) -> str:
    # The word stays: versions of the code that run side by side during an upgrade share the key.
    return f"reputation:standing:{address}"


def _entry(current: ActorStatus) -> tuple[str, dt.datetime | None]:
    # They share the value too, so it holds no class of ours.
    return current.status.value, current.banned_until


def _cached(address: str) -> ActorStatus | None:
    entry = cache.get(_key(address))
    if entry is None:
        return None
    status, banned_until = entry
    return ActorStatus(Status(status), banned_until)
