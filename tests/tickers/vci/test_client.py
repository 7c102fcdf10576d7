"""The client on the wire: what it sends, what it asks again, what it counts."""

import datetime as dt
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import requests
import responses

from tickers.bar import Bar
from tickers.vci.answer import Answer
from tickers.vci.client import MOST_BARS, VciClient, source_name
from tickers.vci.errors import (
    HtmlError,
    NotJsonError,
    RefusedError,
    StatusError,
    StoppedError,
    UnreachableError,
    UpstreamError,
    UpstreamTimeoutError,
)
from tickers.vci.fetch import BatchResult, Failure
from tickers.vci.request_budget import RequestBudget
from tickers.vci.upstream import USER_AGENTS, Retries

BASE = "http://127.0.0.1:9/api"
URL = f"{BASE}/chart/OHLCChart/gap-chart"
TO = dt.datetime(2025, 8, 15, 10, tzinfo=dt.UTC)
DAY = 1_755_216_000  # 2025-08-15


@pytest.fixture
def wire() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        yield wire


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def client(clean_server: redis.Redis, stop: threading.Event) -> Iterator[Callable[..., VciClient]]:
    made = []

    def make(**options: Any) -> VciClient:
        budget = RequestBudget(clean_server, limit=6_000, window=0.6)
        options = {"base_url": BASE, "batch_size": 50, "backoff": 0.0, **options}
        made.append(VciClient(budget=budget, stop=stop, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def item(symbol: str, times: list[int] | None = None) -> dict[str, object]:
    times = times or [DAY]
    count = len(times)
    prices = {key: [100.0 + index for index in range(count)] for key in "ohlc"}
    return {"symbol": symbol, "t": [str(time) for time in times], **prices, "v": [1] * count}


def ask(client: VciClient, *symbols: str) -> Answer[Bar]:
    return client.history(symbols or ["VCB"], interval="1D", count_back=5, to=TO)


class TestOrders:
    @pytest.mark.parametrize("base", [BASE, f"{BASE}/"])
    def test_a_history_is_one_post(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient], base: str
    ) -> None:
        wire.post(URL, json=[item("VCB"), item("FPT")])
        answer = client(base_url=base).history(
            ["VCB", "FPT", "VCB"], interval="1D", count_back=5, to=TO
        )
        assert answer.series["FPT"] == [Bar("FPT", dt.date(2025, 8, 15), 100, 100, 100, 100, 1)]
        (call,) = wire.calls
        assert json.loads(call.request.body or "") == {
            "timeFrame": "ONE_DAY",
            "symbols": ["VCB", "FPT"],
            "to": 1_755_252_000,
            "countBack": 5,
        }

    def test_symbols_are_spelt_as_the_upstream_spells_them(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[item("HNXIndex"), item("VCB")])
        one = client(spellings={"HNXINDEX": "HNXIndex"})
        (answer,) = one.fetch(["HNXINDEX", "VCB"], count_back=5, to=TO)
        assert isinstance(answer, Answer)
        assert sorted(answer.series) == ["HNXINDEX", "VCB"]
        assert answer.missing == frozenset()
        order = json.loads(wire.calls[0].request.body or "")
        assert order["symbols"] == ["HNXIndex", "VCB"]

    def test_an_indexs_close_is_read_as_rounded_and_a_shares_isnt(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[{**item(symbol), "c": [100.0004]} for symbol in ("VNINDEX", "VCB")])
        answer = ask(client(indices={"VNINDEX"}), "VNINDEX", "VCB")
        assert [bar.high for bar in answer.series["VNINDEX"]] == [100.0004]
        assert "close must lie between low and high" in answer.errors["VCB"]

    @pytest.mark.parametrize(
        ("interval", "frame", "count_back"),
        [
            ("1m", "ONE_MINUTE", 2),
            ("5m", "ONE_MINUTE", 15),
            ("15m", "ONE_MINUTE", 45),
            ("30m", "ONE_MINUTE", 90),
            ("1H", "ONE_HOUR", 2),
            ("1W", "ONE_DAY", 15),
            ("1M", "ONE_DAY", 69),
        ],
    )
    def test_enough_bars_are_asked_for_to_fold(
        self,
        wire: responses.RequestsMock,
        client: Callable[..., VciClient],
        interval: Any,
        frame: str,
        count_back: int,
    ) -> None:
        wire.post(URL, json=[])
        client().history(["VCB"], interval=interval, count_back=2, to=TO)
        order = json.loads(wire.calls[0].request.body or "")
        assert (order["timeFrame"], order["countBack"]) == (frame, count_back)

    def test_points_that_may_lack_their_first_bars_are_cut_off(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[item("VCB", [DAY + 60 * minute for minute in range(3, 18)])])
        answer = client().history(["VCB"], interval="5m", count_back=2, to=TO)
        assert [point.time.minute for point in answer.series["VCB"]] == [10, 15]

    def test_the_request_looks_like_a_browsers(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[])
        ask(client())
        headers = wire.calls[0].request.headers
        assert headers["Referer"] == "https://trading.vietcap.com.vn/"
        assert headers["Origin"] == "https://trading.vietcap.com.vn"
        assert headers["Accept-Encoding"] == "gzip"
        assert headers["Content-Type"] == "application/json"
        assert headers["User-Agent"].startswith("Mozilla/5.0 ")
        assert not [name for name in headers if name.lower().startswith("sec-ch-")]

    def test_user_agents_rotate(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[])
        one = client()
        for _ in USER_AGENTS:
            ask(one)
        assert {call.request.headers["User-Agent"] for call in wire.calls} == set(USER_AGENTS)

    @pytest.mark.parametrize(
        ("symbols", "count_back", "to"),
        [([], 5, TO), (["VCB"], 0, TO), (["VCB"], 5, dt.datetime(2025, 8, 15))],
    )
    def test_an_order_that_makes_no_sense_isnt_sent(
        self,
        wire: responses.RequestsMock,
        client: Callable[..., VciClient],
        symbols: list[str],
        count_back: int,
        to: dt.datetime,
    ) -> None:
        with pytest.raises(ValueError, match="history needs"):
            client().history(symbols, interval="1D", count_back=count_back, to=to)
        assert not wire.calls

    def test_a_session_of_the_callers_own_is_used(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[])
        session = requests.Session()
        session.headers["X-Own"] = "yes"
        ask(client(session=session))
        assert wire.calls[0].request.headers["X-Own"] == "yes"


class TestRetries:
    @pytest.mark.parametrize("status", [403, 429, 500, 502, 503, 504])
    def test_a_passing_trouble_is_asked_again(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient], status: int
    ) -> None:
        wire.post(URL, status=status)
        wire.post(URL, json=[item("VCB")])
        one = client()
        assert list(ask(one).series) == ["VCB"]
        assert (one.counters.requests, one.counters.last_hour()["retries"]) == (2, 1)
        assert one.counters.errors.counts() == {f"status {status}": 1}

    @pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 422, 302, 204])
    def test_any_other_status_isnt(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient], status: int
    ) -> None:
        wire.post(URL, status=status)
        with pytest.raises(StatusError, match=f"the upstream answered {status}") as caught:
            ask(client())
        assert isinstance(caught.value, RefusedError) == (status in (400, 404, 413, 422))
        assert len(wire.calls) == 1

    @pytest.mark.parametrize(
        ("error", "raised"),
        [
            (requests.ConnectionError("reset"), UnreachableError),
            (requests.ConnectTimeout(), UpstreamTimeoutError),
            (requests.ReadTimeout(), UpstreamTimeoutError),
        ],
    )
    def test_network_errors_are_asked_again_until_the_last_attempt(
        self,
        wire: responses.RequestsMock,
        client: Callable[..., VciClient],
        error: Exception,
        raised: type[UpstreamError],
    ) -> None:
        wire.post(URL, body=error)
        one = client(max_attempts=3)
        with pytest.raises(raised):
            ask(one)
        assert len(wire.calls) == 3
        assert one.counters.errors.counts().total() == 3

    def test_each_attempt_takes_from_the_budget(
        self,
        wire: responses.RequestsMock,
        client: Callable[..., VciClient],
        clean_server: redis.Redis,
        stop: threading.Event,
    ) -> None:
        wire.post(URL, status=503)
        budget = RequestBudget(clean_server, limit=600, key_prefix="counted:")
        one = VciClient(
            base_url=BASE, budget=budget, batch_size=50, stop=stop, backoff=0.0, max_attempts=2
        )
        with pytest.raises(StatusError):
            ask(one)
        one.close()
        assert clean_server.llen("counted:upstream_requests") == 2

    def test_retry_after_holds_back_the_next_request_too(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient], stop: threading.Event
    ) -> None:
        wire.post(URL, status=429, headers={"Retry-After": "1"})
        one = client(max_attempts=1)
        with pytest.raises(StatusError) as caught:
            ask(one)
        assert caught.value.retry_after == 1
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(StoppedError):
            ask(one)
        assert len(wire.calls) == 1

    def test_a_stopping_node_doesnt_wait_for_its_next_attempt(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient], stop: threading.Event
    ) -> None:
        def answer(_: object) -> tuple[int, dict[str, str], str]:
            stop.set()
            return 503, {"Retry-After": "100"}, ""

        wire.add_callback(responses.POST, URL, callback=answer)
        with pytest.raises(StoppedError):
            ask(client())
        assert len(wire.calls) == 1

    def test_waits_grow_up_to_a_bound_with_full_jitter(self) -> None:
        retries = Retries(max_attempts=10, backoff=1.0, longest_backoff=30.0)
        for attempt, longest in [(1, 1), (2, 2), (3, 4), (6, 30), (9, 30)]:
            pauses = [retries.pause(attempt) for _ in range(300)]
            assert 0 <= min(pauses) < longest * 0.1
            assert longest * 0.9 < max(pauses) <= longest


