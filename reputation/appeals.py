"""Appeals: this module keeps failures that wait for the market to show that they were none.

An appeal is filed with the failure, in the same transaction. This module knows nothing of the
market: gossip.doors.appeals decides, and grants by reputation.actors.grant. The appeals of one
network are limited, so that a flood of failures from many addresses can neither fill the database
nor keep honest senders' appeals out.
"""

import datetime as dt
import logging
from collections.abc import Sequence

from django.db.models import Count, Sum
from django.utils import timezone

from reputation.address import network_of
from reputation.models import Actor, Appeal

MAX_OPEN = 20_000  # appeals
MAX_SIZE = 200_000  # bars of all open appeals; some 15 MB
NETWORK_SHARE = 100  # one network may have a hundredth of each
SITE_PREFIX = 48  # the IPv6 prefix that one party easily gets (RFC 6177)
LIFETIME = dt.timedelta(days=1)

logger = logging.getLogger(__name__)


def file(*, actor: Actor, failed_at: dt.datetime, content: Sequence[object]) -> bool:
    """Keep an appeal of a failure that is being recorded; False when there is no room for it.

    It must be called in the transaction that records the failure.
    """
    network = network_of(actor.address, ipv6_prefix=SITE_PREFIX)
    for share, filed in (
        (NETWORK_SHARE, Appeal.objects.filter(network=network)),
        (1, Appeal.objects.all()),
    ):
        held = filed.aggregate(appeals=Count("pk"), size=Sum("size", default=0))
        if held["appeals"] >= MAX_OPEN // share or held["size"] + len(content) > MAX_SIZE // share:
            logger.warning(
                "an implausible update of %s can't be appealed: too many wait already", actor
            )
            return False
    Appeal.objects.create(
        actor=actor,
        network=network,
        failed_at=failed_at,
        content=list(content),
        size=len(content),
    )
    return True


def waiting(*, after: int, most: int) -> list[Appeal]:
    """Return at most ``most`` open appeals with a primary key above ``after``, sorted by it."""
    open_ones = Appeal.objects.filter(pk__gt=after).select_related("actor").order_by("pk")
    return list(open_ones[:most])


def lapse() -> int:
    """Delete the appeals that weren't granted within a day; returns how many."""
    deleted, _ = Appeal.objects.filter(failed_at__lt=timezone.now() - LIFETIME).delete()
    return deleted
