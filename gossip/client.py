"""The client of a request, which is one actor: an IPv4 address or an IPv6 /64."""

from typing import Final

from django.conf import settings
from rest_framework import status
from rest_framework.request import Request

from gossip.errors import Refusal
from gossip.wire import Code
from reputation.address import UnknownClientError, actor_of, client_of

# All whose address can't be told: a proxy that is set up wrong must not open a way around what is
# counted of each.
UNKNOWN: Final = "unknown"


def peer_of_request(request: Request) -> str:
    """The actor of a request that isn't refused for its address: of a peer that has, or lacks, the
    token. UNKNOWN when a trusted proxy doesn't say whom it forwards for."""
    try:
        return actor_of_request(request)
    except Refusal:
        return UNKNOWN


def actor_of_request(request: Request) -> str:
    """Return the actor in canonical form; refuse with 400 when a trusted proxy names no client."""
    try:
        client = client_of(
            peer=request.META.get("REMOTE_ADDR", ""),
            forwarded_for=request.META.get("HTTP_X_FORWARDED_FOR"),
            trusted_proxies=settings.TRUSTED_PROXIES,
        )
    except UnknownClientError as error:
        raise Refusal(status.HTTP_400_BAD_REQUEST, Code.UNKNOWN_CLIENT, str(error)) from None
    return actor_of(client)
