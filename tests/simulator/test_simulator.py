"""The exchange simulator keeps the exchanges' rules, the upstream's protocol, and its promises."""

import datetime as dt
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.clock import AcceleratedClock, session_start
from simulator.controls import Controls
from simulator.faults import BodyFault
from simulator.market import Frame, SimulatedMarket, SimulationError
from simulator.rules import daily_limits
from simulator.server import SimulatorServer
from tests.support.environment import clean
from tickers.universe import Exchange, Listing, Universe

ICT = dt.timezone(dt.timedelta(hours=7))
DAY = dt.date(2025, 8, 15)
HISTORY_START = dt.date(2025, 5, 1)
UNIVERSE = Universe.read()
ENDLESS = 10**11
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "Referer": "https://trading.vietcap.com.vn/",
}


class Clock:
    """Stands where it is put."""

    def __init__(self, text: str) -> None:
        self.now = dt.datetime.fromisoformat(f"{text}+07:00")

    def __call__(self) -> dt.datetime:
        return self.now

    def at(self, text: str) -> None:
        self.now = dt.datetime.fromisoformat(f"{text}+07:00")


def market(
    clock: Any, *, seed: int = 7, universe: Universe = UNIVERSE, start: dt.date = HISTORY_START
) -> SimulatedMarket:
    return SimulatedMarket(universe, clock=clock, seed=seed, history_start=start)


def daily(simulated: SimulatedMarket, symbol: str, count_back: int = 0) -> list[Any]:
    return simulated.bars(symbol, frame=Frame.ONE_DAY, to=ENDLESS, count_back=count_back)


def minutes(simulated: SimulatedMarket, symbol: str) -> list[Any]:
    return simulated.bars(symbol, frame=Frame.ONE_MINUTE, to=ENDLESS)


def date_of(bar: Any) -> dt.date:
    return dt.datetime.fromtimestamp(bar.time, dt.UTC).date()


def of_exchange(exchange: Exchange, count: int = 3) -> list[Listing]:
    return [entry for entry in UNIVERSE if entry.exchange is exchange][:count]


# --- The rules of the exchanges ---------------------------------------------------------------


def assert_keeps_the_rules(bars: list[Any], exchange: Exchange) -> None:
    for bar in bars:
        assert bar.low <= min(bar.open, bar.close)
        assert max(bar.open, bar.close) <= bar.high
        assert isinstance(bar.volume, int)
        assert bar.volume >= 100
        assert bar.volume % 100 == 0
        for price in bar[1:5]:
            assert Decimal(str(price)) % expected_tick(price, exchange) == 0, (exchange, price)


def expected_tick(price: float, exchange: Exchange) -> Decimal:
    if exchange is Exchange.INDEX:
        return Decimal("0.01")
    if exchange is not Exchange.HOSE:
        return Decimal(100)
    return Decimal(10 if price < 10_000 else 50 if price < 50_000 else 100)


def assert_inside_limit(bar: Any, previous_close: float, exchange: Exchange) -> None:
    percent = {"HOSE": 7, "HNX": 10, "UPCOM": 15, "INDEX": 3}[exchange]
    reach = Decimal(str(previous_close)) * percent / 100
    assert Decimal(str(bar.high)) <= Decimal(str(previous_close)) + reach
    assert Decimal(str(bar.low)) >= Decimal(str(previous_close)) - reach


@pytest.mark.parametrize("seed", [1, 2])
def test_every_symbol_keeps_the_rules_through_a_whole_day(seed: int) -> None:
    simulated = market(Clock("2025-08-15T14:45:00"), seed=seed)
    for entry in UNIVERSE:
        before, today = daily(simulated, entry.symbol, 2)
        parts = minutes(simulated, entry.symbol)
        assert date_of(today) == DAY
        assert_keeps_the_rules([today, *parts], entry.exchange)
        assert_inside_limit(today, before.close, entry.exchange)
        assert all(today.low <= part.low and part.high <= today.high for part in parts)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(),
    entry=st.sampled_from(Exchange).flatmap(lambda e: st.sampled_from(of_exchange(e, 10))),
)
def test_history_keeps_the_rules(seed: int, entry: Listing) -> None:
    simulated = market(
        Clock("2025-08-15T09:00:00"),
        seed=seed,
        universe=Universe([entry]),
        start=dt.date(2022, 1, 1),
    )
    bars = daily(simulated, entry.symbol)
    assert_keeps_the_rules(bars, entry.exchange)
    for before, bar in pairwise(bars):
        assert_inside_limit(bar, before.close, entry.exchange)


