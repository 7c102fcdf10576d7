"""The two doors of a node: /gossip for peers with the token, /public/gossip for anyone."""

import logging
from collections.abc import Sequence

from django.conf import settings
from django.http import JsonResponse
from django.utils import timezone
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from gossip.client import actor_of_request, peer_of_request
from gossip.doors import admission, judging, laying, recording
from gossip.doors.results import answer
from gossip.errors import banned
from gossip.tokens import bearer, failures, secondary_use
from reputation import actors
from tickers import wiring
from tickers.bar import Bar, BarError
from tickers.verdict import Authority, Verdict
from tickers.viewset import QuickViewSet

logger = logging.getLogger(__name__)

_AGAINST_THE_PEER = {Verdict.DISPUTED, Verdict.IMPOSSIBLE_PRICE, Verdict.IMPOSSIBLE_VOLUME}


class TokenAuthentication(BaseAuthentication):
    """The token's scheme, which DRF names in the WWW-Authenticate of a 401."""

    def authenticate(self, request: Request) -> None:
        return None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gossip"'


class HasToken(BasePermission):
    def has_permission(self, request: Request, view: object) -> bool:
        tokens = (settings.PRIMARY_TOKEN, settings.SECONDARY_TOKEN)
        if not bearer.is_valid(request.META.get("HTTP_AUTHORIZATION", ""), tokens):
            failures.refuse(request)
        return True


class TrustedGossip(QuickViewSet):
    """POST /gossip takes bars of peers that have the token."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [HasToken]

    def create(self, request: Request) -> JsonResponse:
        gossip = admission.read_gossip(request)
        bars = [entry for entry in gossip.entries if isinstance(entry, Bar)]
        verdicts = iter(_merge(bars, peer_of_request(request)) if bars else ())
        if bars and bearer.is_valid(
            request.META.get("HTTP_AUTHORIZATION", ""), (settings.SECONDARY_TOKEN,)
        ):
            secondary_use.note(wiring.store(), token=settings.SECONDARY_TOKEN)
        return answer(
            gossip,
            [entry if isinstance(entry, BarError) else next(verdicts) for entry in gossip.entries],
        )


def _merge(bars: Sequence[Bar], peer: str) -> list[Verdict]:
    """What becomes of a peer's bars; the log names a peer that our own source contradicts."""
    verdicts = wiring.store().merge(bars, Authority.INTERNAL, peer=peer).verdicts
    wrong = {str(verdict) for verdict in verdicts if verdict in _AGAINST_THE_PEER}
    if wrong:
        logger.warning("refused of peer %s: %s", peer, ", ".join(sorted(wrong)))
    return verdicts


class PublicGossip(QuickViewSet):
    """POST /public/gossip takes bars of anyone, checks them cheapest first, and judges them."""

    def create(self, request: Request) -> JsonResponse:
        """Take a public bar through its five steps: it is admitted, judged, recorded, laid,
        answered."""
        admission.check_size(request)
        actor = actor_of_request(request)
        # Only a cached status counts before the rate limit: a flood must not reach SQL, least of
        # all while SQL is away and no status can be cached.
        cached = actors.cached_status(address=actor)
        admission.limit_rate(request, actor, trusted=cached is not None and cached.trusted)
        actor_status = cached or actors.status_of(address=actor)
        if actor_status.banned:
            raise banned(actor_status.banned_until, now=timezone.now())
        admission.check_window()
        gossip = admission.read_gossip(request)
        judged = judging.judge(gossip.entries)
        facts = recording.record(actor, judged)
        results = laying.lay(judged, actor=actor, trusted=actor_status.trusted)
        return answer(gossip, results, facts=facts)