class TestOddAnswers:
    @pytest.mark.parametrize(
        ("body", "error"),
        [("<html>Just a moment...</html>", HtmlError), ("[{]", NotJsonError)],
    )
    def test_an_answer_that_is_none_is_raised_and_counted(
        self,
        wire: responses.RequestsMock,
        client: Callable[..., VciClient],
        body: str,
        error: type[UpstreamError],
    ) -> None:
        wire.post(URL, body=body)
        one = client()
        with pytest.raises(error):
            ask(one)
        assert one.counters.errors.counts() == {error.kind: 1}
        assert one.counters.last_hour()["retries"] == 0

    def test_what_is_dropped_is_counted_and_logged_without_the_body(
        self,
        wire: responses.RequestsMock,
        client: Callable[..., VciClient],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        bad = {**item("VCB", [DAY - 86_400, DAY]), "c": [100, None]}
        wrong = {**item("FPT"), "v": []}
        wire.post(URL, json=[bad, wrong, item("TCB")])
        one = client()
        with caplog.at_level(logging.WARNING, logger="tickers"):
            answer = ask(one, "VCB", "FPT", "TCB")
        assert {symbol: len(bars) for symbol, bars in answer.series.items()} == {
            "VCB": 1,
            "TCB": 1,
        }
        assert one.counters.dropped.counts() == {"close is null": 1}
        assert one.counters.errors.counts() == {"wrong symbol": 1}
        assert "close is null (1)" in caplog.text
        assert "column v has 0 values, t has 1 (symbol FPT)" in caplog.text

    def test_nan_in_an_answer_spoils_one_bar(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        body = json.dumps([{**item("VCB", [DAY - 86_400, DAY]), "c": [100, float("nan")]}])
        wire.post(URL, body=body)
        assert len(ask(client()).series["VCB"]) == 1

    def test_left_out_symbols_are_missing(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[item("VCB")])
        assert ask(client(), "VCB", "XXX").missing == {"XXX"}


def came(result: BatchResult) -> list[str]:
    assert isinstance(result, Answer)
    return list(result.series)


class TestPace:
    @pytest.mark.parametrize(("size", "seconds"), [(50, 12), (100, 6), (287, 2)])
    def test_what_the_budget_allows_is_told(
        self, clean_server: redis.Redis, stop: threading.Event, size: int, seconds: float
    ) -> None:
        budget = RequestBudget(clean_server, limit=30)
        one = VciClient(base_url=BASE, budget=budget, batch_size=size, stop=stop)
        symbols = [f"S{number}" for number in range(287)]
        assert one.least_interval(symbols) == pytest.approx(seconds, rel=0.02)
        one.close()

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("https://Trading.vietcap.com.vn/api/", "trading.vietcap.com.vn"),
            ("https://a.test:443/api", "a.test"),
            ("http://127.0.0.1:9200/api/", "127.0.0.1:9200"),
        ],
    )
    def test_an_upstream_is_known_by_its_host(self, url: str, name: str) -> None:
        assert source_name(url) == name

    def test_a_batch_that_has_grown_asks_for_a_bounded_answer(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[])
        one = client(batch_size=2, largest_batch=500)
        one.recall({"size": 500})
        symbols = [f"S{number}" for number in range(500)]
        next(one.fetch(symbols, count_back=1_000, to=TO))
        order = json.loads(wire.calls[0].request.body or "")
        assert len(order["symbols"]) == MOST_BARS // 1_000


