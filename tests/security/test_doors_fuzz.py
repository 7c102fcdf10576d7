"""Whatever is sent to the doors, no answer is undocumented and no stored bar breaks a rule."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
import redis
from django.conf import settings as node_settings
from hypothesis import HealthCheck, Phase, event, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.checks import check_documented, check_market, check_served
from tests.support.doors import (
    ANCHORS,
    CLIENT,
    HOME,
    TODAY,
    USUAL_VOLUME,
    YESTERDAY,
    a_bar,
    fields,
    fill_market,
    forget,
    json_values,
    merge_core,
    send,
    wire,
)
from tickers import wiring

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("unlimited")]

# --- Bodies ---------------------------------------------------------------------------------------

SYMBOLS = [*ANCHORS, "FPT", "NEW1", "ZZZ"]  # with an anchor, listed without one, and neither
DAYS = [TODAY, TODAY, YESTERDAY, dt.date(2025, 8, 13), dt.date(2025, 8, 16), dt.date(2000, 2, 29)]
FACTORS = [1, 1, 1.05, 0.95, 1.0999, 0.9, 1.1, 1.1001, 0.8999, 1.15, 0.85, 1.1501, 2, 1e-9, 1e9]
USUAL_VOLUMES = [USUAL_VOLUME, USUAL_VOLUME + 1, 2 * USUAL_VOLUME, 50 * USUAL_VOLUME]
BAD_VOLUMES = [
    0,
    USUAL_VOLUME - 1,
    50 * USUAL_VOLUME + 1,
    2**53 - 1,
    2**53,
    2**64,
    -1,
    5.0,
    1e15,
    1.5,
]
VOLUMES = [*USUAL_VOLUMES, *BAD_VOLUMES]

# What takes the place of a field's value: another type, a number beyond every bound, odd text.
ODDITIES = st.one_of(
    json_values,
    st.integers(min_value=-(10**400), max_value=10**400),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 5e-324, 1e308, -0.0]),
    st.text(max_size=20),
    st.sampled_from(["VCB\0", "VCB\n", "\u202eVCB", "VCB", "v\u0109b", "\ud800", "__proto__"]),
    st.sampled_from(["2025-08-15T23:59:59.999999999+23:59", "2025-08-15T24:00:00Z", "9999-12-31"]),
    st.sampled_from(
        ["0001-01-01T00:00:00+14:00", "2025-08-15T00:00:60Z", "2025-W33-5", "-1-01-01"]
    ),
)


@st.composite
def bars(draw: st.DrawFn) -> dict[str, Any]:
    """A bar that may well be taken: prices about the symbol's anchor, in their order."""
    symbol = draw(st.sampled_from(SYMBOLS))
    anchor = ANCHORS.get(symbol, 10_000)
    low, first, second, high = sorted(
        round(anchor * draw(st.sampled_from(FACTORS)), draw(st.sampled_from([0, 2, 6])))
        for _ in range(4)
    )
    return wire(
        symbol,
        day=draw(st.sampled_from(DAYS)),
        open=first,
        high=high,
        low=low,
        close=second,
        volume=draw(st.sampled_from(USUAL_VOLUMES) | st.sampled_from(VOLUMES)),
    )


@st.composite
def near_bars(draw: st.DrawFn) -> dict[str, Any]:
    """A bar with a field or two that is odd, gone, or not a bar's."""
    bar = draw(bars())
    for name in draw(st.lists(st.sampled_from(sorted(bar)), max_size=2, unique=True)):
        if draw(st.booleans()):
            del bar[name]
        else:
            bar[name] = draw(ODDITIES)
    return {**bar, **draw(st.dictionaries(st.text(max_size=5), ODDITIES, max_size=1))}


@st.composite
def near_json(draw: st.DrawFn) -> bytes:
    """The bytes of a body with some cut out, put in, or said twice."""
    body = bytearray(encoded(draw(st.one_of(bars(), st.lists(bars(), max_size=3)))))
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 20)))
    instead = draw(
        st.one_of(
            st.binary(max_size=5),
            st.just(bytes(body[start:end]) * 2),
            st.sampled_from(
                [b'"volume":7,', b'"symbol":"PVS",', b"NaN", b"1e999", b"\xef\xbb\xbf"]
            ),
        )
    )
    body[start:end] = instead
    return bytes(body)


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


entries = st.one_of(bars(), near_bars(), fields, json_values)
bodies: st.SearchStrategy[bytes] = st.one_of(
    bars().map(encoded),
    st.lists(bars(), min_size=1, max_size=8).map(encoded),
    near_bars().map(encoded),
    st.lists(st.one_of(bars(), entries), max_size=8).map(encoded),
    st.recursive(entries, lambda inner: st.lists(inner, max_size=3), max_leaves=6).map(encoded),
    near_json(),
    st.binary(max_size=200),
    st.integers(1, 3_000).map(lambda depth: b"[" * depth + b"{}" + b"]" * depth),
)

# --- Headers --------------------------------------------------------------------------------------

