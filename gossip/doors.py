"""The two doors of a node: /gossip for peers with the token, /public/gossip for anyone."""

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, JsonResponse, UnreadablePostError
from rest_framework import status
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from gossip import token, token_failures, token_use, trust, wire
from gossip.plausibility import Objection
from gossip.refusal import Refusal
from gossip.trust import Candidate, Implausible
from reputation import actors
from reputation.transitions import Outcome
from tickers import access
from tickers.bar import Bar, BarError
from tickers.verdict import Authority, Verdict
from tickers.viewset import QuickViewSet

# What a bar that was taken off the wire came to: a verdict, an objection, or no bar at all.
Fate = Verdict | Objection | BarError

BANNED = "Source IP is banned"
LONGEST_LENGTH = 20  # digits of a Content-Length; Python reads 4,300 at most


class TokenAuthentication(BaseAuthentication):
    """Names the scheme, so that DRF answers 401 with WWW-Authenticate."""

    def authenticate(self, request: Request) -> None:
        return None

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="gossip"'


class HasToken(BasePermission):
    def has_permission(self, request: Request, view: object) -> bool:
        tokens = (settings.PRIMARY_TOKEN, settings.SECONDARY_TOKEN)
        if not token.is_valid(request.META.get("HTTP_AUTHORIZATION", ""), tokens):
            token_failures.refuse(request)
        return True


class TrustedGossip(QuickViewSet):
    """POST /gossip: bars of peers that have the token."""

    authentication_classes = [TokenAuthentication]
    permission_classes = [HasToken]

    def create(self, request: Request) -> JsonResponse:
        gossip = read_gossip(request)
        bars = [entry for entry in gossip.entries if isinstance(entry, Bar)]
        verdicts = iter(access.store().merge(bars, Authority.INTERNAL).verdicts if bars else ())
        if bars and token.is_valid(
            request.META.get("HTTP_AUTHORIZATION", ""), (settings.SECONDARY_TOKEN,)
        ):
            token_use.note(access.store())
        return answer(
            gossip,
            [entry if isinstance(entry, BarError) else next(verdicts) for entry in gossip.entries],
        )


class PublicGossip(QuickViewSet):
    """POST /public/gossip: bars of anyone, checked cheapest first and judged by what they say."""

    def create(self, request: Request) -> JsonResponse:
        check_size(request)
        actor = trust.actor_of_request(request)
        # Only what is remembered counts before the limit: a flood must not reach SQL, least of all
        # while SQL is away and nothing can be remembered.
        remembered = actors.remembered(address=actor)
        trust.limit_rate(request, actor, trusted=remembered is not None and remembered.trusted)
        standing = remembered or actors.standing(address=actor)
        if standing.banned:
            raise Refusal(status.HTTP_403_FORBIDDEN, BANNED)
        trust.check_window()
        gossip = read_gossip(request)
        judged = trust.judge(gossip.entries)
        self._record(actor, judged)
        return answer(gossip, self._lay(actor, judged, trusted=standing.trusted))

    def _record(self, actor: str, judged: Sequence[trust.Judged]) -> None:
        """Count the request's one outcome (a failure wins), before anything is answered or laid: an
        actor that can't be recorded gets nothing served.

        A failure is in SQL when this returns. An accepted update decides nothing, so it waits in
        Redis; what it asks again is whether the actor has been banned since the request began.
        """
        accepted = sum(isinstance(entry, Candidate) for entry in judged)
        refused = [entry for entry in judged if isinstance(entry, Implausible)]
        if refused:
            try:
                standing = actors.record_outcome(
                    address=actor,
                    outcome=Outcome.IMPLAUSIBLE,
                    evidence=trust.evidence_of(refused),
                    bars=(accepted, len(refused)),
                )
            except actors.BannedError:
                raise Refusal(status.HTTP_403_FORBIDDEN, BANNED) from None
        elif accepted:
            standing = actors.standing(address=actor)
        else:
            return
        if standing.banned:
            # With this request, or by someone else meanwhile: its good bars aren't laid either.
            access.store().withdraw_actors([actor])
            if refused:
                raise Refusal(status.HTTP_400_BAD_REQUEST, Objection.IMPLAUSIBLE.value)
            raise Refusal(status.HTTP_403_FORBIDDEN, BANNED)
        if not refused:
            actors.count(address=actor, accepted=accepted)

    def _lay(self, actor: str, judged: Sequence[trust.Judged], *, trusted: bool) -> list[Fate]:
        candidates = [entry for entry in judged if isinstance(entry, Candidate)]
        verdicts = iter(trust.lay(candidates, actor=actor, trusted=trusted))
        fates: list[Fate] = []
        for entry in judged:
            if isinstance(entry, Candidate):
                fates.append(next(verdicts))
            else:
                fates.append(Objection.IMPLAUSIBLE if isinstance(entry, Implausible) else entry)
        return fates


