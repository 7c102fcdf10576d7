"""What the doors, the worker and the admin ask and tell about actors.

An actor's standing is asked with every request at the public door, so it is read from the cache
that all processes share; SQL is asked once in ``STANDING_LIFETIME`` per actor, known or not. A
change is committed first and then written over the cached standing, so that it acts at once
everywhere.

Cached standings can't go stale by a race: a reader only fills a gap (``add``), and a writer
publishes what is committed while it holds the actor's row, so that the last to publish is right.

Every ``address`` here is an actor in canonical form, from ``reputation.address.actor_of``. Errors
of the database and of Redis pass through: the doors answer 503 to both.
"""

import datetime as dt
import logging
from collections.abc import Collection
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import cache
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from reputation.evidence import bounded
from reputation.models import Actor, StatusChange
from reputation.transitions import (
    Event,
    OperatorEvent,
    Outcome,
    Policy,
    Record,
    Status,
    TimeEvent,
    apply,
)

STANDING_LIFETIME = 60.0  # seconds
# SQLite before 3.32 takes at most 999 parameters in a query.
_ADDRESSES_A_QUERY = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """``banned_until`` is None for a ban without end, and for whoever isn't banned."""

    status: Status = Status.PROBATION
    banned_until: dt.datetime | None = None

    @property
    def banned(self) -> bool:
        return self.status is Status.BANNED

    @property
    def trusted(self) -> bool:
        return self.status is Status.TRUSTED

    def ban_is_over(self, at: dt.datetime) -> bool:
        return self.banned_until is not None and self.banned_until <= at


def standing(*, address: str) -> Standing:
    """Where an actor stands now; one that was never judged is on PROBATION."""
    known = _cached(address)
    if known is not None and not known.ban_is_over(timezone.now()):
        return known
    actor = Actor.objects.filter(address=address).first()
    if actor is not None and _record(actor).ban_is_over(timezone.now()):
        return _end_ban(address)
    found = Standing() if actor is None else _standing(actor)
    cache.add(_key(address), _entry(found), timeout=_lifetime(found))
    return found


def record_outcome(*, address: str, outcome: Outcome, evidence: object) -> Standing:
    """Count an outcome and judge the actor by it; committed when this returns.

    ``evidence`` is what was sent, anything that JSON holds; a bounded part of it is kept with a
    change of status. Returns the standing after the outcome. Not to be called in a transaction.
    """
    now = timezone.now()
    with transaction.atomic(durable=True):
        actor, _created = Actor.objects.select_for_update().get_or_create(
            address=address, defaults={"first_seen": now}
        )
        changed = _apply(actor, TimeEvent.BAN_ENDED, at=now)
        if actor.status != Status.BANNED:
            actor.last_seen = now
            changed |= _apply(actor, outcome, at=now, evidence=evidence)
    if changed:
        _publish(address)
    return _standing(actor)


def banned_among(*, addresses: Collection[str]) -> set[str]:
    """Those of ``addresses`` that are banned now."""
    still_banned = Q(banned_until__isnull=True) | Q(banned_until__gt=timezone.now())
    wanted = sorted(set(addresses))
    banned: set[str] = set()
    for start in range(0, len(wanted), _ADDRESSES_A_QUERY):
        part = wanted[start : start + _ADDRESSES_A_QUERY]
        banned.update(
            Actor.objects.filter(still_banned, status=Status.BANNED, address__in=part).values_list(
                "address", flat=True
            )
        )
    return banned


def change_by_operator(
    *, actor: Actor, event: OperatorEvent, operator: str, note: str = ""
) -> Standing:
    """Ban, trust or reset an actor by hand; leaves a StatusChange with the operator's user name.

    Should the cache not be reachable, the change is kept, the failure logged, and the change acts
    within ``STANDING_LIFETIME``.
    """

    # A function with a name: Django's log line of a failure asks for it, and a partial has none.
    def publish() -> None:
        _publish(actor.address)

    with transaction.atomic():
        locked = Actor.objects.select_for_update().get(pk=actor.pk)
        _apply(locked, event, at=timezone.now(), operator=operator, note=note)
        transaction.on_commit(publish, robust=True)
    return _standing(locked)


def _end_ban(address: str) -> Standing:
    with transaction.atomic(durable=True):
        actor = Actor.objects.select_for_update().get(address=address)
        _apply(actor, TimeEvent.BAN_ENDED, at=timezone.now())
    _publish(address)
    return _standing(actor)


def _apply(
    actor: Actor,
    event: Event,
    *,
    at: dt.datetime,
    evidence: object = None,
    operator: str = "",
    note: str = "",
) -> bool:
    """Apply the table to a locked row and save it; True if there was a reason to write down."""
    before = _record(actor)
    transition = apply(record=before, event=event, policy=_policy(), at=at)
    if transition.record == before and not transition.reason:
        return False
    actor.status = transition.record.status.value
    actor.successful_updates = transition.record.successful_updates
    actor.failed_updates = transition.record.failed_updates
    actor.banned_until = transition.record.banned_until
    actor.save()
    if not transition.reason:
        return False
    reason = f"{transition.reason}. {note}" if note else transition.reason
    StatusChange.objects.create(
        actor=actor,
        at=at,
        from_status=before.status.value,
        to_status=actor.status,
        reason=reason,
        evidence={} if evidence is None else bounded(evidence),
        by_operator=operator,
    )
    logger.info(
        "Actor %s: %s → %s: %s", actor.address, before.status, actor.status, transition.reason
    )
    return True


def _policy() -> Policy:
    return Policy(
        ban_after_failures=settings.BAN_AFTER_FAILURES,
        trust_after_successes=settings.TRUST_AFTER_SUCCESSES,
        ban_duration=dt.timedelta(hours=settings.BAN_HOURS),
    )


def _record(actor: Actor) -> Record:
    return Record(
        status=Status(actor.status),
        successful_updates=actor.successful_updates,
        failed_updates=actor.failed_updates,
        banned_until=actor.banned_until,
    )


def _standing(actor: Actor) -> Standing:
    return Standing(Status(actor.status), actor.banned_until)


def _publish(address: str) -> None:
    """Write the committed standing over the cached one, under the row's lock."""
    with transaction.atomic():
        current = _standing(Actor.objects.select_for_update().get(address=address))
        cache.set(_key(address), _entry(current), timeout=_lifetime(current))


def _lifetime(current: Standing) -> float:
    """Seconds that a standing may be cached: never longer than its ban lasts."""
    if current.banned_until is None:
        return STANDING_LIFETIME
    return min(STANDING_LIFETIME, (current.banned_until - timezone.now()).total_seconds())


def _key(address: str) -> str:
    return f"reputation:standing:{address}"


def _entry(current: Standing) -> tuple[str, dt.datetime | None]:
    # Plain values: versions of the code that run side by side during an upgrade share the cache.
    return current.status.value, current.banned_until


def _cached(address: str) -> Standing | None:
    entry = cache.get(_key(address))
    if entry is None:
        return None
    status, banned_until = entry
    return Standing(Status(status), banned_until)