@pytest.mark.parametrize(
    ("exchange", "reference", "lowest", "highest"),
    [
        (Exchange.HOSE, 10_000, 9_300, 10_700),
        (Exchange.HOSE, 9_990, 9_300, 10_650),  # 9,290.7 and 10,689.3, on their own ticks
        (Exchange.HOSE, 64_300, 59_800, 68_800),
        (Exchange.HNX, 15_500, 14_000, 17_000),
        (Exchange.UPCOM, 20_000, 17_000, 23_000),
        (Exchange.INDEX, 130_000, 126_100, 133_900),
    ],
)
def test_the_daily_limits_are_the_last_valid_prices_inside(
    exchange: Exchange, reference: int, lowest: int, highest: int
) -> None:
    assert daily_limits(exchange, reference) == (lowest, highest)


def test_a_few_days_end_near_the_widest_limit() -> None:
    simulated = market(Clock("2025-08-15T09:00:00"), start=dt.date(2024, 1, 1))
    changes = [
        abs(bar.close / before.close - 1)
        for entry in of_exchange(Exchange.UPCOM, 100)
        for before, bar in pairwise(daily(simulated, entry.symbol))
    ]
    assert 0 < sum(change > 0.14 for change in changes) < len(changes) / 100


def test_history_has_a_bar_of_each_trading_day_and_no_other() -> None:
    simulated = market(Clock("2025-09-05T09:10:00"), start=dt.date(2025, 8, 28))
    days = [date_of(bar) for bar in daily(simulated, "VCB")]
    # 30 and 31 August are a weekend, 1 and 2 September the national holiday.
    assert [day.isoformat() for day in days] == [
        "2025-08-28",
        "2025-08-29",
        "2025-09-03",
        "2025-09-04",
    ]


def test_a_market_before_its_history_has_no_bars() -> None:
    simulated = market(Clock("2025-04-29T10:00:00"))
    assert daily(simulated, "VCB") == []


def test_nothing_trades_over_lunch_or_outside_the_session() -> None:
    simulated = market(Clock("2025-08-15T20:00:00"))
    times = {
        dt.datetime.fromtimestamp(bar.time, ICT).strftime("%H:%M")
        for entry in UNIVERSE
        for bar in minutes(simulated, entry.symbol)
    }
    assert min(times) == "09:15"
    assert max(times) == "14:44"
    assert {"11:29", "13:00"} <= times
    assert not {text for text in times if "11:30" <= text < "13:00"}


# --- Time -------------------------------------------------------------------------------------


def walked_symbols() -> list[str]:
    return [entry.symbol for exchange in Exchange for entry in of_exchange(exchange)]


def test_a_day_only_grows() -> None:
    clock = Clock("2025-08-15T09:14:00")
    simulated = market(clock)
    last: dict[str, Any] = {}
    closed: dict[str, list[Any]] = {symbol: [] for symbol in walked_symbols()}
    while clock.now.time() < dt.time(15, 0):
        clock.now += dt.timedelta(seconds=13)
        for symbol, before in closed.items():
            bar = daily(simulated, symbol, 1)[0]
            parts = minutes(simulated, symbol)
            assert parts[: len(before)] == before
            closed[symbol] = [p for p in parts if p.time + 60 <= clock.now.timestamp()]
            if not parts:
                assert date_of(bar) < DAY
                continue
            assert date_of(bar) == DAY
            assert bar.open == parts[0].open
            assert bar.close == parts[-1].close
            assert bar.high == max(part.high for part in parts)
            assert bar.low == min(part.low for part in parts)
            assert bar.volume == sum(part.volume for part in parts)
            if symbol in last:
                assert bar.open == last[symbol].open
                assert bar.high >= last[symbol].high
                assert bar.low <= last[symbol].low
                assert bar.volume >= last[symbol].volume
            last[symbol] = bar
    assert set(last) == set(closed)
    clock.at("2025-08-18T09:14:00")
    assert {symbol: daily(simulated, symbol, 1)[0] for symbol in last} == last


