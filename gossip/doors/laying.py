"""Laying puts a public bar over the trusted one as PUBLIC_BARS says, and notes its claim."""

import functools
from collections.abc import Sequence

from django.conf import settings

from gossip.doors.claims import Claim, Claims
from gossip.doors.judging import Candidate, Implausible, Judged
from gossip.doors.results import BarResult
from reputation.address import network_of
from tickers import wiring
from tickers.verdict import Verdict


def lay(judged: Sequence[Judged], *, actor: str, trusted: bool) -> list[BarResult]:
    """Lay or hold the candidates as PUBLIC_BARS says, and note their claims; returns the result of
    each entry.

    ``trusted``: the actor is TRUSTED, so its bars need no second actor.
    """
    candidates = [entry for entry in judged if isinstance(entry, Candidate)]
    verdicts = iter(_lay(candidates, actor, trusted=trusted) if candidates else ())
    return [
        next(verdicts)
        if isinstance(entry, Candidate)
        else (entry.objection if isinstance(entry, Implausible) else entry)
        for entry in judged
    ]


def _lay(candidates: Sequence[Candidate], actor: str, *, trusted: bool) -> list[Verdict]:
    needs_second = settings.PUBLIC_BARS == "corroborated" and not trusted
    verdicts = (
        wiring.store()
        .lay(
            [(candidate.bar, candidate.anchor) for candidate in candidates],
            before=[candidate.facts.before for candidate in candidates],
            actor=actor,
            late_after=late_after(),
            network=network_of(actor, ipv6_prefix=settings.INDEPENDENT_IPV6_PREFIX)
            if needs_second
            else "",
        )
        .verdicts
    )
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
    """Return this process's claims, made once: making them hashes their scripts."""
    return Claims(wiring.store())


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
    """Return how late (seconds) a trusted bar must be before a public one is served; None: never.

    If two cycles are as long as the trust window, the door closes before any bar is late.
    """
    if settings.PUBLIC_BARS == "never":
        return None
    if settings.PUBLIC_BARS == "immediate":
        return 0.0
    return wiring.source_late_after()
