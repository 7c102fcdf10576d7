"""A bar's authority says how it came; its verdict says what merge, or lay, made of it."""

from enum import StrEnum


class Authority(StrEnum):
    """The way by which a bar came; all but PUBLIC are trusted."""

    CORE = "CORE"
    FOLLOWED = "FOLLOWED"
    INTERNAL = "INTERNAL"
    PUBLIC = "PUBLIC"


class Verdict(StrEnum):
    """The store's verdict on a bar."""

    ADDED = "added"
    REPLACED = "replaced"
    CONFIRMED = "confirmed"  # the same bar, now by our own fetch
    LAID = "laid"  # a public bar, served as an overlay
    UNCHANGED = "unchanged"  # the same bar
    KEPT = "kept"  # the stored bar stays: the new one was late, or would rewrite history
    JUDGED = "judged"  # a plausible public bar that PUBLIC_BARS doesn't let be served
    HELD = "held"  # a public bar that waits for a second, independent actor
    FUTURE = "future"
    CLOSED_DAY = "closed_day"  # the exchanges didn't trade on that day
    TOO_OLD = "too_old"  # others' bar of a day before HISTORY_START
    FULL = "full"  # an unknown symbol beyond MAX_SYMBOLS
    UNKNOWN = "unknown"
    OTHER_DAY = "other_day"
    SMALLER_VOLUME = "smaller_volume"
    ANCHOR_MOVED = "anchor_moved"
    LOSES_DAYS = "loses_days"
    DISPUTED = "disputed"  # a peer's bar of a day on which CORE or FOLLOWED contradict the peers
    IMPOSSIBLE_PRICE = "impossible_price"  # a peer's, beyond ten times the reference or a tenth
    IMPOSSIBLE_VOLUME = "impossible_volume"  # a peer's, over 50 times the largest of 60 days

    @property
    def changes_market(self) -> bool:
        return self in (Verdict.ADDED, Verdict.REPLACED, Verdict.CONFIRMED, Verdict.LAID)

    @property
    def refused(self) -> bool:
        return self in _REFUSALS


_REFUSALS = frozenset(
    {
        Verdict.FUTURE,
        Verdict.CLOSED_DAY,
        Verdict.TOO_OLD,
        Verdict.FULL,
        Verdict.UNKNOWN,
        Verdict.OTHER_DAY,
        Verdict.SMALLER_VOLUME,
        Verdict.ANCHOR_MOVED,
        Verdict.LOSES_DAYS,
        Verdict.DISPUTED,
        Verdict.IMPOSSIBLE_PRICE,
        Verdict.IMPOSSIBLE_VOLUME,
    }
)