def test_whoever_comes_late_sees_the_same() -> None:
    clock = Clock("2025-08-14T10:00:00")
    early = market(clock)
    for moment in ("2025-08-14T10:00:00", "2025-08-15T09:40:07", "2025-08-15T14:01:31"):
        clock.at(moment)
        for entry in UNIVERSE:
            daily(early, entry.symbol)
    late = market(Clock("2025-08-15T14:01:31"))
    for entry in UNIVERSE:
        assert daily(early, entry.symbol) == daily(late, entry.symbol)
        assert minutes(early, entry.symbol) == minutes(late, entry.symbol)


def test_another_seed_is_another_market() -> None:
    clock = Clock("2025-08-15T10:00:00")
    assert daily(market(clock, seed=1), "VCB") != daily(market(clock, seed=2), "VCB")


def test_a_node_that_fetches_every_two_seconds_sees_the_market_move() -> None:
    clock = Clock("2025-08-15T10:00:00")
    simulated = market(clock)
    seen = {entry.symbol: [daily(simulated, entry.symbol, 1)] for entry in UNIVERSE}
    for _ in range(30):
        clock.now += dt.timedelta(seconds=2)
        for entry in UNIVERSE:
            seen[entry.symbol].append(daily(simulated, entry.symbol, 1))
    moves = sorted(sum(a != b for a, b in pairwise(bars)) for bars in seen.values())
    assert moves[-len(moves) // 5] == 30  # a fifth of the market at every look
    assert moves[len(moves) // 10] <= 6  # and the illiquid end seldom


def test_hours_are_the_minutes_folded() -> None:
    simulated = market(Clock("2025-08-15T10:20:00"))
    hours = simulated.bars("VNINDEX", frame=Frame.ONE_HOUR, to=ENDLESS)
    parts = minutes(simulated, "VNINDEX")
    assert [dt.datetime.fromtimestamp(hour.time, ICT).hour for hour in hours] == [9, 10]
    assert sum(hour.volume for hour in hours) == sum(part.volume for part in parts)
    assert hours[0].open == parts[0].open
    assert hours[1].close == parts[-1].close
    assert hours[1].open == next(part.open for part in parts if part.time >= hours[1].time)


def test_the_accelerated_clock_runs_as_fast_as_it_is_told_and_stops_in_time() -> None:
    real = [100.0]
    start = dt.datetime(2025, 8, 15, 9, 30, tzinfo=ICT)
    clock = AcceleratedClock(
        start, 20, until=start + dt.timedelta(minutes=5), monotonic=lambda: real[0]
    )
    assert clock() == start
    real[0] += 6
    assert clock() == start + dt.timedelta(minutes=2)
    real[0] += 60
    assert clock() == start + dt.timedelta(minutes=5)


def test_the_accelerated_clock_refuses_times_without_zone_and_running_backwards() -> None:
    with pytest.raises(ValueError, match="zone"):
        AcceleratedClock(dt.datetime(2025, 8, 15, 9, 30), 1)
    with pytest.raises(ValueError, match="speed"):
        AcceleratedClock(dt.datetime(2025, 8, 15, 9, 30, tzinfo=ICT), -1)


@pytest.mark.parametrize(
    ("now", "day"),
    [("2025-08-17T22:00", 15), ("2025-08-18T08:59", 15), ("2025-08-18T09:00", 18)],
)
def test_a_session_starts_on_the_latest_trading_day(now: str, day: int) -> None:
    started = session_start(dt.datetime.fromisoformat(f"{now}+07:00"))
    assert started == dt.datetime(2025, 8, day, 9, 30, tzinfo=ICT)


# --- Orders to the market ---------------------------------------------------------------------


def test_a_set_bar_stands_still_until_it_is_released() -> None:
    clock = Clock("2025-08-15T10:00:00")
    simulated = market(clock)
    before = daily(simulated, "VNINDEX")
    simulated.set_bar("VNINDEX", close=9_999.5, volume=123)
    clock.at("2025-08-15T11:00:00")
    after = daily(simulated, "VNINDEX")
    assert after[:-1] == before[:-1]
    assert after[-1] == before[-1]._replace(close=9_999.5, high=9_999.5, volume=123)
    simulated.set_bar("VNINDEX", volume=456)
    assert daily(simulated, "VNINDEX", 1) == [after[-1]._replace(volume=456)]
    simulated.release_bar("VNINDEX")
    assert daily(simulated, "VNINDEX") == daily(market(clock), "VNINDEX")


def test_a_set_bar_of_a_symbol_that_has_not_traded_today_needs_a_close() -> None:
    simulated = market(Clock("2025-08-15T09:05:00"))
    with pytest.raises(SimulationError, match=r"VCB: .*give its close"):
        simulated.set_bar("VCB", volume=100)
    simulated.set_bar("VCB", close=64_300)
    bar = daily(simulated, "VCB", 1)[0]
    assert (date_of(bar), *bar[1:]) == (DAY, 64_300, 64_300, 64_300, 64_300, 0)


def test_an_adjustment_changes_prices_of_closed_days_alone() -> None:
    clock = Clock("2025-08-15T10:00:00")
    simulated = market(clock)
    before = daily(simulated, "VNINDEX")
    simulated.adjust("VNINDEX", 0.9)
    after = daily(simulated, "VNINDEX")
    assert after[-1] == before[-1]
    assert [bar.volume for bar in after] == [bar.volume for bar in before]
    assert [bar.close for bar in after[:-1]] == [round(b.close * 0.9, 2) for b in before[:-1]]
    clock.at("2025-08-18T10:00:00")
    unadjusted = daily(market(clock), "VNINDEX")
    assert daily(simulated, "VNINDEX")[-2:] == unadjusted[-2:]
    simulated.adjust("VNINDEX", 1)
    assert daily(simulated, "VNINDEX") == unadjusted


@pytest.mark.parametrize("values", [{"close": 0}, {"close": float("nan")}, {"volume": -1}])
def test_a_bar_that_makes_no_sense_is_not_set(values: dict[str, Any]) -> None:
    simulated = market(Clock("2025-08-15T10:00:00"))
    before = daily(simulated, "VNINDEX")
    with pytest.raises(SimulationError, match="VNINDEX"):
        simulated.set_bar("VNINDEX", **values)
    assert daily(simulated, "VNINDEX") == before


# --- The wire protocol ------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock("2025-08-15T10:00:00")


@pytest.fixture
def simulator(clock: Clock) -> Iterator[SimulatorServer]:
    with SimulatorServer(market(clock)) as running:
        yield running


def ask(
    simulator: SimulatorServer,
    *symbols: Any,
    frame: str = "ONE_DAY",
    to: Any = ENDLESS,
    count_back: Any = 3,
    headers: dict[str, str] = BROWSER,
    timeout: float = 10,
) -> requests.Response:
    order = {"timeFrame": frame, "symbols": symbols, "to": to, "countBack": count_back}
    return post(simulator, json.dumps(order), headers=headers, timeout=timeout)


def post(
    simulator: SimulatorServer,
    body: str,
    *,
    headers: dict[str, str] = BROWSER,
    timeout: float = 10,
) -> requests.Response:
    return requests.post(
        f"{simulator.url}chart/OHLCChart/gap-chart", data=body, headers=headers, timeout=timeout
    )


def control(simulator: SimulatorServer, order: Any) -> requests.Response:
    return requests.post(f"{simulator.url[:-4]}_control", json=order, timeout=10)


def test_an_answer_has_columns_of_one_length_and_times_as_strings(
    simulator: SimulatorServer,
) -> None:
    answer = ask(simulator, "VNINDEX", "VCB")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    index, share = answer.json()
    assert list(index) == [
        "symbol", "o", "h", "l", "c", "v", "t", "accumulatedVolume", "accumulatedValue",
    ]  # fmt: skip
    assert (index["symbol"], share["symbol"]) == ("VNINDEX", "VCB")
    assert index["accumulatedVolume"] == index["accumulatedValue"] == []
    bars = daily(simulator.market, "VNINDEX", 3)
    assert index["t"] == [str(bar.time) for bar in bars]
    assert index["c"] == [bar.close for bar in bars]
    assert index["o"] == [bar.open for bar in bars]
    assert index["h"] == [bar.high for bar in bars]
    assert index["l"] == [bar.low for bar in bars]
    assert index["v"] == [bar.volume for bar in bars]
    assert all(type(volume) is int for volume in index["v"])


def test_count_back_and_to_choose_the_bars(simulator: SimulatorServer) -> None:
    whole = ask(simulator, "VNINDEX", count_back=10_000).json()[0]["t"]
    assert len(whole) == len(daily(simulator.market, "VNINDEX"))
    assert ask(simulator, "VNINDEX", count_back=2).json()[0]["t"] == whole[-2:]
    to = int(whole[-3])
    assert ask(simulator, "VNINDEX", to=to).json()[0]["t"] == whole[-5:-2]
    assert ask(simulator, "VNINDEX", to=str(to - 1)).json()[0]["t"] == whole[-6:-3]
    assert ask(simulator, "VNINDEX", to=0).json()[0]["t"] == []


def test_minutes_and_hours_are_the_current_days(simulator: SimulatorServer) -> None:
    parts = ask(simulator, "VNINDEX", frame="ONE_MINUTE", count_back=1_000).json()[0]["t"]
    # 45 minutes have closed, and the one that begins at 10:00 has its first step.
    assert len(parts) == 46
    assert {dt.datetime.fromtimestamp(int(t), ICT).date() for t in parts} == {DAY}
    assert len(ask(simulator, "VNINDEX", frame="ONE_HOUR").json()[0]["t"]) == 2


def test_unknown_and_dropped_symbols_are_left_out(simulator: SimulatorServer) -> None:
    simulator.drop(["TCB"])
    assert [e["symbol"] for e in ask(simulator, "NOPE", "TCB", "vcb", 5, "VCB").json()] == ["VCB"]
    simulator.drop([])
    assert [e["symbol"] for e in ask(simulator, "TCB").json()] == ["TCB"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"User-Agent": BROWSER["User-Agent"]},
        {"User-Agent": "curl/8", "Referer": BROWSER["Referer"]},
        {"User-Agent": BROWSER["User-Agent"], "Referer": "https://example.com/"},
    ],
)
def test_whoever_is_no_browser_is_forbidden(
    simulator: SimulatorServer, headers: dict[str, str]
) -> None:
    answer = ask(simulator, "VCB", headers=headers)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "text/html"
    assert simulator.counters["refused_403"] == 1


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        '{"timeFrame": "ONE_WEEK", "symbols": ["VCB"], "to": 1, "countBack": 1}',
        '{"timeFrame": "ONE_DAY", "symbols": [], "to": 1, "countBack": 1}',
        '{"timeFrame": "ONE_DAY", "symbols": 5, "to": 1, "countBack": 1}',
        '{"timeFrame": "ONE_DAY", "symbols": ["VCB"], "to": "soon", "countBack": 1}',
        '{"timeFrame": "ONE_DAY", "symbols": ["VCB"], "to": Infinity, "countBack": 1}',
        '{"timeFrame": "ONE_DAY", "symbols": ["VCB"], "to": 1}',
    ],
)
def test_an_order_that_makes_no_sense_is_a_bad_request(
    simulator: SimulatorServer, body: str
) -> None:
    answer = post(simulator, body)
    assert (answer.status_code, answer.json()) == (400, {"message": "Bad Request"})
    assert simulator.counters["refused"] == 1


