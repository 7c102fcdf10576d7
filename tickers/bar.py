"""A bar: one symbol's open, high, low, close and volume on one day.

A bar is checked once, at the door, and is valid from then on. It is encoded once, when it enters
the store, and every reader gets those bytes.
"""

import datetime as dt
import functools
import re
from dataclasses import dataclass, field

from tickers.market_clock import EXCHANGE_ZONE
from tickers.universe import looks_like_symbol

DAY_SECONDS = 86_400
MAX_VOLUME = 2**53  # exclusive; Lua and JSON readers hold smaller integers exactly
MAX_PRICE = 1e12  # VND; far beyond any share or index, and short in its encoded form

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


class BarError(ValueError):
    """The values make no bar; the message names the field and the rule."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A valid bar: prices in VND (points for an index), volume in shares, the exchange's day."""

    symbol: str
    day: dt.date
    open: float
    high: float
    low: float
    close: float
    volume: int
    _encoded: bytes = field(default=b"", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = 0 < self.low <= self.close <= self.high <= MAX_PRICE
        if not (ordered and 0 < self.open <= MAX_PRICE and 0 <= self.volume < MAX_VOLUME):
            raise BarError(self._complaint())

    def _complaint(self) -> str:
        """Return the first rule that is broken, "" if none; comparisons with NaN are false."""
        for name, price in zip(("open", "high", "low", "close"), self.prices, strict=True):
            if not 0 < price <= MAX_PRICE:
                return f"{name} must be a price above 0, at most {MAX_PRICE:.0f}"
        if self.low > self.high:
            return "low must not be above high"
        if not self.low <= self.close <= self.high:
            return "close must lie between low and high"
        return "volume must be from 0 to 2^53 - 1"

    @property
    def epoch(self) -> int:
        """The day's midnight in UTC, in epoch seconds, by which a series is sorted."""
        return epoch_of(self.day)

    @property
    def prices(self) -> tuple[float, float, float, float]:
        return self.open, self.high, self.low, self.close

    @property
    def opens_inside(self) -> bool:
        """Whether the open lies between low and high; real data has exceptions (13 bars of May
        2025), so only the public door insists on it."""
        return self.low <= self.open <= self.high

    @property
    def price_texts(self) -> tuple[str, str, str, str]:
        """Return the prices as the encoded form has them."""
        return number(self.open), number(self.high), number(self.low), number(self.close)

    def encode(self, price_texts: tuple[str, str, str, str] | None = None) -> bytes:
        """Return the wire form: one JSON object, time in RFC 3339 UTC, whole prices without
        fraction.

        It is made once, so that the bytes that are compared with the stored ones are those that are
        merged. Symbol and time stay first, since the store finds a bar's day by its offset.
        """
        if not self._encoded:
            first, high, low, close = price_texts or self.price_texts
            encoded = (
                f'{{"symbol":"{self.symbol}","time":"{self.day.isoformat()}T00:00:00Z",'
                f'"open":{first},"high":{high},"low":{low},"close":{close},"volume":{self.volume}}}'
            ).encode()
            object.__setattr__(self, "_encoded", encoded)  # of a frozen class
        return self._encoded


def number(value: float) -> str:
    """Return the shortest JSON number that reads back as ``value``."""
    whole = int(value)
    return str(whole) if whole == value else repr(value)


def epoch_of(day: dt.date) -> int:
    return (day.toordinal() - _UNIX_DAY) * DAY_SECONDS


# The bars of an answer are of the same few days.
@functools.lru_cache(maxsize=4_096)
def day_of(epoch: int) -> dt.date:
    """Return the date, at the exchange, of an instant in epoch seconds."""
    try:
        return dt.datetime.fromtimestamp(epoch, EXCHANGE_ZONE).date()
    except (ValueError, OverflowError, OSError):
        raise BarError("time is out of range") from None


_UNIX_DAY = dt.date(1970, 1, 1).toordinal()


def parse_day(value: object) -> dt.date:
    """Parse the day of an RFC 3339 instant, or of a bare date, which existing nodes send."""
    if not isinstance(value, str):
        raise BarError("time must be a string, RFC 3339 or a date")
    return _day_named(value)


# The bars of one moment are mostly of one day.
@functools.lru_cache(maxsize=4_096)
def _day_named(text: str) -> dt.date:
    try:
        if _DATE.fullmatch(text):
            return dt.date.fromisoformat(text)
        if _RFC3339.fullmatch(text):
            return dt.datetime.fromisoformat(text.upper()).astimezone(EXCHANGE_ZONE).date()
    except (ValueError, OverflowError):
        pass
    raise BarError("time must be an RFC 3339 time such as 2025-08-15T00:00:00Z, or a date")


def parse(fields: object) -> Bar:
    """Parse a bar from its decoded wire form, whatever was decoded; raises BarError.

    Unknown fields are ignored; the symbol becomes upper case.
    """
    if not isinstance(fields, dict):
        raise BarError("a bar must be an object with symbol, time, open, high, low, close, volume")
    symbol = fields.get("symbol")
    # Some letters outside ASCII become ASCII in upper case; the German sharp s becomes SS.
    if not isinstance(symbol, str) or not symbol.isascii() or not looks_like_symbol(symbol.upper()):
        raise BarError("symbol must be 1 to 16 letters and digits")
    return Bar(
        symbol=symbol.upper(),
        day=parse_day(fields.get("time")),
        open=_price(fields, "open"),
        high=_price(fields, "high"),
        low=_price(fields, "low"),
        close=_price(fields, "close"),
        volume=_volume(fields.get("volume")),
    )


def _price(fields: dict[object, object], name: str) -> float:
    value = fields.get(name)
    if type(value) is float:
        return value
    if type(value) is not int:
        raise BarError(f"{name} must be a number")
    try:
        return float(value)
    except OverflowError:
        raise BarError(f"{name} must be a price above 0, at most {MAX_PRICE:.0f}") from None


def _volume(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BarError("volume must be a whole number")
    return value
