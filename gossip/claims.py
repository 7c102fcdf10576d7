"""Claims: what public senders said before a trusted source did, and whether it came true.

Trust is earned with news that is confirmed later. So a claim is made only by a bar whose close
differs from what was served, and only the trusted bar decides: the first one seen that has traded
at least as many shares. It confirms a claim that it comes close to, and closer than to what was
served then; anything else contradicts it. Echoing prices makes no claim, guessing up or down is
contradicted as often as it is confirmed, and an actor makes few claims an hour, so that trust takes
days of being right, however many symbols one knows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tickers import store as market
from tickers.store import Newest

NEAR = 0.005  # of the claimed close: two honest sources of one moment differ by less
MAX_CLAIMS = 20_000  # open ones; some 2 MB

_SOURCE = "\n".join(
    path.read_text(encoding="utf-8")
    for path in (
        Path(market.__file__).with_name("lua") / "prelude.lua",
        Path(__file__).with_name("lua") / "claims.lua",
    )
)


class Fate(StrEnum):
    """What became of a claim."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    CONTRADICTED = "contradicted"
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class Claim:
    """That ``symbol`` stood at ``close`` when ``volume`` shares had been traded on ``day`` (epoch
    seconds), while ``served`` was the close that the node served. ``made_at``: Redis TIME, ms."""

    actor: str
    symbol: str
    day: int
    close: float
    volume: int
    served: float
    made_at: int = 0

    @property
    def is_news(self) -> bool:
        return self.close != self.served


def fate(claim: Claim, trusted: Newest | None, *, now: int, lifetime: float) -> Fate:
    """What the newest trusted bar makes of a claim at ``now`` (Redis TIME, ms).

    A claim that no trusted bar has caught up with for ``lifetime`` seconds lapses, as does one of
    another day.
    """
    if trusted is None or trusted.day != claim.day:
        return Fate.LAPSED
    if trusted.stored_at <= claim.made_at or trusted.volume < claim.volume:
        return Fate.LAPSED if now - claim.made_at > lifetime * 1000 else Fate.OPEN
    distance = abs(float(trusted.anchor) - claim.close)
    came_true = distance <= NEAR * claim.close
    told_more = distance < abs(float(trusted.anchor) - claim.served)
    return Fate.CONFIRMED if came_true and told_more else Fate.CONTRADICTED


class Claims:
    """The open claims of a node, in its store."""

    def __init__(self, store: market.Store) -> None:
        self._store = store
        self._reads: Any = store.client  # its answers are bytes
        self._script = store.client.register_script(_SOURCE)

    def make(self, claims: Iterable[Claim], *, actor: str, most_an_hour: int) -> None:
        """Note the news among an actor's claims, the first ``most_an_hour`` of an hour; one that is
        open of the same symbol stays as it is."""
        news = [claim for claim in claims if claim.is_news]
        if news:
            texts = [text for claim in news for text in (claim.symbol, _written(claim))]
            self._script(keys=[market.ROOT], args=[MAX_CLAIMS, most_an_hour, actor, *texts])

    def settle(self, *, lifetime: float) -> tuple[Counter[str], Counter[str], dict[str, list[str]]]:
        """Judge and forget what can be judged; returns (confirmed, contradicted, what was claimed
        and what became of it) by actor.

        Whoever deletes a claim counts it, so that two leaders don't count it twice.
        """
        open_claims = [_read(f, text) for f, text in self._reads.hgetall(_KEY).items()]
        confirmed: Counter[str] = Counter()
        contradicted: Counter[str] = Counter()
        said: defaultdict[str, list[str]] = defaultdict(list)
        if not open_claims:
            return confirmed, contradicted, said
        trusted = self._store.newest({claim.symbol for claim in open_claims})
        seconds, microseconds = self._reads.time()
        now = seconds * 1000 + microseconds // 1000
        for claim in open_claims:
            found = fate(claim, trusted.get(claim.symbol), now=now, lifetime=lifetime)
            if found is Fate.OPEN or not self._reads.hdel(_KEY, _field(claim)):
                continue
            if found is not Fate.LAPSED:
                said[claim.actor].append(f"{claim.symbol} {_written(claim)} {found}")
            confirmed[claim.actor] += found is Fate.CONFIRMED
            contradicted[claim.actor] += found is Fate.CONTRADICTED
        return +confirmed, +contradicted, said


_KEY = f"{market.ROOT}:claims"


def _field(claim: Claim) -> str:
    return f"{claim.actor} {claim.symbol}"


def _written(claim: Claim) -> str:
    return f"{claim.day} {claim.close!r} {claim.volume} {claim.served!r}"


def _read(field: bytes, text: bytes) -> Claim:
    actor, symbol = field.decode().split(" ")
    made_at, day, close, volume, served = text.decode().split(" ")
    return Claim(actor, symbol, int(day), float(close), int(volume), float(served), int(made_at))
