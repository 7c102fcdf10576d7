"""The two doors of a node: /gossip for peers with the token, /public/gossip for anyone."""

from collections.abc import Sequence

from django.conf import settings
from django.http import JsonResponse
from rest_framework import status
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from gossip.client import actor_of_request
from gossip.doors import admission, judging, laying
from gossip.doors.judging import Candidate, Implausible
from gossip.doors.results import BarResult, answer
from gossip.errors import Refusal
from gossip.tokens import bearer, failures, secondary_use
from gossip.wire import Code
from reputation import actors
from reputation.transitions import Outcome
from tickers import wiring
from tickers.bar import Bar, BarError
from tickers.verdict import Authority
from tickers.viewset import QuickViewSet

BANNED = "Source IP is banned"


class TokenAuthentication(BaseAuthentication):
    """Names the scheme, so that DRF answers 401 with WWW-Authenticate."""

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
    """POST /gossip: bars of peers that have the token."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [HasToken]

    def create(self, request: Request) -> JsonResponse:
        gossip = admission.read_gossip(request)
        bars = [entry for entry in gossip.entries if isinstance(entry, Bar)]
        verdicts = iter(wiring.store().merge(bars, Authority.INTERNAL).verdicts if bars else ())
        if bars and bearer.is_valid(
            request.META.get("HTTP_AUTHORIZATION", ""), (settings.SECONDARY_TOKEN,)
        ):
            secondary_use.note(wiring.store(), token=settings.SECONDARY_TOKEN)
        return answer(
            gossip,
            [entry if isinstance(entry, BarError) else next(verdicts) for entry in gossip.entries],
        )


class PublicGossip(QuickViewSet):
    """POST /public/gossip: bars of anyone, checked cheapest first and judged by what they say."""

    def create(self, request: Request) -> JsonResponse:
        admission.check_size(request)
        actor = actor_of_request(request)
        # Only what is remembered counts before the limit: a flood must not reach SQL, least of all
        # while SQL is away and nothing can be remembered.
        remembered = actors.cached_status(address=actor)
        admission.limit_rate(request, actor, trusted=remembered is not None and remembered.trusted)
        actor_status = remembered or actors.status_of(address=actor)
        if actor_status.banned:
            raise Refusal(status.HTTP_403_FORBIDDEN, Code.BANNED, BANNED)
        admission.check_window()
        gossip = admission.read_gossip(request)
        judged = judging.judge(gossip.entries)
        self._record(actor, judged)
        return answer(gossip, self._lay(actor, judged, trusted=actor_status.trusted))

    def _record(self, actor: str, judged: Sequence[judging.Judged]) -> None:
        """Count the request's one outcome (a failure wins), before anything is answered or laid: an
        actor that can't be recorded gets nothing served.

        A failure is in SQL when this returns. An accepted update decides nothing, so it waits in
        Redis; what it asks again is whether the actor has been banned since the request began.
        """
        accepted = sum(isinstance(entry, Candidate) for entry in judged)
        refused = [entry for entry in judged if isinstance(entry, Implausible)]
        if refused:
            try:
                actor_status = actors.record_outcome(
                    address=actor,
                    outcome=Outcome.IMPLAUSIBLE,
                    evidence=judging.evidence_of(refused),
                    bars=(accepted, len(refused)),
                )
            except actors.BannedError:
                raise Refusal(status.HTTP_403_FORBIDDEN, Code.BANNED, BANNED) from None
        elif accepted:
            actor_status = actors.status_of(address=actor)
        else:
            return
        if actor_status.banned:
            # With this request, or by someone else meanwhile: its good bars aren't laid either.
            wiring.store().withdraw_actors([actor])
            if refused:
                raise Refusal(status.HTTP_400_BAD_REQUEST, Code.IMPLAUSIBLE_PRICE)
            raise Refusal(status.HTTP_403_FORBIDDEN, Code.BANNED, BANNED)
        if not refused:
            actors.count(address=actor, accepted=accepted)

    def _lay(
        self, actor: str, judged: Sequence[judging.Judged], *, trusted: bool
    ) -> list[BarResult]:
        candidates = [entry for entry in judged if isinstance(entry, Candidate)]
        verdicts = iter(laying.lay(candidates, actor=actor, trusted=trusted))
        results: list[BarResult] = []
        for entry in judged:
            if isinstance(entry, Candidate):
                results.append(next(verdicts))
            else:
                results.append(Code.IMPLAUSIBLE_PRICE if isinstance(entry, Implausible) else entry)
        return results