# --- What both doors check ------------------------------------------------------------------------


def check_size(request: Request) -> None:
    if announced(request) > settings.MAX_BODY:
        _too_large()


def announced(request: Request) -> int:
    """The bytes that the body has by its Content-Length; 0 without one."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not (length.isascii() and length.isdigit()):
        # gunicorn refuses these itself; of another server Django would fail at them.
        raise Refusal(status.HTTP_400_BAD_REQUEST, "Content-Length must be a number.")
    if len(length) > LONGEST_LENGTH:
        _too_large()
    return int(length)


def _too_large() -> NoReturn:
    raise Refusal(
        status.HTTP_413_REQUEST_ENTITY_TOO_LARGE,
        f"A body has at most {settings.MAX_BODY} bytes; send several.",
    )


def _ended_early() -> NoReturn:
    # By the client, or by a server that waited long enough: 408 has a peer send it again.
    raise Refusal(status.HTTP_408_REQUEST_TIMEOUT, "The body ended early; send it again.")


def read_gossip(request: Request) -> wire.Gossip:
    """The request's bars, or the 4xx that says what is wrong with the body as a whole."""
    check_size(request)
    http_request: HttpRequest = request._request
    if http_request.content_type != "application/json":
        raise Refusal(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "Send Content-Type: application/json")
    if request.META.get("HTTP_CONTENT_ENCODING", "identity") != "identity":
        raise Refusal(status.HTTP_415_UNSUPPORTED_MEDIA_TYPE, "Send the body without compression")
    try:
        body = http_request.body
        if len(body) < announced(request):
            _ended_early()
        return wire.decode(body)
    except RequestDataTooBig:
        _too_large()
    except UnreadablePostError:
        _ended_early()
    except wire.TooLongError as error:
        raise Refusal(status.HTTP_413_REQUEST_ENTITY_TOO_LARGE, str(error)) from None
    except wire.WireError as error:
        raise Refusal(status.HTTP_400_BAD_REQUEST, str(error)) from None


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


def answer(gossip: wire.Gossip, fates: Sequence[Fate]) -> JsonResponse:
    """200 with what happened to each bar, 202 when what wasn't refused waits for a second sender,
    or the refusal when all were refused."""
    access.snapshots().expire()
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


def refusal_of(fate: Fate) -> Refusal | None:
    if isinstance(fate, BarError):
        return Refusal(status.HTTP_400_BAD_REQUEST, f"{fate}.")
    if isinstance(fate, Objection):
        code = 400 if fate.is_failure else status.HTTP_422_UNPROCESSABLE_ENTITY
        return Refusal(code, fate.value)
    if fate.refused:
        return Refusal(status.HTTP_422_UNPROCESSABLE_ENTITY, _OF_NO_USE[fate])
    return None


def _result(entry: Bar | BarError, fate: Fate, refusal: Refusal | None) -> dict[str, Any]:
    symbol = entry.symbol if isinstance(entry, Bar) else None
    if refusal is None:
        return {"symbol": symbol, "verdict": str(fate)}
    return {"symbol": symbol, "verdict": "refused", "detail": str(refusal.detail)}
