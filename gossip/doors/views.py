"""The two doors of a node: /gossip for peers with the token, /public/gossip for anyone."""

import json
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.http import JsonResponse
from rest_framework import status
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from gossip import wire
from gossip.client import actor_of_request
from gossip.doors import admission, judging, laying
from gossip.doors.judging import Candidate, Implausible
from gossip.doors.plausibility import Objection
from gossip.errors import Refusal
from gossip.tokens import bearer, failures, secondary_use
from reputation import actors
from reputation.transitions import Outcome
from tickers import wiring
from tickers.bar import Bar, BarError
from tickers.verdict import Authority, Verdict
from tickers.viewset import QuickViewSet

# What a bar that was taken off the wire came to: a verdict, an objection, or no bar at all.
BarResult = Verdict | Objection | BarError

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
            secondary_use.note(wiring.store())
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
            raise Refusal(status.HTTP_403_FORBIDDEN, BANNED)
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
                raise Refusal(status.HTTP_403_FORBIDDEN, BANNED) from None
        elif accepted:
            actor_status = actors.status_of(address=actor)
        else:
            return
        if actor_status.banned:
            # With this request, or by someone else meanwhile: its good bars aren't laid either.
            wiring.store().withdraw_actors([actor])
            if refused:
                raise Refusal(status.HTTP_400_BAD_REQUEST, Objection.IMPLAUSIBLE.value)
            raise Refusal(status.HTTP_403_FORBIDDEN, BANNED)
        if not refused:
            actors.count(address=actor, accepted=accepted)

    def _lay(
        self, actor: str, judged: Sequence[judging.Judged], *, trusted: bool
    ) -> list[BarResult]:
        candidates = [entry for entry in judged if isinstance(entry, Candidate)]
        verdicts = iter(laying.lay(candidates, actor=actor, trusted=trusted))
        fates: list[BarResult] = []
        for entry in judged:
            if isinstance(entry, Candidate):
                fates.append(next(verdicts))
            else:
                fates.append(Objection.IMPLAUSIBLE if isinstance(entry, Implausible) else entry)
        return fates


# --- What both doors answer -----------------------------------------------------------------------

# A well-formed bar that is of no use here gets 422, as the Unprocessable Content it is (RFC 9110).
_OF_NO_USE = {
    Verdict.FUTURE: "time is after the node's current day",
    Verdict.TOO_OLD: "time is before the node's first day",
    Verdict.FULL: "the node keeps as many symbols as it may",
    Verdict.UNKNOWN: Objection.UNKNOWN.value,
    Verdict.OTHER_DAY: Objection.OTHER_DAY.value,
    Verdict.SMALLER_VOLUME: Objection.SMALLER_VOLUME.value,
    Verdict.ANCHOR_MOVED: "the trusted price has just changed; send the bar again",
}


def answer(gossip: wire.Gossip, fates: Sequence[BarResult]) -> JsonResponse:
    """200 with what happened to each bar, 202 when what wasn't refused waits for a second sender,
    or the refusal when all were refused."""
    wiring.snapshots().expire()
    outcomes = [(fate, refusal_of(fate)) for fate in fates]
    refusals = [refusal for _, refusal in outcomes if refusal]
    if len(refusals) == len(outcomes):
        raise next((r for r in refusals if r.detail == Objection.IMPLAUSIBLE.value), refusals[0])
    results = [
        _result(entry, *outcome) for entry, outcome in zip(gossip.entries, outcomes, strict=True)
    ]
    all_wait = all(refusal or fate is Verdict.HELD for fate, refusal in outcomes)
    return JsonResponse(
        {"results": results} if gossip.is_list else results[0],
        encoder=json.JSONEncoder,  # Django's own is for times and decimals, and slower
        status=status.HTTP_202_ACCEPTED if all_wait else status.HTTP_200_OK,
    )


def refusal_of(fate: BarResult) -> Refusal | None:
    if isinstance(fate, BarError):
        return Refusal(status.HTTP_400_BAD_REQUEST, f"{fate}.")
    if isinstance(fate, Objection):
        code = 400 if fate.is_failure else status.HTTP_422_UNPROCESSABLE_ENTITY
        return Refusal(code, fate.value)
    if fate.refused:
        return Refusal(status.HTTP_422_UNPROCESSABLE_ENTITY, _OF_NO_USE[fate])
    return None


def _result(entry: Bar | BarError, fate: BarResult, refusal: Refusal | None) -> dict[str, Any]:
    symbol = entry.symbol if isinstance(entry, Bar) else None
    if refusal is None:
        return {"symbol": symbol, "verdict": str(fate)}
    return {"symbol": symbol, "verdict": "refused", "detail": str(refusal.detail)}
