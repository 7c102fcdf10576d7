"""POST /gossip, as a peer with the token meets it."""

import datetime as dt
import io
import json
import sys
from typing import Any

import pytest
from django.core.management import call_command
from django.test import RequestFactory
from django.views.debug import ExceptionReporter
from hypothesis import given

from gossip.tokens import bearer as token_door
from gossip.tokens import failures, rotation, secondary_use
from gossip.wire import MAX_LIST
from tests.support.bars import let_time_pass, trading_days_before
from tests.support.doors import (
    ANCHORS,
    AWAY,
    CLIENT,
    HOME,
    TODAY,
    USUAL_VOLUME,
    YESTERDAY,
    a_bar,
    bodies,
    cache_away,
    complete_cycle,
    database_away,
    fill_market,
    footprint,
    forget,
    many_bodies,
    merge_core,
    satisfies_the_rules,
    send,
    send_public,
    send_trusted,
    served,
    store_away,
    wire,
)
from tickers import wiring
from tickers.bar import parse
from tickers.store.store import Store
from tickers.verdict import Authority

pytestmark = pytest.mark.django_db


def told(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


class TestToken:
    @pytest.mark.parametrize("name", ["PRIMARY_TOKEN", "SECONDARY_TOKEN"])
    def test_either_is_accepted(self, name: str, market: Store, settings: Any) -> None:
        answer = send_trusted(wire(), token=getattr(settings, name))
        assert answer.status_code == 200
        assert served()["time"].startswith(str(TODAY))

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": ""},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer wrong-token"},
            {"Authorization": "Bearer tests-primary-token-and-more"},
            {"Authorization": "Bearer TESTS-PRIMARY-TOKEN"},
            {"Authorization": "Basic tests-primary-token"},
            {"Authorization": "tests-primary-token"},
            {"Authorization": "Bearer t\xebsts-primary-token"},
            {"Authorization": "Bearer \ud800"},
            {"Authorization": f"Bearer {'tests-primary-token' * 5_000}"},
            {"X-Authorization": "Bearer tests-primary-token"},
        ],
    )
    def test_without_one_nothing_is_read(
        self, headers: dict[str, str], empty_market: Store
    ) -> None:
        before = footprint()
        for body in (wire(), b"{", b" " * 1_000_001):
            answer = send("/gossip", body, headers=headers)
            assert told(answer) == (401, "Invalid or missing token")
            assert answer["WWW-Authenticate"].startswith("Bearer")
        assert footprint() == before

    def test_comes_before_the_method(self, market: Store) -> None:
        assert CLIENT.get("/gossip").status_code == 401

    def test_the_door_takes_posts_only(self, market: Store, settings: Any) -> None:
        headers = {"Authorization": f"Bearer {settings.PRIMARY_TOKEN}"}
        answer = CLIENT.get("/gossip", headers=headers)
        assert told(answer) == (405, 'Method "GET" not allowed.')
        assert "POST" in answer["Allow"]


