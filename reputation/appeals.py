"""Appeals: failures that wait for the market to show that they were none.

An appeal is filed with the failure, in the same transaction. It knows nothing of the market: who
hears it decides, and grants it here (reputation.actors.grant). What one network may file is
limited, so that a flood of failures from many addresses can't fill the database, nor keep honest
senders' appeals out.
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
NETWORK_SHARE = 100  # a network may file one part in so many
SITE_PREFIX = 48  # what one party is easily given of IPv6 (RFC 6177)
LIFETIME = dt.timedelta(days=1)

logger = logging.getLogger(__name__)


def file(*, actor: Actor, failed_at: dt.datetime, content: Sequence[object]) -> bool:
    """Keep an appeal of a failure that is being recorded; False where there is no room for it.

    To be called in the transaction that records the failure.
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
    """At most ``most`` open appeals with a primary key above ``after``, in its order."""
    open_ones = Appeal.objects.filter(pk__gt=after).select_related("actor").order_by("pk")
    return list(open_ones[:most])


def lapse() -> int:
    """Delete what the market hasn't granted within a day; returns how many."""
    deleted, _ = Appeal.objects.filter(failed_at__lt=timezone.now() - LIFETIME).delete()
    return deleted