def test_other_paths_are_not_found(simulator: SimulatorServer) -> None:
    assert requests.get(simulator.url, timeout=10).status_code == 404
    assert requests.post(f"{simulator.url}chart", headers=BROWSER, timeout=10).status_code == 404


def test_a_connection_is_kept_for_the_next_request(simulator: SimulatorServer) -> None:
    address = urlsplit(simulator.url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    order = {"timeFrame": "ONE_DAY", "symbols": ["VCB"], "to": ENDLESS, "countBack": 1}
    sockets = []
    for _ in range(2):
        connection.request("POST", "/api/chart/OHLCChart/gap-chart", json.dumps(order), BROWSER)
        assert connection.getresponse().read()
        sockets.append(connection.sock)
    assert sockets[0] is sockets[1] is not None
    connection.close()


# --- Limits -----------------------------------------------------------------------------------


def test_too_many_requests_a_minute_are_refused(clock: Clock) -> None:
    with SimulatorServer(market(clock), requests_per_minute=3) as simulator:
        statuses = [ask(simulator, "VCB").status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert ask(simulator, "VCB").json() == {"message": "Too Many Requests"}
        assert simulator.counters["requests"] == 6
        assert simulator.counters["refused"] == simulator.counters["refused_429"] == 3
        assert simulator.counters["peak_requests_per_minute"] == 6
        assert control(simulator, {"rpm": 0}).ok
        assert ask(simulator, "VCB").status_code == 200


def test_the_request_limit_slides(clock: Clock) -> None:
    real = Clock("2025-08-15T10:00:00")
    controls = Controls(
        market(clock), requests_per_minute=2, monotonic=lambda: real.now.timestamp()
    )

    def admitted_at(text: str) -> bool:
        real.at(f"2025-08-15T{text}")
        return controls.admit()

    assert admitted_at("10:00:00")
    assert admitted_at("10:00:30")
    assert not admitted_at("10:00:59")
    # The first has left the window, but the refused one has taken its place.
    assert not admitted_at("10:01:01")
    assert admitted_at("10:03:00")


def test_too_many_symbols_a_request_are_refused(clock: Clock) -> None:
    with SimulatorServer(market(clock), max_symbols=2) as simulator:
        assert ask(simulator, "VCB", "FPT").status_code == 200
        answer = ask(simulator, "VCB", "FPT", "HPG")
        assert answer.status_code == 400
        assert answer.json() == {"message": "at most 2 symbols a request"}
        assert simulator.counters["refused_400"] == 1
        assert simulator.counters["symbols_asked"] == 2


def test_latency_delays_answers_and_ends_with_the_simulator(clock: Clock) -> None:
    before = set(threading.enumerate())
    with SimulatorServer(market(clock), latency=60) as simulator:
        with pytest.raises(requests.ReadTimeout):
            ask(simulator, "VCB", timeout=0.2)
        threads = set(threading.enumerate()) - before
        assert len(threads) == 2  # the listener, and the answer under way
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive()


# --- Faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_status_fault_is_served_as_often_as_ordered(
    simulator: SimulatorServer, status: int
) -> None:
    assert control(simulator, {"fault": {"status": status, "times": 2}}).json() == {"ok": True}
    statuses = [ask(simulator, "VCB").status_code for _ in range(3)]
    assert statuses == [status, status, 200]
    assert simulator.counters[f"fault_{status}"] == 2


def test_a_fault_without_times_lasts_until_changed(simulator: SimulatorServer) -> None:
    simulator.fail_with_status(500)
    assert [ask(simulator, "VCB").status_code for _ in range(4)] == [500] * 4
    assert control(simulator, {"fault": None}).ok
    assert ask(simulator, "VCB").status_code == 200


@pytest.mark.parametrize(
    ("fault", "kind", "start"),
    [
        (BodyFault.HTML, "text/html", b"<html>"),
        (BodyFault.NOT_JSON, "application/json", b"["),
    ],
)
def test_an_answer_can_be_no_json(
    simulator: SimulatorServer, fault: BodyFault, kind: str, start: bytes
) -> None:
    simulator.fail_with_body(fault, times=1)
    answer = ask(simulator, "VCB")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == kind
    assert answer.content.startswith(start)
    with pytest.raises(requests.JSONDecodeError):
        answer.json()
    assert ask(simulator, "VCB").json()[0]["symbol"] == "VCB"


@pytest.mark.parametrize(
    ("fault", "expected"), [(BodyFault.EMPTY, []), (BodyFault.OBJECT, {"status": "error"})]
)
def test_an_answer_can_lack_every_symbol(
    simulator: SimulatorServer, fault: BodyFault, expected: object
) -> None:
    simulator.fail_with_body(fault, times=1)
    assert ask(simulator, "VCB").json() == expected


def test_one_symbols_columns_can_be_spoiled(simulator: SimulatorServer) -> None:
    good = ask(simulator, "VCB", "FPT").json()
    spoiled = {}
    for fault in ("null_values", "nan", "mismatch", "missing_key", "bad_time"):
        assert control(simulator, {"fault": {"body": fault, "times": 1}}).ok
        spoiled[fault], untouched = ask(simulator, "VCB", "FPT").json()
        assert untouched == good[1]
    assert spoiled["null_values"]["c"] == [*good[0]["c"][:-1], None]
    assert spoiled["null_values"]["v"] == [*good[0]["v"][:-1], None]
    last_close = spoiled["nan"]["c"][-1]
    assert last_close != last_close  # only NaN differs from itself
    assert spoiled["mismatch"]["c"] == good[0]["c"][:-1]
    assert spoiled["mismatch"]["o"] == good[0]["o"]
    assert "v" not in spoiled["missing_key"]
    assert spoiled["bad_time"]["t"] == [*good[0]["t"][:-1], "not-a-time"]
    assert ask(simulator, "VCB", "FPT").json() == good


@pytest.mark.parametrize("fault", ["null_values", "nan", "mismatch", "missing_key", "bad_time"])
def test_an_answer_without_bars_has_nothing_to_spoil(
    simulator: SimulatorServer, fault: str
) -> None:
    simulator.fail_with_body(BodyFault(fault))
    assert ask(simulator, "NOPE").json() == []
    assert ask(simulator, "VCB", to=0).json()[0]["c"] == []


def test_a_connection_can_end_before_the_answer_or_within(simulator: SimulatorServer) -> None:
    simulator.fail_with_body(BodyFault.RESET, times=1)
    with pytest.raises(requests.ConnectionError):
        ask(simulator, "VCB")
    simulator.fail_with_body(BodyFault.TRUNCATED, times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        ask(simulator, "VCB")
    assert ask(simulator, "VCB").status_code == 200


def test_a_body_can_come_in_drops(simulator: SimulatorServer) -> None:
    whole = ask(simulator, "VCB").content
    simulator.fail_with_body(BodyFault.SLOW_BODY, times=1)
    order = {"timeFrame": "ONE_DAY", "symbols": ["VCB"], "to": ENDLESS, "countBack": 3}
    began = time.monotonic()
    with requests.post(
        f"{simulator.url}chart/OHLCChart/gap-chart",
        json=order,
        headers=BROWSER,
        stream=True,
        timeout=10,
    ) as answer:
        assert int(answer.headers["Content-Length"]) == len(whole)
        assert answer.raw.read(2 * (len(whole) // 60)) == whole[: 2 * (len(whole) // 60)]
    assert 0.9 < time.monotonic() - began < 5


# --- Control and statistics -------------------------------------------------------------------


def test_a_dividend_and_an_update_can_be_ordered_over_http(
    simulator: SimulatorServer, clock: Clock
) -> None:
    before = ask(simulator, "VCB").json()[0]
    order = {"adjust": {"VCB": 0.5}, "set": {"VCB": {"close": 64_300, "volume": 16_667_800}}}
    assert control(simulator, order).ok
    clock.at("2025-08-15T14:00:00")
    after = ask(simulator, "VCB").json()[0]
    assert (after["c"][-1], after["v"][-1]) == (64_300, 16_667_800)
    assert after["c"][0] == round(before["c"][0] * 0.5, 2)
    assert control(simulator, {"set": {"VCB": None}, "adjust": {"VCB": 1}}).ok
    assert ask(simulator, "VCB").json()[0]["c"][-1] == daily(market(clock), "VCB", 1)[0].close


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ([], "the order"),
        ({"fautl": None}, "fautl"),
        ({"fault": {"body": "nonsense"}}, "null_values"),
        ({"fault": {"status": 200}}, "fault.status"),
        ({"fault": {"status": 500, "times": -2}}, "fault.times"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"rpm": "many"}, "rpm"),
        ({"drop": "VCB"}, "drop"),
        ({"adjust": {"NOPE": 0.9}}, "NOPE"),
        ({"adjust": {"VCB": 0}}, "VCB"),
        ({"set": {"NOPE": {"close": 1}}}, "NOPE"),
        ({"set": {"VCB": {"price": 1}}}, "price"),
        ({"set": {"VCB": {"close": "1"}}}, "close"),
    ],
)
def test_an_order_that_can_not_be_obeyed_is_refused_by_name(
    simulator: SimulatorServer, order: object, named: str
) -> None:
    answer = control(simulator, order)
    assert answer.status_code == 400
    assert named in answer.json()["message"]


def test_statistics_are_served(simulator: SimulatorServer) -> None:
    sent = len(ask(simulator, "VCB", "FPT", "NOPE").content)
    stats = requests.get(f"{simulator.url[:-4]}_stats", timeout=10).json()
    assert stats == {
        "requests": 1,
        "symbols_asked": 3,
        "bars_sent": 6,
        "bytes_sent": sent,
        "peak_requests_per_minute": 1,
        "clock": "2025-08-15T10:00:00+07:00",
        "symbols": 287,
    }
    assert control(simulator, {"reset_stats": True}).ok
    assert "requests" not in simulator.stats()


# --- Life -------------------------------------------------------------------------------------


def test_a_stopped_simulator_answers_nobody_and_comes_back_on_its_port(clock: Clock) -> None:
    simulator = SimulatorServer(market(clock))
    with pytest.raises(SimulationError, match="start"):
        simulator.url  # noqa: B018 - the property is what raises
    simulator.start()
    url = simulator.url
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=10) as idle:
        idle.sendall(b"GET /_stats HTTP/1.1\r\n\r\n")
        assert idle.recv(4_096).startswith(b"HTTP/1.1 200")
        simulator.stop()
        while idle.recv(4_096):
            pass  # the rest of the answer, then the end: a TimeoutError if there is none
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url[:-4]}_stats", timeout=10)
    with simulator:
        assert simulator.url == url
        assert ask(simulator, "VCB").ok


