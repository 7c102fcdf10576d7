"""Claims record what public senders said before a trusted source did, and whether it came true.

The rules
- A bar makes a claim when its close differs from the last trusted close, the anchor, and from what
  is served. The rest is an echo.
- The first trusted bar seen after it that has traded at least as many shares judges it. The claim
  is right if that bar's close comes near it, and nearer to it than to the anchor and to what was
  served then.
- A trusted bar confirms one claim of its symbol: the earliest that is right. It ends the other ones
  that are right, even those of more shares than it has traded; they earn nothing and cost nothing.
- A claim that is wrong is contradicted, whatever the result of others.
- An actor makes few claims an hour, and the actors of a network have few open at a time.

The theory
- Trust is earned with news. Only a trusted close is a measure of news: a served one may be an
  accomplice's lie, and then our own price, sent back, would be news.
- A claim must differ from what was served too, or an echo of an honest sender's bar would earn.
- One piece of news earns for one sender, or it would make as many TRUSTED as there are addresses.
- Guesses of up or down are contradicted at least as often as they are confirmed: of all guesses for
  one bar, each wrong one costs, and one right one earns.
- How far off a wrong claim was doesn't matter. An illiquid share moves several percent with one
  honest trade, and a liar would avoid the claim: it makes its ten of the hour with true bars, or
  says more shares than will be traded.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from reputation.address import network_of
from tickers.store import store as market
from tickers.store.records import Newest

NEAR = 0.005  # of the claimed close: two honest sources of one moment differ by less
MAX_CLAIMS = 20_000  # open ones; some 2 MB
# Open ones of one network: an honest claim is judged in seconds, and a flood needs a hundred
# networks to leave no room for it.
MAX_OF_NETWORK = MAX_CLAIMS // 100
SITE_PREFIX = 48  # the IPv6 prefix that one party easily gets (RFC 6177)


_LUA = Path(__file__).with_name("lua")


class ClaimResult(StrEnum):
    """The result of a claim."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    REPEATED = "repeated"  # right, and another's of the same symbol was confirmed
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Claim:
    """An actor's claim that ``symbol`` had this ``close`` after ``volume`` shares of ``day``.

    ``day`` is in epoch seconds; ``served`` was the close that the node served then, ``anchor`` the
    last trusted one; ``made_at`` is Redis TIME in ms.
    """

    actor: str
    symbol: str
    day: int
    close: float
    volume: int
    served: float
    anchor: float
    made_at: int = 0

    @property
    def is_news(self) -> bool:
        return self.close not in (self.served, self.anchor)

    def is_borne_out(self, close: float) -> bool:
        """Tell whether a trusted ``close`` is near the claim, and nearer than to what was known."""
        distance = abs(close - self.close)
        from_known = min(abs(close - self.served), abs(close - self.anchor))
        return distance <= NEAR * self.close and distance < from_known


def judge(claim: Claim, trusted: Newest | None, *, now: int, lifetime: float) -> ClaimResult:
    """Judge a claim, as if it were the only one, by the newest trusted bar, at ``now`` (Redis TIME,
    ms).

    A claim of more shares than the trusted bar has traded after ``lifetime`` seconds lapses, and so
    does one of another day.
    """
    if trusted is None or trusted.day != claim.day:
        return ClaimResult.LAPSED
    if trusted.stored_at <= claim.made_at or trusted.volume < claim.volume:
        return ClaimResult.LAPSED if now - claim.made_at > lifetime * 1000 else ClaimResult.OPEN
    return (
        ClaimResult.CONFIRMED
        if claim.is_borne_out(float(trusted.anchor))
        else ClaimResult.CONTRADICTED
    )


def judge_all(
    claims: Iterable[Claim], trusted: Newest | None, *, now: int, lifetime: float
) -> dict[Claim, ClaimResult]:
    """Judge all open claims of a symbol, the earliest first, by its newest trusted bar."""
    found = {
        claim: judge(claim, trusted, now=now, lifetime=lifetime)
        for claim in sorted(claims, key=lambda claim: (claim.made_at, claim.actor))
    }
    first = next((claim for claim in found if found[claim] is ClaimResult.CONFIRMED), None)
    if first is None or trusted is None:
        return found
    for claim in found:
        came_before = claim.made_at < trusted.stored_at
        if claim != first and came_before and claim.is_borne_out(float(trusted.anchor)):
            found[claim] = ClaimResult.REPEATED
    return found


