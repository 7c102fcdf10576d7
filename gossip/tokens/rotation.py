"""Token rotation: a node asks each internal peer which of its two tokens that accepts,
and advises whether the next step is safe.

A rotation has three steps, each done on every node before the next one begins: a new token becomes
the secondary; the two are swapped; the secondary, by then the old one, is replaced by another new
one. Between any two steps every node accepts what every other sends.
"""

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from gossip.delivery.connection import Connection
from gossip.delivery.peer import Peer, PeerKind
from gossip.tokens import bearer

# The probe is a bar without a symbol. Our nodes check the token, then answer 400. Existing Rust
# nodes read the body before they look at the token, so it must be one that they can read (they
# answer an empty list with 422, whatever the token); then they answer 401 or 200, and keep nothing.
PROBE = b'{"time":"2000-01-01T00:00:00Z","open":1,"high":1,"low":1,"close":1,"volume":0}'

# Peers send at least every 60 s while their fetches succeed (gossip.delivery.backlog.SPEAK_AFTER).
QUIET = 300.0  # seconds without a bar after which nobody sends with a token


class Reaction(StrEnum):
    """A peer's reaction to a token."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    # A node of ours answers 429 to a wrong token after many, never to a right one; a proxy in front
    # of it, or another implementation, may answer it to any.
    BUSY = "busy"
    UNCLEAR = "unclear"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Look:
    """One peer's reactions to both tokens; ``why`` explains an unclear one to people."""

    name: str
    primary: Reaction
    secondary: Reaction
    why: str = ""


def look_at(urls: Sequence[str], *, primary: str, secondary: str) -> list[Look]:
    """Ask all peers at once; nothing changes there but their count of token failures."""
    if not urls:
        return []
    with ThreadPoolExecutor(max_workers=min(len(urls), 16)) as pool:
        return list(pool.map(lambda url: _look(url, primary=primary, secondary=secondary), urls))


def _look(url: str, *, primary: str, secondary: str) -> Look:
    name = Peer(url, PeerKind.PUBLIC).name
    first, why = _ask(url, primary)
    if first is Reaction.UNREACHABLE:
        return Look(name, first, first, why)
    second, why_second = _ask(url, secondary)
    if Reaction.ACCEPTS in (first, second):
        # A door that accepts anything, or a proxy that answers for it, proves nothing.
        control, _ = _ask(url, secrets.token_hex(bearer.TOKEN_BYTES))
        if control is Reaction.ACCEPTS:
            unclear = Reaction.UNCLEAR
            return Look(name, unclear, unclear, "it answers the same to a made-up token")
    return Look(name, first, second, why or why_second)


def _ask(url: str, secret: str) -> tuple[Reaction, str]:
    with closing(Connection(Peer(url, PeerKind.INTERNAL, secret))) as connection:
        answer = connection.post(PROBE)
    reaction = reaction_to(answer.status)
    is_clear = reaction in (Reaction.ACCEPTS, Reaction.REFUSES)
    return reaction, "" if is_clear else answer.reason


def reaction_to(status: int | None) -> Reaction:
    """Read a reaction from the status of an answer to PROBE; None: there was no answer.

    After a redirect or a 404 it is UNCLEAR, since no node compared the token.
    """
    if status is None or status >= 500:
        return Reaction.UNREACHABLE
    if status in (401, 403):
        return Reaction.REFUSES
    if status == 429:
        return Reaction.BUSY
    if 200 <= status <= 299 or status in (400, 413, 415, 422):
        return Reaction.ACCEPTS
    return Reaction.UNCLEAR


# --- Advice ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Advice:
    """The advice to an operator; ``safe``: swapping the two tokens now gets no bar refused."""

    safe: bool
    lines: tuple[str, ...]


def advise(looks: Sequence[Look], *, secondary_used: float | None) -> Advice:
    """Advise on the next step of a rotation.

    ``secondary_used``: seconds since bars came to this node with its secondary token.
    """
    away = [f"{look.name} ({look.why})" for look in looks if _unknown(look)]
    if away:
        return Advice(
            False, ("Not safe to go on: can't tell what these accept: " + ", ".join(away) + ".",)
        )
    cut_off = [look.name for look in looks if look.primary is Reaction.REFUSES]
    if cut_off:
        return Advice(
            False,
            (
                "Not safe, and broken now: these refuse the primary token, which this node sends: "
                + ", ".join(cut_off)
                + ".",
                "Make it one of their two tokens, or this node's primary one that they accept.",
            ),
        )
    without = [look.name for look in looks if look.secondary is Reaction.REFUSES]
    if without:
        return Advice(
            False,
            (
                "Not safe to go on: step 1 (or 3) isn't done on these: " + ", ".join(without) + ".",
                "Make this node's secondary token theirs, restart them, and look again. Nothing is "
                "refused meanwhile.",
            ),
        )
    return Advice(True, (_swap(looks), _replace(secondary_used)))


def _unknown(look: Look) -> bool:
    known = (Reaction.ACCEPTS, Reaction.REFUSES)
    return look.primary not in known or look.secondary not in known


def _swap(looks: Sequence[Look]) -> str:
    if not looks:
        return "This node sends to no internal peer: swapping its tokens can't get a bar refused."
    return (
        "Every peer accepts both tokens. If the secondary is the new one: swap the two now, on "
        "every node (step 2)."
    )


def _replace(used: float | None) -> str:
    if used is None:
        last_use = "No peer has sent bars with the secondary token for a day"
    else:
        last_use = f"A peer last sent bars with the secondary token {_ago(used)} ago"
    if used is not None and used < QUIET:
        return f"{last_use}: keep it; it isn't time for step 3."
    return (
        f"{last_use}. If it is the old one and every node sends with this node's primary: replace "
        "it by another new one (step 3)."
    )


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
