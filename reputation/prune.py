"""Forgetting: what keeps the tables of reputation as small as the number of those who send.

- Hourly counts that are old enough go into the totals of their day.
- An actor on PROBATION that sent nothing for long enough goes, and its hourly counts go into the
  totals of their days. So does one whose ban has ended as long ago: it is on PROBATION, only nobody
  has looked. BANNED and TRUSTED actors stay, and whomever an operator added, banned, trusted or
  reset.
- The history of an actor that went stays: it is the address's again when that comes back. Once the
  last change is old enough, and its actor is gone, it goes as well.

Each batch is a transaction of its own, so that the doors wait for none of it for long; what is cut
off goes on with the next run.
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
    """For how long each is kept."""

    hourly_counts: dt.timedelta
    idle_actors: dt.timedelta
    history: dt.timedelta


@dataclass(frozen=True, slots=True)
class Pruned:
    """Rows that went, or would go."""

    hourly_counts: int
    actors: int
    status_changes: int


def prune(limits: Limits) -> Pruned:
    """Forget what is older than the limits. Not to be called in a transaction."""
    now = timezone.now()
    return Pruned(
        hourly_counts=_in_batches(lambda: _forget_counts(_old_counts(now, limits))),
        actors=_in_batches(lambda: _forget_actors(_idle_actors(now, limits))),
        status_changes=_in_batches(lambda: _forget_history(_old_history(now, limits))),
    )


def to_prune(limits: Limits) -> Pruned:
    """What ``prune`` would forget now; the history of the actors among them isn't counted."""
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


def _in_batches(forget: Callable[[], int]) -> int:
    forgotten = 0
    while True:
        with transaction.atomic(durable=True):
            batch = forget()
        forgotten += batch
        if batch < ADDRESSES_A_QUERY:
            return forgotten


def _forget_counts(old: QuerySet[HourlyCount]) -> int:
    oldest = old.select_for_update().order_by("hour").values_list("pk", flat=True)
    pks = list(oldest[:ADDRESSES_A_QUERY])
    rows = HourlyCount.objects.filter(pk__in=pks)
    _add_to_totals(_by_day(rows))
    rows.delete()
    return len(pks)


def _forget_actors(idle: QuerySet[Actor]) -> int:
    longest = list(idle.order_by("last_seen").values_list("pk", flat=True)[:ADDRESSES_A_QUERY])
    # Locked, in the order in which everyone locks several, and asked again: nobody who sent
    # something meanwhile is forgotten.
    batch = list(idle.select_for_update().filter(pk__in=longest).order_by("address"))
    pks = [actor.pk for actor in batch]
    counts = HourlyCount.objects.filter(actor__in=pks)
    totals = _by_day(counts)
    for actor in batch:
        if actor.last_seen is not None:
            totals[actor.last_seen.astimezone(dt.UTC).date()].actors += 1
    _add_to_totals(totals)
    counts.delete()
    # Past the model, which lets no actor go without its history: that stays, on purpose.
    Actor.objects.filter(pk__in=pks)._raw_delete(Actor.objects.db)
    return len(longest)


def _forget_history(old: QuerySet[StatusChange]) -> int:
    pks = list(old.order_by("pk").values_list("pk", flat=True)[:ADDRESSES_A_QUERY])
    # The one place where history ends; its model refuses.
    StatusChange.objects.filter(pk__in=pks).without_actor()._raw_delete(StatusChange.objects.db)
    return len(pks)


def _by_day(counts: QuerySet[HourlyCount]) -> defaultdict[dt.date, DailyTotal]:
    """What the counts add to the totals of their days; the rows aren't saved."""
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