class TestFetching:
    def test_it_asks_lazily_batch_by_batch_and_goes_on_after_a_failure(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient]
    ) -> None:
        wire.post(URL, json=[item("AAA"), item("BBB")])
        wire.post(URL, body="<html>")
        wire.post(URL, json=[item("EEE")])
        one = client(batch_size=2)
        symbols = ["AAA", "BBB", "CCC", "DDD", "EEE"]
        assert one.batches(symbols) == [["AAA", "BBB"], ["CCC", "DDD"], ["EEE"]]
        outcomes = one.fetch(symbols, count_back=5, to=TO)
        assert not wire.calls
        assert came(next(outcomes)) == ["AAA", "BBB"]
        assert len(wire.calls) == 1
        failure = next(outcomes)
        assert isinstance(failure, Failure)
        assert failure.symbols == ("CCC", "DDD")
        assert isinstance(failure.error, UpstreamError)
        assert came(next(outcomes)) == ["EEE"]
        assert next(outcomes, None) is None

    def test_it_ends_quietly_when_the_node_stops(
        self, wire: responses.RequestsMock, client: Callable[..., VciClient], stop: threading.Event
    ) -> None:
        wire.post(URL, json=[item("AAA")])
        outcomes = client(batch_size=1).fetch(["AAA", "BBB"], count_back=5, to=TO)
        next(outcomes)
        stop.set()
        assert list(outcomes) == []
        assert len(wire.calls) == 1