class Claims:
    """The open claims of a node, in its store."""

    def __init__(self, store: market.Store) -> None:
        self._store = store
        self._reads: Any = store.client  # its answers are bytes
        self._make = market.market_script(store.client, _LUA / "claims.lua")
        self._end = market.market_script(store.client, _LUA / "end_claims.lua")

    def make(self, claims: Iterable[Claim], *, actor: str, most_an_hour: int) -> None:
        """Store those of an actor's claims that are news, up to ``most_an_hour``.

        An open claim of the same actor and symbol stays as it is.
        """
        news = [claim for claim in claims if claim.is_news]
        if news:
            texts = [text for claim in news for text in (claim.symbol, _written(claim))]
            header = {
                "most": MAX_CLAIMS,
                "most_of_network": MAX_OF_NETWORK,
                "most_an_hour": most_an_hour,
                "network": _network_of(actor),
                "actor": actor,
            }
            self._make(header, texts)

    def settle(self, *, lifetime: float) -> tuple[Counter[str], Counter[str], dict[str, list[str]]]:
        """Judge and end the claims that can be judged.

        Returns three mappings by actor: the number confirmed, the number contradicted, and those
        claims with their results, for people. When two processes settle at once, only the one that
        ends a symbol's claims counts them, all together.
        """
        confirmed: Counter[str] = Counter()
        contradicted: Counter[str] = Counter()
        said: defaultdict[str, list[str]] = defaultdict(list)
        for claims, trusted, now in self._open():
            judged = judge_all(claims, trusted, now=now, lifetime=lifetime)
            ended = {
                claim: found for claim, found in judged.items() if found is not ClaimResult.OPEN
            }
            texts = [part for claim in ended for part in (_network_of(claim.actor), *claims[claim])]
            if not ended or not self._end(header={}, values=texts):
                continue
            for claim, found in ended.items():
                if found in (ClaimResult.CONFIRMED, ClaimResult.CONTRADICTED):
                    said[claim.actor].append(f"{claim.symbol} {_written(claim)} {found}")
                confirmed[claim.actor] += found is ClaimResult.CONFIRMED
                contradicted[claim.actor] += found is ClaimResult.CONTRADICTED
        return +confirmed, +contradicted, said

    def _open(self) -> Iterator[tuple[dict[Claim, "_Stored"], Newest | None, int]]:
        """Yield each symbol's open claims, its newest trusted bar, and Redis TIME in ms.

        The bars are read before the claims. A bar judges only claims made before it came, so every
        claim it could confirm is among them, and none is left for it to confirm in a later turn.
        """
        symbols = {_split(field)[1] for field in self._reads.hkeys(_KEY)}
        if not symbols:
            return
        trusted = self._store.newest(symbols)
        seconds, microseconds = self._reads.time()
        claims: defaultdict[str, dict[Claim, _Stored]] = defaultdict(dict)
        for field, text in self._reads.hgetall(_KEY).items():
            claim = _read(field, text)
            claims[claim.symbol][claim] = field, text
        for symbol in symbols & claims.keys():
            yield claims[symbol], trusted.get(symbol), seconds * 1000 + microseconds // 1000


_Stored = tuple[bytes, bytes]  # a claim's field and text
_KEY = f"{market.ROOT}:open_claims"


def _network_of(actor: str) -> str:
    return network_of(actor, ipv6_prefix=SITE_PREFIX)


def _written(claim: Claim) -> str:
    return f"{claim.day} {claim.close!r} {claim.volume} {claim.served!r} {claim.anchor!r}"


def _split(field: bytes) -> tuple[str, str]:
    actor, symbol = field.decode().split(" ")
    return actor, symbol


def _read(field: bytes, text: bytes) -> Claim:
    actor, symbol = _split(field)
    made_at, day, close, volume, served, anchor = text.decode().split(" ")
    prices = float(served), float(anchor)
    return Claim(actor, symbol, int(day), float(close), int(volume), *prices, int(made_at))