def test_a_busy_port_is_named(simulator: SimulatorServer, clock: Clock) -> None:
    with pytest.raises(SimulationError, match=f"port {simulator.port}"):
        SimulatorServer(market(clock), port=simulator.port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "example.com", "192.0.2.1"])
def test_only_loopback_is_served(clock: Clock, host: str) -> None:
    with pytest.raises(SimulationError, match="loopback"):
        SimulatorServer(market(clock), host=host)


def test_many_clients_at_once_get_the_same_answer(simulator: SimulatorServer) -> None:
    symbols = UNIVERSE.symbols[:40]
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(simulator, *symbols).content))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert simulator.counters["symbols_asked"] == 320


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_runs_by_itself_without_settings_and_leaves_on_a_signal(number: signal.Signals) -> None:
    arguments = ["--port", "0", "--speed", "20", "--seed", "3", "--history-start", "2025-01-01"]
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        cwd=Path(__file__).parents[2],
        env=clean(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        stats = requests.get(f"{url[:-4]}_stats", timeout=10).json()
        assert stats["symbols"] == 287
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
        assert (process.returncode, output, errors) == (0, "", "")
    finally:
        process.kill()
        process.wait()


def test_by_itself_it_says_in_a_line_why_it_does_not_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "simulator", "--port", port],
            cwd=Path(__file__).parents[2],
            env=clean(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"simulator: port {port} on 127.0.0.1")
    assert done.stderr.count("\n") == 1
