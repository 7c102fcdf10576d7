"""Results: a door answers 200 with a result for each bar, or the refusal when all were refused."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import JsonResponse
from rest_framework import status

from gossip.doors.plausibility import Objection
from gossip.errors import Refusal
from gossip.wire import Code, Gossip
from tickers import wiring
from tickers.bar import Bar, BarError
from tickers.verdict import Verdict

# The result of an entry of the body: a verdict, why it was refused, or why it is no bar.
BarResult = Verdict | Objection | BarError

# A well-formed bar that is of no use here is Unprocessable Content (RFC 9110): 422.
_OF_NO_USE = {
    Verdict.FUTURE: Code.FUTURE_DAY,
    Verdict.CLOSED_DAY: Code.CLOSED_DAY,
    Verdict.TOO_OLD: Code.BEFORE_HISTORY,
    Verdict.FULL: Code.TOO_MANY_SYMBOLS,
    Verdict.UNKNOWN: Code.UNKNOWN_SYMBOL,
    Verdict.OTHER_DAY: Code.OTHER_DAY,
    Verdict.SMALLER_VOLUME: Code.SMALLER_VOLUME,
    Verdict.ANCHOR_MOVED: Code.ANCHOR_MOVED,
    Verdict.DISPUTED: Code.DISPUTED,
    Verdict.IMPOSSIBLE_PRICE: Code.IMPOSSIBLE_PRICE,
    Verdict.IMPOSSIBLE_VOLUME: Code.IMPOSSIBLE_VOLUME,
}


def answer(
    gossip: Gossip, results: Sequence[BarResult], *, facts: Mapping[str, object] | None = None
) -> JsonResponse:
    """Return 200 with a result for each bar, or 202 when all that weren't refused are held.

    ``facts`` are further fields of the answer. Raises a refusal when all were refused: that of a
    failure if there is one, else the first.
    """
    wiring.snapshots().expire()
    refusals = [refusal_of(result) for result in results]
    refused = [refusal for refusal in refusals if refusal]
    if len(refused) == len(results):
        worst = next((refusal for refusal in refused if refusal.code.is_failure), refused[0])
        worst.facts |= facts or {}
        raise worst
    bodies = [
        _body(entry, result, refusal)
        for entry, result, refusal in zip(gossip.entries, results, refusals, strict=True)
    ]
    all_wait = all(
        refusal or result is Verdict.HELD for result, refusal in zip(results, refusals, strict=True)
    )
    body = {"results": bodies} if gossip.is_list else bodies[0]
    return JsonResponse(
        {**body, **(facts or {})},
        encoder=json.JSONEncoder,  # Django's own knows times and decimals, and is slower
        status=status.HTTP_202_ACCEPTED if all_wait else status.HTTP_200_OK,
    )


def refusal_of(result: BarResult) -> Refusal | None:
    if isinstance(result, BarError):
        return Refusal(status.HTTP_400_BAD_REQUEST, Code.INVALID_BAR, f"{result}.")
    if isinstance(result, Objection):
        facts = {"judged_by": result.values} if result.values else None
        return Refusal(400 if result.code.is_failure else 422, result.code, facts=facts)
    if result.refused:
        return Refusal(status.HTTP_422_UNPROCESSABLE_ENTITY, _OF_NO_USE[result])
    return None


def _body(entry: Bar | BarError, result: BarResult, refusal: Refusal | None) -> dict[str, Any]:
    symbol = entry.symbol if isinstance(entry, Bar) else None
    if refusal is None:
        return {"symbol": symbol, "verdict": str(result)}
    return {
        "symbol": symbol,
        "verdict": "refused",
        "code": refusal.code.value,
        "detail": str(refusal.detail),
        **refusal.facts,
    }
