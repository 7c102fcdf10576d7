"""The public door's checks: who is asking, how often, whether the node may take anyone's word, and
what speaks against each bar."""

import datetime as dt
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django_ratelimit.core import get_usage
from rest_framework import exceptions, status
from rest_framework.request import Request

from gossip import plausibility
from gossip.claims import Claim, Claims
from gossip.plausibility import Known, Objection
from gossip.refusal import Refusal
from reputation.address import UnknownClientError, actor_of, client_of, network_of
from tickers import access
from tickers.bar import Bar, BarError, epoch_of
from tickers.series import bar_of
from tickers.verdict import Verdict

# A trusted bar is late after this many seconds, or two cycles (PUBLIC_BARS=when_late). A cycle that
# office hours begin with is done by then.
LATE_AFTER = 60.0
# Seconds for which the histories that tell a symbol's usual volume may lag behind the store.
USUAL_VOLUME_LAG = 5.0
# Refused bars that are kept of a request; reputation keeps 2,000 bytes, of which each takes 150.
MOST_EVIDENCE = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bar that nothing speaks against, the anchor it was judged by, and the close that was served
    when it came."""

    bar: Bar
    anchor: str
    served_close: float


@dataclass(frozen=True, slots=True)
class Implausible:
    """A bar beyond the band, and the anchor that it is too far from."""

    bar: Bar
    anchor: str


Judged = Candidate | Implausible | Objection | BarError


def actor_of_request(request: Request) -> str:
    try:
        client = client_of(
            peer=request.META.get("REMOTE_ADDR", ""),
            forwarded_for=request.META.get("HTTP_X_FORWARDED_FOR"),
            trusted_proxies=settings.TRUSTED_PROXIES,
        )
    except UnknownClientError as error:
        raise Refusal(status.HTTP_400_BAD_REQUEST, str(error)) from None
    return actor_of(client)


def limit_rate(request: Request, actor: str, *, trusted: bool) -> None:
    usage = get_usage(
        request._request,
        group="public-gossip",
        key=lambda group, request: actor,
        rate=settings.TRUSTED_RATE if trusted else settings.PUBLIC_RATE,
        increment=True,
    )
    if usage and usage["should_limit"]:
        raise exceptions.Throttled(wait=max(1, usage["time_left"]))


def check_window() -> None:
    """Public bars are judged by trusted ones, so the door closes when those stop coming."""
    age = access.store().state().age
    if age is None or age > settings.TRUST_WINDOW:
        raise Refusal(
            status.HTTP_503_SERVICE_UNAVAILABLE,
            "System is running on untrusted data",
            retry_after=60,
        )


def judge(entries: Sequence[Bar | BarError]) -> list[Judged]:
    """What speaks against each entry, by what the store has now."""
    known = what_is_known({entry.symbol for entry in entries if isinstance(entry, Bar)})
    trading_day = access.market_clock().trading_day()
    return [
        entry
        if isinstance(entry, BarError)
        else _judged(entry, known.get(entry.symbol), trading_day)
        for entry in entries
    ]


def _judged(bar: Bar, known: Known | None, trading_day: dt.date) -> Judged:
    if not bar.opens_inside:
        return BarError("open must lie between low and high")
    against = plausibility.objection(
        bar, known, trading_day=trading_day, max_change=settings.MAX_PRICE_CHANGE
    )
    if against is not None and not against.is_failure:
        return against
    if known is None or known.anchor is None or known.served_close is None:
        raise ValueError("a bar can't be judged without a trusted close")
    if against is not None:
        return Implausible(bar, known.anchor)
    return Candidate(bar, known.anchor, known.served_close)


def evidence_of(refused: Sequence[Implausible]) -> list[object]:
    """What speaks against a sender: each bar as it was sent, with the anchor that it was judged by
    (a share's price moves by itself when its dividend is paid); the first few of many."""
    shown: list[object] = [
        {**json.loads(entry.bar.encode()), "anchor": json.loads(entry.anchor)}
        for entry in refused[:MOST_EVIDENCE]
    ]
    more = len(refused) - len(shown)
    return [*shown, f"and {more} more"] if more else shown


def what_is_known(symbols: set[str]) -> dict[str, Known]:
    store = access.store()
    newest, overlays = store.newest(symbols), store.overlays(symbols)
    lately = access.snapshots().recent(within=USUAL_VOLUME_LAG)
    volumes = lately.volumes(symbols, plausibility.VOLUME_DAYS)
    today = epoch_of(access.market_clock().trading_day())
    known = {}
    for symbol in symbols:
        bar, overlay = newest.get(symbol), overlays.get(symbol)
        if bar is None and symbol not in settings.UNIVERSE:
            continue
        served = overlay if overlay and overlay.day == today else bar
        known[symbol] = Known(
            anchor=bar.anchor if bar else None,
            served_volume=served.volume if served and served.day == today else 0,
            largest_volume=max([bar.volume if bar else 0, *volumes.get(symbol, [])]),
            exchange=settings.UNIVERSE.exchange(symbol),
            served_close=bar_of(served.json).close if served else None,
        )
    return known


def lay(candidates: Sequence[Candidate], *, actor: str, trusted: bool) -> list[Verdict]:
    """Lay or hold the bars as PUBLIC_BARS says, and note what they claim before the market does.

    ``trusted``: the actor's bars need no second actor.
    """
    if not candidates:
        return []
    store = access.store()
    needs_second = settings.PUBLIC_BARS == "corroborated" and not trusted
    verdicts = store.lay(
        [(candidate.bar, candidate.anchor) for candidate in candidates],
        actor=actor,
        late_after=late_after(),
        network=network_of(actor, ipv6_prefix=settings.INDEPENDENT_IPV6_PREFIX)
        if needs_second
        else "",
    ).verdicts
    claims().make(
        [
            claim_of(candidate, actor)
            for candidate, verdict in zip(candidates, verdicts, strict=True)
            if verdict in (Verdict.LAID, Verdict.HELD, Verdict.JUDGED)
        ],
        actor=actor,
        most_an_hour=settings.CLAIMS_PER_HOUR,
    )
    return verdicts


@functools.cache
def claims() -> Claims:
    """This process's: its script is hashed once, not with every request."""
    return Claims(access.store())


def claim_of(candidate: Candidate, actor: str) -> Claim:
    bar = candidate.bar
    return Claim(
        actor,
        bar.symbol,
        bar.epoch,
        bar.close,
        bar.volume,
        served=candidate.served_close,
        anchor=float(candidate.anchor),
    )


def late_after() -> float | None:
    """How late a trusted bar must be before a public one is served, in seconds, as the store's
    ``lay`` takes it.

    By the pace that the worker keeps now: what is fetched each 300 s at night isn't late after 60.
    Where two cycles are no less than the trust window, the door closes before anything is late.
    """
    if settings.PUBLIC_BARS == "never":
        return None
    if settings.PUBLIC_BARS == "immediate":
        return 0.0
    clock = access.market_clock()
    fast = clock.in_office_hours() and clock.in_office_hours(ago=LATE_AFTER)
    return max(LATE_AFTER, 2 * (settings.CYCLE if fast else settings.CYCLE_OUTSIDE_HOURS))
