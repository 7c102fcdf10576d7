"""Recording counts a request's one outcome before any of its bars is laid or answered."""

from collections.abc import Sequence

from django.utils import timezone

from gossip.doors import appeals
from gossip.doors.judging import Candidate, Implausible, Judged, evidence_of
from gossip.doors.results import refusal_of
from gossip.errors import banned
from reputation import actors
from reputation.transitions import Outcome
from tickers import wiring


def record(actor: str, judged: Sequence[Judged]) -> dict[str, object]:
    """Count the request's one outcome (a failure wins); returns the facts for its sender.

    A failure is in SQL when this returns, with the appeal that may strike it. An accepted update
    decides nothing, so it waits in Redis; before that, the actor's status is asked once more, since
    it may have been banned after the request began. Raises the refusal of a banned actor, and of a
    request that bans. An error of SQL or Redis passes through, so that no bar of an actor that
    can't be recorded is served.
    """
    accepted = sum(isinstance(entry, Candidate) for entry in judged)
    refused = [entry for entry in judged if isinstance(entry, Implausible)]
    if refused:
        return _record_failure(actor, accepted, refused)
    if accepted:
        actor_status = actors.status_of(address=actor)
        if actor_status.banned:  # by another request meanwhile: its good bars aren't laid either
            wiring.store().withdraw_actors([actor])
            raise banned(actor_status.banned_until, now=timezone.now())
        actors.count(address=actor, accepted=accepted)
    return {}


def _record_failure(actor: str, accepted: int, refused: Sequence[Implausible]) -> dict[str, object]:
    try:
        actor_status = actors.record_outcome(
            address=actor,
            outcome=Outcome.IMPLAUSIBLE,
            evidence=evidence_of(refused),
            bars=(accepted, len(refused)),
            appeal=appeals.written([entry.bar for entry in refused]),
        )
    except actors.BannedError as error:
        raise banned(error.until, now=timezone.now()) from None
    if not actor_status.banned:
        return {"failures_left": actor_status.failures_left}
    wiring.store().withdraw_actors([actor])
    refusal = refusal_of(refused[0].objection)
    assert refusal is not None  # noqa: S101 - an objection is a refusal
    refusal.facts |= banned(actor_status.banned_until, now=timezone.now()).facts
    raise refusal