class TestFailures:
    """Ten of one address a minute are answered 401, by TOKEN_FAILURE_RATE; then it is 429."""

    @pytest.fixture(autouse=True)
    def rate(self, settings: Any) -> None:
        # A day's window doesn't end within a test.
        settings.TOKEN_FAILURE_RATE = "3/1d"

    def fail(self, times: int = 1, **options: Any) -> Any:
        for _ in range(times):
            answer = send_trusted(wire(), token="wrong-token", **options)
        return answer

    def test_too_many_from_one_address_are_told_when_to_come_back(self, market: Store) -> None:
        assert [self.fail().status_code for _ in range(5)] == [401, 401, 401, 429, 429]
        answer = self.fail()
        assert 1 <= int(answer["Retry-After"]) <= 86_400
        assert "WWW-Authenticate" not in answer
        assert self.fail(address=AWAY).status_code == 401

    def test_who_has_a_token_is_never_locked_out(self, market: Store, settings: Any) -> None:
        assert self.fail(5).status_code == 429
        for token in (settings.PRIMARY_TOKEN, settings.SECONDARY_TOKEN):
            assert send_trusted(wire(), token=token).status_code == 200
        assert self.fail().status_code == 429

    def test_what_succeeds_is_not_counted(self, market: Store) -> None:
        for _ in range(10):
            assert send_trusted(wire()).status_code == 200
        assert send_trusted(b"{").status_code == 400
        assert self.fail().status_code == 401
        assert failures.in_the_last_hour() == 1

    def test_a_missing_token_counts_like_a_wrong_one(self, market: Store) -> None:
        answers = [CLIENT.get("/gossip", REMOTE_ADDR=HOME).status_code for _ in range(4)]
        assert answers == [401, 401, 401, 429]

    def test_an_ipv6_network_is_one_sender(self, market: Store) -> None:
        statuses = [self.fail(address=f"2001:db8:1:2::{n}").status_code for n in range(4)]
        assert statuses == [401, 401, 401, 429]
        assert self.fail(address="2001:db8:1:3::1").status_code == 401

    def test_only_a_trusted_proxy_says_for_whom_it_sends(
        self, market: Store, settings: Any
    ) -> None:
        spoofed = [self.fail(headers=self.forwarded(f"192.0.2.{n}")).status_code for n in range(4)]
        assert spoofed == [401, 401, 401, 429]
        settings.TRUSTED_PROXIES = [AWAY]
        through_proxy = [
            self.fail(address=AWAY, headers=self.forwarded(f"192.0.2.{n}")).status_code
            for n in range(4)
        ]
        assert through_proxy == [401] * 4

    def test_senders_whose_address_is_unknown_are_limited_together(
        self, market: Store, settings: Any
    ) -> None:
        """401, not 400: a peer that asks must learn that its token is wrong."""
        settings.TRUSTED_PROXIES = [AWAY]
        assert [self.fail(address=AWAY).status_code for _ in range(4)] == [401, 401, 401, 429]
        assert send_trusted(wire(), address=AWAY).status_code == 200

    def forwarded(self, client: str) -> dict[str, str]:
        return {"Authorization": "Bearer wrong-token", "X-Forwarded-For": client}

    def test_without_the_cache_a_wrong_token_learns_nothing_and_a_valid_one_needs_none(
        self, market: Store, settings: Any
    ) -> None:
        with cache_away(settings):
            answer = self.fail()
            assert answer.status_code == 503
            assert int(answer["Retry-After"]) > 0
            assert send_trusted(wire(volume=78)).status_code == 200
        assert served()["volume"] == 78

    def test_a_flood_writes_few_lines_that_name_the_address_and_no_token(
        self, market: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.fail(20)
        lines = [r.getMessage() for r in caplog.records if r.name == "gossip.tokens.failures"]
        assert lines == [f"no valid token from {HOME}", f"over 3/1d failures of {HOME}: 429"]
        assert "wrong-token" not in caplog.text

    def test_health_counts_them_and_stays_healthy_about_it(self, market: Store) -> None:
        def health() -> dict[str, Any]:
            return dict(CLIENT.get("/health").json())

        before = health()
        assert before["token_failures_last_hour"] == 0
        self.fail(5)
        self.fail(address=AWAY)
        after = health()
        assert after["token_failures_last_hour"] == 6
        assert after["problems"] == before["problems"]


class TestSecondaryUse:
    """Which token peers send with decides when the old one may go."""

    @pytest.fixture(autouse=True)
    def fresh(self, market: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(secondary_use, "_noted_at", {})

    def test_bars_that_came_with_it_are_noted(self, market: Store, settings: Any) -> None:
        assert send_trusted(wire()).status_code == 200
        secondary = settings.SECONDARY_TOKEN
        assert secondary_use.seconds_since(market, token=secondary) is None
        assert send_trusted(wire(), token=secondary).status_code == 200
        since = secondary_use.seconds_since(market, token=secondary)
        assert since is not None
        assert 0 <= since < 60

    def test_a_request_without_a_bar_isnt(self, market: Store, settings: Any) -> None:
        answer = send_trusted(rotation.PROBE, token=settings.SECONDARY_TOKEN)
        assert answer.status_code == 400
        assert secondary_use.seconds_since(market, token=settings.SECONDARY_TOKEN) is None

    def test_what_came_with_the_one_before_it_isnt_its_own(
        self, market: Store, settings: Any
    ) -> None:
        """Step 3 of a rotation, seconds after the last bar that came with the old token."""
        old, new = settings.SECONDARY_TOKEN, "the-new-secondary-of-step-3"
        assert send_trusted(wire(), token=old).status_code == 200
        settings.SECONDARY_TOKEN = new
        output = io.StringIO()
        call_command("rotate_token", stdout=output)
        assert "No peer has sent bars with the secondary token for a day" in output.getvalue()
        assert send_trusted(wire(), token=new).status_code == 200
        output = io.StringIO()
        call_command("rotate_token", stdout=output)
        assert "it isn't time for step 3" in output.getvalue()
        assert not [key for key in market.client.keys("*") if new.encode() in key]


class TestErrorReport:
    """Django's own report of a failure, with the request and the variables of every frame."""

    def test_shows_no_token(self, settings: Any) -> None:
        header = f"Bearer {settings.SECONDARY_TOKEN}"
        request = RequestFactory().post("/gossip", headers={"Authorization": header})
        broken: Any = (settings.PRIMARY_TOKEN, settings.SECONDARY_TOKEN, None)
        try:
            token_door.is_valid(header, broken)
        except AttributeError:
            reporter = ExceptionReporter(request, *sys.exc_info())
        report = reporter.get_traceback_data()
        (frame,) = [frame for frame in report["frames"] if frame["function"] == "is_valid"]
        shown = str([frame["vars"], report["request_meta"], report["filtered_POST_items"]])
        assert "HTTP_AUTHORIZATION" in shown
        assert "tests-primary-token" not in shown
        assert "tests-secondary-token" not in shown
        assert "tests-primary-token" not in str(report["settings"])


class TestTaken:
    def test_a_new_bar_is_served_and_the_verdict_told(self, market: Store) -> None:
        answer = send_trusted(wire(close=64_300, high=65_000))
        assert (answer.status_code, answer.json()) == (200, {"symbol": "VCB", "verdict": "added"})
        assert answer["Content-Type"] == "application/json"
        assert served() == wire(close=64_300, high=65_000)
        assert market.newest(["VCB"])["VCB"].authority is Authority.INTERNAL

    def test_a_bare_date_is_taken(self, market: Store) -> None:
        assert send_trusted({**wire(), "time": str(TODAY)}).status_code == 200
        assert served()["time"] == f"{TODAY}T00:00:00Z"

    def test_a_charset_may_be_named(self, market: Store) -> None:
        answer = send_trusted(wire(), content_type="application/json; charset=utf-8")
        assert answer.status_code == 200

    def test_late_and_repeated_bars_change_nothing(self, market: Store) -> None:
        for volume, verdict in ((5, "added"), (5, "unchanged"), (4, "kept"), (6, "replaced")):
            answer = send_trusted(wire(volume=volume))
            assert (answer.status_code, answer.json()["verdict"]) == (200, verdict)
        assert served()["volume"] == 6

    def test_prices_are_not_judged(self, market: Store) -> None:
        """Trusted sources are believed: after a split a price may halve."""
        assert send_trusted(wire(price=20_000)).status_code == 200
        assert served()["close"] == 20_000

    def test_an_open_outside_the_days_range_is_taken(self, market: Store) -> None:
        assert send_trusted(wire(open=70_000)).status_code == 200
        assert served()["open"] == 70_000

    def test_a_symbol_that_isnt_listed_is_taken(self, market: Store) -> None:
        assert send_trusted(wire("NEW1")).json()["verdict"] == "added"
        assert served("NEW1")["close"] == 10_000

    def test_an_overlay_ends_even_if_nothing_changes(self, market: Store) -> None:
        merge_core(a_bar())
        assert send_public(wire(price=65_000)).json()["verdict"] == "laid"
        assert served()["close"] == 65_000
        assert send_trusted(wire()).json()["verdict"] == "unchanged"
        assert served()["close"] == ANCHORS["VCB"]

    def test_nobody_gets_a_record(self, market: Store) -> None:
        send_trusted([wire(), wire(price=1e9), wire(close=-1)])
        *_, records = footprint()
        assert records == []

    def test_the_database_isnt_asked(self, market: Store, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(0):
            assert send_trusted(wire()).status_code == 200

    def test_peers_are_not_limited(self, market: Store) -> None:
        assert {send_trusted(wire(volume=n)).status_code for n in range(60)} == {200}


class TestTrustWindow:
    def test_opens_with_the_first_bar(self, empty_market: Store) -> None:
        assert send_public(wire()).status_code == 503
        assert send_trusted(wire()).status_code == 200
        assert send_public(wire()).status_code == 200

    def test_is_refreshed_by_a_bar_that_changes_nothing(self, empty_market: Store) -> None:
        empty_market.merge([a_bar()], Authority.FOLLOWED, age=301)
        assert send_public(wire()).status_code == 503
        assert send_trusted(wire()).json()["verdict"] == "unchanged"
        assert send_public(wire()).status_code == 200

    @pytest.mark.parametrize("body", [wire(day=TODAY.replace(day=16)), wire(low=0), b"{"])
    def test_is_not_refreshed_without_a_valid_bar(self, body: object, empty_market: Store) -> None:
        send_trusted(body)
        assert wiring.store().state().age is None


class TestList:
    def test_each_bar_gets_its_answer_in_order(self, market: Store) -> None:
        answer = send_trusted(
            [wire(), wire("PVS", volume=-1), wire("ACV"), wire("ACV"), {"symbol": "VCB"}, 7]
        )
        assert answer.status_code == 200
        *bars, timeless, number = answer.json()["results"]
        assert bars == [
            {"symbol": "VCB", "verdict": "added"},
            {
                "symbol": None,
                "verdict": "refused",
                "code": "invalid_bar",
                "detail": "volume must be from 0 to 2^53 - 1.",
            },
            {"symbol": "ACV", "verdict": "added"},
            {"symbol": "ACV", "verdict": "unchanged"},
        ]
        assert timeless["detail"].startswith("time must be")
        assert number["detail"] == "a bar must be a JSON object."
        assert served("PVS")["time"].startswith(str(YESTERDAY))

    def test_a_bar_before_the_history_spoils_only_itself(self, market: Store) -> None:
        before = list(market.series(["VCB"]))
        old = wire(day=dt.date(1970, 1, 1))
        answer = send_trusted([old, wire("ACV")])
        assert answer.status_code == 200
        assert answer.json()["results"] == [
            {
                "symbol": "VCB",
                "verdict": "refused",
                "code": "before_history",
                "detail": "time is before the node's first day",
            },
            {"symbol": "ACV", "verdict": "added"},
        ]
        assert list(market.series(["VCB"])) == before

    def test_of_refused_bars_only_is_refused(self, market: Store) -> None:
        before = footprint()
        assert told(send_trusted(wire(day=dt.date(2023, 12, 31))))[0] == 422
        assert told(send_trusted([wire(low=0), 7]))[0] == 400
        future = wire(day=TODAY.replace(day=16))
        assert told(send_trusted([future, future]))[0] == 422
        assert footprint() == before

    def test_of_a_thousand_is_taken(self, market: Store) -> None:
        bars = [wire(f"S{n}") for n in range(MAX_LIST)]
        answer = send_trusted(bars)
        assert answer.status_code == 200
        assert {result["verdict"] for result in answer.json()["results"]} == {"added"}
        assert len(market.symbols()) == MAX_LIST + len(ANCHORS)


class TestWhatIsntBelieved:
    def test_a_lie_that_had_to_go_is_refused_when_it_comes_again(
        self, market: Store, clean_server: Any
    ) -> None:
        merge_core(a_bar())
        lie = wire(price=70_000, volume=USUAL_VOLUME + 1)
        assert send_trusted(lie).json()["verdict"] == "replaced"
        assert served()["close"] == 70_000
        let_time_pass(clean_server, seconds=61)
        complete_cycle()
        assert served()["close"] == ANCHORS["VCB"]
        before = footprint()
        answer = send_trusted(lie)
        assert told(answer) == (
            422,
            "the node's own source says otherwise of that symbol and day",
        )
        assert answer.json()["code"] == "disputed"
        assert footprint() == before

    def test_what_cant_be_is_refused_and_counted_of_its_sender(
        self, market: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = footprint()
        answer = send_trusted(wire(price=9e11))
        assert answer.status_code == 422
        assert answer.json()["code"] == "impossible_price"
        answer = send_trusted([wire(), wire("PVS", price=1), wire("ACV", high=9e11)])
        assert answer.status_code == 200
        assert [result.get("code") for result in answer.json()["results"]] == [
            None,
            "impossible_price",
            "impossible_price",
        ]
        assert footprint() != before  # VCB's
        assert market.counted_against() == {HOME: {"impossible": 3}}
        assert caplog.messages.count(f"refused of peer {HOME}: impossible_price") == 2

    def test_a_volume_that_cant_be_is_refused(self, market: Store) -> None:
        merge_core(*(a_bar(day=day) for day in trading_days_before(TODAY, 20)))
        answer = send_trusted(wire(volume=50 * USUAL_VOLUME + 1))
        assert (answer.status_code, answer.json()["code"]) == (422, "impossible_volume")
        assert send_trusted(wire(volume=50 * USUAL_VOLUME)).status_code == 200

    def test_a_peer_behind_a_proxy_that_names_nobody_is_heard(
        self, market: Store, settings: Any
    ) -> None:
        settings.TRUSTED_PROXIES = [AWAY]
        assert send_trusted(wire(price=9e11), address=AWAY).status_code == 422
        assert market.counted_against() == {"unknown": {"impossible": 1}}


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (b"", "The body is empty"),
            (b"{", "The body isn't JSON."),
            (b"[]", "The list is empty"),
            (b"7", "The body must be one bar or a list of bars."),
            (wire(symbol="V/B"), "symbol must be 1 to 16 letters and digits."),
            (wire(symbol=None), "symbol must be 1 to 16 letters and digits."),
            (wire(time="15.08.2025"), "time must be an RFC 3339 time"),
            (wire(time=1755216000), "time must be a string"),
            (wire(open="64300"), "open must be a number."),
            (wire(high=64_000), "low must not be above high."),
            (wire(close=99_999), "close must lie between low and high."),
            (wire(price=0), "open must be a price above 0"),
            (wire(volume=1.5), "volume must be a whole number."),
            (wire(volume=2**53), "volume must be from 0 to 2^53 - 1."),
        ],
    )
    def test_a_body_that_is_no_gossip(self, body: object, expected: str, market: Store) -> None:
        before = footprint()
        status, detail = told(send_trusted(body))
        assert status == 400
        assert detail.startswith(expected)
        assert footprint() == before

    def test_a_bar_of_a_day_to_come(self, market: Store) -> None:
        before = footprint()
        answer = send_trusted(wire(day=TODAY.replace(day=16)))
        assert told(answer) == (422, "time is after the node's current day")
        assert footprint() == before

    def test_a_symbol_too_many(self, empty_market: Store, settings: Any) -> None:
        settings.MAX_SYMBOLS = len(ANCHORS)
        forget()
        fill_market()
        before = footprint()
        answer = send_trusted(wire("NEW1"))
        assert told(answer) == (422, "the node keeps as many symbols as it may")
        assert footprint() == before
        assert send_trusted(wire()).status_code == 200

    def test_a_body_of_more_than_a_megabyte(self, market: Store) -> None:
        before = footprint()
        bar = json.dumps(wire()).encode()
        assert told(send_trusted(bar.ljust(1_000_001)))[0] == 413
        assert footprint() == before
        assert send_trusted(bar.ljust(1_000_000)).status_code == 200

    @pytest.mark.parametrize(
        ("length", "status"),
        [("abc", 400), ("-1", 400), ("1_0", 400), ("\u0661", 400), ("9" * 5_000, 413)],
    )
    def test_a_length_that_is_none(self, length: str, status: int, market: Store) -> None:
        before = footprint()
        assert told(send_trusted(wire(), CONTENT_LENGTH=length))[0] == status
        assert footprint() == before

    def test_a_list_of_more_than_a_thousand_bars(self, market: Store) -> None:
        before = footprint()
        answer = send_trusted([wire()] * 1_001)
        assert told(answer) == (413, "A list has at most 1000 bars; send several.")
        assert footprint() == before

    @pytest.mark.parametrize(
        "content_type",
        ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json", ""],
    )
    def test_another_content_type(self, content_type: str, market: Store) -> None:
        before = footprint()
        answer = send_trusted(wire(), content_type=content_type)
        assert told(answer) == (415, "Send Content-Type: application/json")
        assert footprint() == before

    def test_a_compressed_body(self, market: Store, settings: Any) -> None:
        before = footprint()
        headers = {
            "Authorization": f"Bearer {settings.PRIMARY_TOKEN}",
            "Content-Encoding": "gzip",
        }
        answer = send_trusted(wire(), headers=headers)
        assert told(answer) == (415, "Send the body without compression")
        assert footprint() == before

    def test_a_body_that_breaks_off(self, market: Store) -> None:
        class Gone(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise ConnectionResetError("the peer is gone")

        broken_off: dict[str, Any] = {"wsgi.input": Gone()}
        before = footprint()
        answer = send_trusted(wire(), **broken_off)
        assert told(answer) == (408, "The body ended early; send it again.")
        assert footprint() == before


class TestAway:
    def test_without_the_store_it_asks_to_try_again(self, market: Store, settings: Any) -> None:
        before = footprint()
        with store_away(settings):
            answer = send_trusted(wire())
            assert told(answer)[0] == 503
            assert int(answer["Retry-After"]) > 0
        assert footprint() == before
        assert send_trusted(wire()).status_code == 200

    def test_the_database_and_the_cache_arent_needed(self, market: Store, settings: Any) -> None:
        with database_away(), cache_away(settings):
            assert send_trusted(wire(volume=77)).status_code == 200
        assert served()["volume"] == 77


@many_bodies
@given(body=bodies)
def test_whatever_is_sent_nothing_breaks_and_only_bars_are_stored(
    body: object, market: Store
) -> None:
    assert 200 <= send_trusted(body).status_code < 500
    for _symbol, rows in wiring.store().series(wiring.store().symbols()):
        for day, encoded in rows:
            bar = parse(json.loads(encoded))
            assert satisfies_the_rules(bar)
            assert bar.epoch == day
            assert bar.day <= TODAY


def test_a_bar_of_a_day_on_which_the_exchanges_were_closed_is_of_no_use(market: Store) -> None:
    before = list(market.series(["VCB"]))
    answer = send_trusted(wire(day=dt.date(2025, 8, 10), close=640_000, high=640_000))
    assert answer.status_code == 422
    assert answer.json()["code"] == "closed_day"
    assert "closed" in answer.json()["detail"]
    assert list(market.series(["VCB"])) == before