TOKEN = f"Bearer {node_settings.PRIMARY_TOKEN}"
KNOWN_HEADERS = {
    "Accept": ["*/*", "application/json", "text/html", "application/json;q=0", ",", "a/b/c", "*"],
    "Authorization": [TOKEN, TOKEN.lower(), "Bearer", "Basic Og==", f"{TOKEN} {TOKEN}"],
    "Content-Encoding": ["identity", "gzip", "", "identity, identity"],
    "Content-Length": ["0", "1", "-1", "abc", "1e3", "99999999999999999999", "1000001", " 5", ""],
    "Content-Type": [
        "application/json; charset=utf-16",
        "application/json;;=",
        "APPLICATION/JSON",
        "text/plain",
        "multipart/form-data; boundary=",
        "application/x-www-form-urlencoded",
        "",
    ],
    "Cookie": ["sessionid=x", "=;=", "csrftoken=\x7f"],
    "Expect": ["100-continue"],
    "Host": ["testserver", "evil.test:99999", "[::1", "a b", ""],
    "If-None-Match": ["*", 'W/"x-1"'],
    "Transfer-Encoding": ["chunked"],
    "X-Forwarded-For": [
        "198.51.100.7",
        "203.0.113.1, 198.51.100.7",
        "::ffff:1.2.3.4",
        "x",
        ",",
        "",
    ],
    "X-Forwarded-Proto": ["https"],
    "X-HTTP-Method-Override": ["DELETE"],
}
any_text = st.text(st.characters(min_codepoint=0, max_codepoint=255), max_size=30)
known_header = st.sampled_from(sorted(KNOWN_HEADERS)).flatmap(
    lambda name: st.tuples(st.just(name), st.sampled_from(KNOWN_HEADERS[name]) | any_text)
)
any_header = st.tuples(st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True), any_text)
headers: st.SearchStrategy[dict[str, str]] = st.one_of(
    st.just({}), st.lists(known_header, max_size=3).map(dict), st.lists(any_header).map(dict)
)

# --- Requests -------------------------------------------------------------------------------------

Request = tuple[str, dict[str, str], bytes]
doors = st.sampled_from(["/gossip", "/public/gossip", "/public/gossip"])
plain: st.SearchStrategy[Request] = st.tuples(doors, st.just({}), bodies)
odd: st.SearchStrategy[Request] = st.tuples(doors, headers, bodies)


def post(path: str, given_headers: dict[str, str], body: bytes) -> Any:
    """The answer, which is checked; a header that is given stands instead of the usual one."""
    usual = {"Authorization": TOKEN} if path == "/gossip" else {}
    answer = send(path, body, headers={**usual, **given_headers}, address=HOME)
    check_documented(answer, path)
    return answer


def new_market(server: redis.Redis) -> None:
    """Yesterday's trusted bars, today's of one symbol, and an open trust window."""
    server.flushall()
    forget()
    fill_market()
    merge_core(a_bar("PVS"))


def bounded(examples: int) -> Callable[[Any], Any]:
    return hypothesis_settings(
        deadline=None,
        max_examples=examples,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


OF_ALL_KINDS = [wire(symbol, volume=volume) for symbol in SYMBOLS for volume in VOLUMES]
LISTS_OF_EVERYTHING: list[Request] = [
    ("/public/gossip", {}, encoded([wire(s, price=price * 1.1) for s, price in ANCHORS.items()])),
    ("/gossip", {}, encoded(OF_ALL_KINDS)),
    (
        "/gossip",
        {},
        encoded([wire(s, price=price / 2, volume=2**50) for s, price in ANCHORS.items()]),
    ),
    ("/public/gossip", {}, encoded([wire(s, price=price / 2) for s, price in ANCHORS.items()])),
    ("/public/gossip", {}, encoded(OF_ALL_KINDS)),
]


def check_life(requests: list[Request], server: redis.Redis) -> None:
    new_market(server)
    for path, given_headers, body in requests:
        event(f"{path} {post(path, given_headers, body).status_code}")
        check_market(wiring.store())
    check_served(CLIENT)


@pytest.mark.slow
@bounded(250)
@given(requests=st.lists(plain, min_size=1, max_size=5))
@example(requests=LISTS_OF_EVERYTHING)
def test_whatever_bodies_are_sent_the_market_stays_sound(
    requests: list[Request], clean_server: redis.Redis
) -> None:
    check_life(requests, clean_server)


@pytest.fixture(params=[[], [f"{HOME}/32"]], ids=["no proxy", "behind a proxy"])
def proxies(request: pytest.FixtureRequest, settings: Any) -> None:
    """Whether the sender's address is that of a proxy, whose X-Forwarded-For is read."""
    settings.TRUSTED_PROXIES = request.param


@pytest.mark.slow
@bounded(150)
@given(requests=st.lists(odd, min_size=1, max_size=3))
def test_whatever_headers_are_sent_the_market_stays_sound(
    requests: list[Request], proxies: None, clean_server: redis.Redis
) -> None:
    check_life(requests, clean_server)


@pytest.mark.slow
@pytest.mark.timeout(300)
@bounded(500)
@given(requests=st.lists(plain | odd, min_size=1, max_size=6))
def test_whatever_is_sent_the_market_stays_sound(
    requests: list[Request], proxies: None, clean_server: redis.Redis
) -> None:
    check_life(requests, clean_server)


@pytest.mark.parametrize(
    ("public_bars", "taken"), [("immediate", "laid"), ("when_late", "judged"), ("never", "judged")]
)
def test_of_lists_of_everything_the_doors_take_some(
    public_bars: str, taken: str, clean_server: redis.Redis, settings: Any
) -> None:
    """So the tests above are of a market in which bars are stored, laid, judged and refused."""
    settings.PUBLIC_BARS = public_bars
    new_market(clean_server)
    verdicts = set()
    for request in LISTS_OF_EVERYTHING:
        answer = post(*request)
        check_market(wiring.store())
        verdicts |= {result["verdict"] for result in answer.json().get("results", [])}
    assert {"added", "replaced", "kept", "refused", taken} <= verdicts
