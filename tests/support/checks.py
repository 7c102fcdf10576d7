"""What a node may answer, by its own description, and what its store may hold."""

import functools
import json
from decimal import Decimal
from typing import Any

from django.conf import settings as node_settings
from jsonschema import Draft202012Validator

from proxy_site.openapi.api_document import FILE
from tests.support.doors import empty_market, market, satisfies_the_rules
from tickers import wiring
from tickers.bar import Bar, epoch_of, parse
from tickers.store.store import Store
from tickers.universe import Exchange

__all__ = ["empty_market", "market"]  # fixtures of the doors' tests


# --- Answers --------------------------------------------------------------------------------------

DOCUMENT = json.loads(FILE.read_bytes())


def check_documented(answer: Any, path: str, method: str = "post") -> None:
    """The status is one that the description names, with its content type, headers and body."""
    status = str(answer.status_code)
    described = DOCUMENT["paths"][path][method]["responses"]
    assert status in described, f"{method} {path} answered {status}: {answer.content[:200]!r}"
    headers = described[status].get("headers", {})
    required = {name for name, header in headers.items() if header.get("required")}
    assert required <= set(answer.headers), (path, status)
    if "content" not in described[status]:
        assert answer.content == b""
        return
    assert answer["Content-Type"] == "application/json"
    errors = validator(path, method, status).iter_errors(json.loads(answer.content))
    assert [error.message for error in errors] == []


@functools.cache
def validator(path: str, method: str, status: str) -> Draft202012Validator:
    body = DOCUMENT["paths"][path][method]["responses"][status]["content"]["application/json"]
    return Draft202012Validator({**body["schema"], "components": DOCUMENT["components"]})


# --- The store ------------------------------------------------------------------------------------


def check_market(store: Store) -> None:
    """Read everything back: each stored bar is valid, in its place, and what its labels say."""
    newest = store.newest()
    for symbol, rows in store.series(store.symbols()):
        days = [day for day, _ in rows]
        assert days == sorted(set(days)), symbol
        for day, encoded in rows:
            bar = check_bar(encoded)
            assert (bar.symbol, bar.epoch) == (symbol, day)
            assert bar.day <= store.clock.today()
        last = newest[symbol]
        assert (last.day, last.json) == rows[-1]
        assert (last.volume, float(last.anchor)) == (bar.volume, bar.close)
    trading_day = store.clock.trading_day()
    for symbol, overlay in store.overlays().items():
        bar = check_bar(overlay.json)
        assert (bar.symbol, bar.volume) == (symbol, overlay.volume)
        assert overlay.day == bar.epoch == epoch_of(trading_day)
        assert bar.opens_inside
        [(_, rows)] = store.series([symbol], last=2)
        check_limits(bar, [parse(json.loads(encoded)) for _, encoded in rows])


def check_limits(overlay: Bar, trusted: list[Bar]) -> None:
    """A public bar that is served lies within the limits of its day, its close near to the last
    trusted one or to what was traded; ``trusted``: the last two bars."""
    exchange = node_settings.UNIVERSE.exchange(overlay.symbol)
    width = Decimal("0.15" if exchange is Exchange.UPCOM else "0.10")
    todays = [bar for bar in trusted if bar.day == overlay.day]
    before = [bar for bar in trusted if bar.day < overlay.day] or todays
    shown = [price for bar in todays for price in bar.prices]
    upcom = exchange is Exchange.UPCOM
    reference = [before[-1].low, before[-1].high] if upcom else [before[-1].close]
    step = Decimal("0.01") if exchange is Exchange.INDEX else Decimal(100)
    low = Decimal(repr(min(reference))) * (1 - width) - step
    high = Decimal(repr(max(reference))) * (1 + width) + step
    for price in overlay.prices:
        assert low <= Decimal(repr(price)) <= high or min(shown) <= price <= max(shown)
    around = reference if upcom and not todays else [trusted[-1].close]
    close = Decimal(repr(overlay.close))
    nearby = (
        Decimal(repr(min(around))) * (1 - width)
        <= close
        <= Decimal(repr(max(around))) * (1 + width)
    )
    assert nearby or min(shown) <= overlay.close <= max(shown)


def check_bar(encoded: bytes) -> Bar:
    bar = parse(json.loads(encoded))
    assert satisfies_the_rules(bar)
    assert bar.encode() == encoded
    return bar


def check_served(client: Any) -> None:
    """What is read over HTTP is what the store holds, and as described."""
    answer = client.get("/tickers")
    check_documented(answer, "/tickers", "get")
    assert set(answer.json()) == set(wiring.store().symbols())
