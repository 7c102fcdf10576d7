"""Update counts: accepted updates wait in Redis and are added to SQL in batches, at most once.

The totals decide nothing, they are for people to look at, so an accepted update isn't worth a
transaction of its own. ``count`` adds it to a hash in Redis that all processes of the node share;
``flush`` takes the hash out of Redis in one step and adds it to SQL, for all actors in few
statements.

The hash that a flush has taken is nowhere else: no flush can add it twice, and a crash before the
commit loses the counts of a few seconds. So does a loss of the cache.
"""

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import redis
from django.core.cache import cache
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone
from django_redis import get_redis_connection

from reputation.models import Actor, HourlyCount

# Fields of the hash, one for each actor and hour; the actors beyond share one more. To flush them
# takes one to two seconds, in which SQLite lets nobody else write; other writers wait up to five.
MAX_WAITING = 10_000
ADDRESSES_A_QUERY = 500  # SQLite before 3.32 takes at most 999 parameters

logger = logging.getLogger(__name__)

# KEYS: the hash. ARGV: a field, what to add to its three numbers, how many fields there may be.
_ADD = """
local field, counts = ARGV[1], redis.call('HGET', KEYS[1], ARGV[1])
if not counts then
    counts = '0 0 0'
    if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
        field = 'others'
        counts = redis.call('HGET', KEYS[1], field) or counts
    end
end
local updates, accepted, refused = string.match(counts, '(%d+) (%d+) (%d+)')
redis.call('HSET', KEYS[1], field, string.format('%.0f %.0f %.0f',
    updates + ARGV[2], accepted + ARGV[3], refused + ARGV[4]))
"""
# KEYS: the hash, which is deleted. Returns its fields and values in turn.
_TAKE = """
local counts = redis.call('HGETALL', KEYS[1])
redis.call('DEL', KEYS[1])
return counts
"""


class UpdateCounts(NamedTuple):
    """The requests with an accepted bar, and the bars."""

    updates: int
    accepted: int
    refused: int


def count(*, address: str, accepted: int, refused: int = 0) -> None:
    """Count a request's bars that were accepted, and refused as implausible.

    The request is one successful update if a bar was accepted. Nothing is in SQL before ``flush``.
    """
    field = f"{hour_of(timezone.now()).isoformat()} {address}"
    _run(_ADD, [_waiting()], field, int(accepted > 0), accepted, refused, MAX_WAITING)


def flush() -> int:
    """Move the waiting counts into SQL; returns how many updates those were.

    It is called every few seconds, by one process or several at once, never in a transaction. With
    nothing waiting it needs no SQL; while SQL can't be reached, the counts wait in Redis.
    """
    if not _client().exists(_waiting()):
        return 0
    with transaction.atomic(durable=True):  # connects before the hash is taken
        counts = _take()
        _add(counts)
    return sum(counted.updates for counted in counts.values())


def _take() -> dict[str, UpdateCounts]:
    """Take the waiting counts, by hour and address, out of Redis."""
    found = [part.decode() for part in _run(_TAKE, [_waiting()])]
    fields = dict(zip(found[::2], found[1::2], strict=True))
    if others := fields.pop("others", None):
        logger.warning(
            "%s updates (their bars accepted, refused) came from more addresses than can wait to "
            "be counted, and are in nobody's totals",
            others,
        )
    return {field: UpdateCounts(*map(int, value.split())) for field, value in fields.items()}


def _add(counts: Mapping[str, UpdateCounts]) -> None:
    by_hour: dict[dt.datetime, dict[str, UpdateCounts]] = defaultdict(dict)
    for field, counted in counts.items():
        hour, address = field.split(" ", 1)
        by_hour[dt.datetime.fromisoformat(hour)][address] = counted
    for start in sorted(by_hour):
        _add_hour(start, by_hour[start])


def _add_hour(hour: dt.datetime, counts: Mapping[str, UpdateCounts]) -> None:
    seen = min(timezone.now(), hour + dt.timedelta(hours=1))
    for part in _parts(sorted(counts)):
        actors = locked(part, first_seen=seen)
        alike: dict[int, list[int]] = defaultdict(list)
        for address in part:
            alike[counts[address].updates].append(actors[address])
        for updates, pks in alike.items():
            Actor.objects.filter(pk__in=pks).update(
                successful_updates=F("successful_updates") + updates
            )
        older = Q(last_seen__isnull=True) | Q(last_seen__lt=seen)
        Actor.objects.filter(older, pk__in=actors.values()).update(last_seen=seen)
        add_bars(hour, {actors[address]: counts[address] for address in part})


def locked(addresses: Collection[str], *, first_seen: dt.datetime) -> dict[str, int]:
    """Lock the rows of these actors, adding missing ones; returns address → primary key.

    All code that locks several rows does so in the order of addresses, so that no two transactions
    deadlock.
    """
    rows: dict[str, int] = {}
    # The loop runs twice at most, unless an actor is pruned between its creation and its lock.
    while missing := [address for address in addresses if address not in rows]:
        found = Actor.objects.select_for_update().filter(address__in=missing).order_by("address")
        rows.update(found.values_list("address", "pk"))
        Actor.objects.bulk_create(
            [
                Actor(address=address, first_seen=first_seen, last_seen=first_seen)
                for address in missing
                if address not in rows
            ],
            ignore_conflicts=True,
        )
    return rows


def add_bars(hour: dt.datetime, bars: Mapping[int, UpdateCounts]) -> None:
    """Add to the hourly counts of actors (by primary key), whose rows must be locked."""
    kept = {
        row.actor_id: row for row in HourlyCount.objects.filter(hour=hour, actor__in=bars.keys())
    }
    rows = []
    for actor, counts in bars.items():
        before = kept.get(actor)
        rows.append(
            HourlyCount(
                actor_id=actor,
                hour=hour,
                accepted=counts.accepted + (before.accepted if before else 0),
                refused=counts.refused + (before.refused if before else 0),
            )
        )
    HourlyCount.objects.bulk_create(
        rows,
        batch_size=ADDRESSES_A_QUERY // 4,
        update_conflicts=True,
        unique_fields=["actor", "hour"],
        update_fields=["accepted", "refused"],
    )


def hour_of(at: dt.datetime) -> dt.datetime:
    return at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def _parts(addresses: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(addresses), ADDRESSES_A_QUERY):
        yield addresses[start : start + ADDRESSES_A_QUERY]


def _client() -> redis.Redis:
    client: redis.Redis = get_redis_connection("default")
    return client


def _run(script: str, keys: list[str], *arguments: str | int) -> Any:
    return _client().register_script(script)(keys=keys, args=arguments)


def _waiting() -> str:
    return str(cache.make_key("reputation:counts:waiting"))
