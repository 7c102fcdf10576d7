"""Pruning keeps the tables of reputation as small as the number of actors that send.

- Old hourly counts are added to the totals of their day and deleted.
- An actor on PROBATION that sent nothing for long enough is deleted, and its hourly counts are
  added to the totals of their days. So is one whose ban ended as long ago: it is on PROBATION,
  although nobody has applied that yet. BANNED and TRUSTED actors stay, and those that an operator
  added, banned, trusted or reset.
- The history of a deleted actor stays: it belongs to the actor again when the address comes back. A
  change that is old enough, and whose actor is gone, is deleted.

Each batch is a transaction of its own, so that the doors never wait long. The next run continues
where an interrupted one ended.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.db import transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from reputation.models import Actor, DailyTotal, HourlyCount, StatusChange
from reputation.transitions import Status
from reputation.update_counts import ADDRESSES_A_QUERY


@dataclass(frozen=True, slots=True)
class Limits:
    """The time that each kind of row is kept."""

    hourly_counts: dt.timedelta
    idle_actors: dt.timedelta
    history: dt.timedelta


@dataclass(frozen=True, slots=True)
class Pruned:
    """The number of rows of each kind that were pruned, or would be."""

    hourly_counts: int
    actors: int
    status_changes: int


def prune(limits: Limits) -> Pruned:
    """Delete what is older than the limits. It must not be called in a transaction."""
    now = timezone.now()
    return Pruned(
        hourly_counts=_in_batches(lambda: _prune_counts(_old_counts(now, limits))),
        actors=_in_batches(lambda: _prune_actors(_idle_actors(now, limits))),
        status_changes=_in_batches(lambda: _prune_history(_old_history(now, limits))),
    )


def to_prune(limits: Limits) -> Pruned:
    """Count what ``prune`` would delete now, without the history of the actors among it."""
    now = timezone.now()
    return Pruned(
        hourly_counts=_old_counts(now, limits).count(),
        actors=_idle_actors(now, limits).count(),
        status_changes=_old_history(now, limits).count(),
    )


def _old_counts(now: dt.datetime, limits: Limits) -> QuerySet[HourlyCount]:
    return HourlyCount.objects.filter(hour__lt=now - limits.hourly_counts)


def _idle_actors(now: dt.datetime, limits: Limits) -> QuerySet[Actor]:
    long_ago = now - limits.idle_actors
    on_probation = Q(status=Status.PROBATION.value) | Q(
        status=Status.BANNED.value, banned_until__lt=long_ago
    )
    return Actor.objects.filter(on_probation, last_seen__lt=long_ago, touched_by_operator=False)


def _old_history(now: dt.datetime, limits: Limits) -> QuerySet[StatusChange]:
    return StatusChange.objects.filter(at__lt=now - limits.history).without_actor()


def _in_batches(prune_batch: Callable[[], int]) -> int:
    pruned = 0
    while True:
        with transaction.atomic(durable=True):
            batch = prune_batch()
        pruned += batch
        if batch < ADDRESSES_A_QUERY:
            return pruned


def _prune_counts(old: QuerySet[HourlyCount]) -> int:
    oldest = old.select_for_update().order_by("hour").values_list("pk", flat=True)
    pks = list(oldest[:ADDRESSES_A_QUERY])
    rows = HourlyCount.objects.filter(pk__in=pks)
    _add_to_totals(_by_day(rows))
    rows.delete()
    return len(pks)


def _prune_actors(idle: QuerySet[Actor]) -> int:
    longest = list(idle.order_by("last_seen").values_list("pk", flat=True)[:ADDRESSES_A_QUERY])
    # The query runs again under locks (in the order that all use), so that an actor that sent
    # something meanwhile stays.
    batch = list(idle.select_for_update().filter(pk__in=longest).order_by("address"))
    pks = [actor.pk for actor in batch]
    counts = HourlyCount.objects.filter(actor__in=pks)
    totals = _by_day(counts)
    for actor in batch:
        if actor.last_seen is not None:
            totals[actor.last_seen.astimezone(dt.UTC).date()].actors += 1
    _add_to_totals(totals)
    counts.delete()
    # The model would refuse, since the history stays.
    Actor.objects.filter(pk__in=pks)._raw_delete(Actor.objects.db)
    return len(longest)


def _prune_history(old: QuerySet[StatusChange]) -> int:
    pks = list(old.order_by("pk").values_list("pk", flat=True)[:ADDRESSES_A_QUERY])
    # The model would refuse: this is the one place that deletes history.
    StatusChange.objects.filter(pk__in=pks).without_actor()._raw_delete(StatusChange.objects.db)
    return len(pks)


def _by_day(counts: QuerySet[HourlyCount]) -> defaultdict[dt.date, DailyTotal]:
    """Sum the counts by day (UTC), as unsaved rows."""
    totals: defaultdict[dt.date, DailyTotal] = defaultdict(DailyTotal)
    days = (
        counts.annotate(day=TruncDate("hour", tzinfo=dt.UTC))
        .values("day")
        .order_by("day")
        .annotate(accepted_bars=Sum("accepted"), refused_bars=Sum("refused"))
    )
    for row in days:
        totals[row["day"]] = DailyTotal(accepted=row["accepted_bars"], refused=row["refused_bars"])
    return totals


def _add_to_totals(totals: Mapping[dt.date, DailyTotal]) -> None:
    for day in sorted(totals):
        DailyTotal.objects.get_or_create(day=day)
        DailyTotal.objects.filter(day=day).update(
            accepted=F("accepted") + totals[day].accepted,
            refused=F("refused") + totals[day].refused,
            actors=F("actors") + totals[day].actors,
        )
