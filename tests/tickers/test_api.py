"""GET /tickers, /tickers/changes and /tickers/group, as their clients meet them."""

import copy
import datetime as dt
import gzip
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import settings as node_settings
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.bars import (
    FRIDAY,
    MONDAY,
    THURSDAY,
    TUESDAY,
    WEDNESDAY,
    a_store,
    bar,
    lead,
)
from tests.support.doors import CLIENT, database_away, forget, store_away, store_lost
from tickers import wiring
from tickers.bar import Bar, epoch_of
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DAYS = [MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY]
ACTOR = "203.0.113.9"

Market = dict[str, dict[str, Any]]


@pytest.fixture
def node(clean_server: redis.Redis) -> Iterator[Store]:
    """The node's store, empty."""
    forget()
    yield wiring.store()
    forget()


@pytest.fixture
def fence(node: Store) -> str:
    return lead(node)


@pytest.fixture
def market(node: Store, fence: str) -> Store:
    """A week of VCB, its last two days of PVS, and an index."""
    node.merge([bar(day=day) for day in DAYS], Authority.CORE, fence=fence)
    node.merge([bar("PVS", day, close=35_000) for day in DAYS[3:]], Authority.CORE, fence=fence)
    index = Bar("VNINDEX", FRIDAY, 1640.25, 1660, 1639.5, 1659.7, 2**53 - 1)
    node.merge([index], Authority.CORE, fence=fence)
    return node


def get(path: str = "/tickers", query: Any = None, **headers: str) -> Any:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return CLIENT.get(path, query or {}, headers=headers)


def read(**query: Any) -> dict[str, list[dict[str, Any]]]:
    answer = get(query=query)
    assert answer.status_code == 200
    return dict(answer.json())


def days_of(**query: Any) -> dict[str, list[dt.date]]:
    return {
        symbol: [dt.date.fromisoformat(entry["time"][:10]) for entry in bars]
        for symbol, bars in read(**query).items()
    }


def lay(store: Store, *bars: Bar) -> None:
    newest = store.newest()
    laid = store.lay(
        [(entry, newest[entry.symbol].anchor) for entry in bars], actor=ACTOR, late_after=0
    )
    assert laid.changed == len(bars)


class TestMarket:
    def test_is_everything_by_default(self, market: Store) -> None:
        assert days_of() == {"PVS": DAYS[3:], "VCB": DAYS, "VNINDEX": [FRIDAY]}

    def test_is_json_in_wire_form(self, market: Store) -> None:
        answer = get(query={"symbol": "VCB", "limit": "1"})
        assert answer["Content-Type"] == "application/json"
        assert answer.content == (
            b'{"VCB":[{"symbol":"VCB","time":"2025-08-15T00:00:00Z","open":64300,"high":64400,'
            b'"low":64200,"close":64300,"volume":1000}]}'
        )

    def test_numbers_are_exact_and_whole_prices_have_no_fraction(self, market: Store) -> None:
        body = get(query={"symbol": "VNINDEX"}).content.decode()
        assert '"open":1640.25,"high":1660,"low":1639.5,"close":1659.7,' in body
        assert '"volume":9007199254740991}' in body

    @pytest.mark.parametrize("query", [{}, {"symbol": "VCB"}, {"limit": "1"}, {"all": "false"}])
    def test_is_a_503_before_anything_came(self, query: dict[str, str], node: Store) -> None:
        """Who takes {} for a market shows, keeps and passes on an empty one."""
        answer = get(query=query)
        assert answer.status_code == 503
        assert answer.json() == {
            "detail": "The market is empty: the node hasn't loaded it yet.",
            "code": "market_empty",
        }
        assert int(answer["Retry-After"]) > 0
        assert (answer["Cache-Control"], answer["Access-Control-Allow-Origin"]) == ("no-store", "*")
        assert "X-Data-Age" not in answer

    def test_that_was_emptied_is_a_503_also_to_who_has_it(self, market: Store) -> None:
        etag = get()["ETag"]
        for symbol in market.symbols():
            market.forget(symbol)
        assert get(If_None_Match=etag).status_code == 503
        empty = f'W/"{market.state().position}"'
        assert get(If_None_Match=empty).status_code == 503
        changes = CLIENT.get("/tickers/changes", {"since": etag})
        assert changes.json()["removed"] == ["PVS", "VCB", "VNINDEX"]

    def test_is_fresh_with_every_merge(self, market: Store, fence: str) -> None:
        for close in (64_400, 64_500):
            market.merge([bar(close=close)], Authority.CORE, fence=fence)
            assert read(symbol="VCB")["VCB"][-1]["close"] == close

    def test_needs_no_database(self, market: Store) -> None:
        with database_away():
            assert len(read()) == 3


class TestSymbol:
    def test_chooses_one(self, market: Store) -> None:
        assert list(read(symbol="PVS")) == ["PVS"]

    def test_may_be_repeated(self, market: Store) -> None:
        assert sorted(read(symbol=["VCB", "PVS", "VCB"])) == ["PVS", "VCB"]

    def test_has_its_case_folded(self, market: Store) -> None:
        assert sorted(read(symbol=["vcb", " VnIndex "])) == ["VCB", "VNINDEX"]

    @pytest.mark.parametrize("unknown", ["ZZZ", "V/B", "\u00e9", "'", "VCB,PVS", "A" * 2_000])
    def test_unknown_is_left_out(self, unknown: str, market: Store) -> None:
        assert list(read(symbol=["VCB", unknown])) == ["VCB"]
        assert read(symbol=unknown) == {}

    def test_that_is_listed_but_has_no_bars_is_left_out(self, market: Store) -> None:
        assert "FPT" in node_settings.UNIVERSE
        assert read(symbol="FPT") == {}

    def test_empty_is_no_choice(self, market: Store) -> None:
        assert len(read(symbol="")) == 3


class TestDates:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({"start_date": "2025-08-13"}, DAYS[2:]),
            ({"end_date": "2025-08-13"}, DAYS[:3]),
            ({"start_date": "2025-08-12", "end_date": "2025-08-14"}, DAYS[1:4]),
            ({"start_date": "2025-08-15", "end_date": "2025-08-15"}, [FRIDAY]),
            ({"start_date": "2025-08-11", "end_date": "2025-08-11"}, [MONDAY]),
            ({"start_date": "2025-08-13T00:00:00Z"}, DAYS[2:]),
            ({"start_date": "0001-01-01", "end_date": "9999-12-31"}, DAYS),
            ({"start_date": "", "end_date": ""}, DAYS),
        ],
    )
    def test_are_inclusive(
        self, query: dict[str, str], expected: list[dt.date], market: Store
    ) -> None:
        assert days_of(symbol="VCB", **query) == {"VCB": expected}

    def test_symbols_without_bars_in_them_are_left_out(self, market: Store) -> None:
        assert list(days_of(end_date="2025-08-13")) == ["VCB"]
        assert read(start_date="2025-08-14", end_date="2025-08-11") == {}
        assert read(start_date="2025-08-16") == {}


class TestLimit:
    @pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (5, 5), (6, 5), (100_000, 5)])
    def test_is_the_last_of_each(self, limit: int, count: int, market: Store) -> None:
        found = days_of(limit=limit)
        assert found["VCB"] == DAYS[-count:]
        assert found["PVS"] == DAYS[3:][-count:]

    def test_counts_after_the_dates(self, market: Store) -> None:
        assert days_of(symbol="VCB", end_date="2025-08-13", limit=2)["VCB"] == DAYS[1:3]
        assert days_of(symbol="VCB", start_date="2025-08-12", limit=99)["VCB"] == DAYS[1:]

    def test_counts_an_overlay_as_the_bar_it_lies_over(self, market: Store) -> None:
        lay(market, bar(close=65_000))
        bars = read(symbol="VCB", limit=2)["VCB"]
        assert [entry["close"] for entry in bars] == [64_300, 65_000]


class TestAll:
    @pytest.mark.parametrize("value", ["true", "True", "1", ""])
    def test_true_is_the_default(self, value: str, market: Store) -> None:
        assert read(all=value) == read()

    @pytest.mark.parametrize("value", ["false", "FALSE", "0"])
    def test_false_is_the_last_bar_as_existing_nodes_answer(
        self, value: str, market: Store
    ) -> None:
        assert read(all=value) == read(limit=1)

    def test_false_gives_way_to_what_is_chosen(self, market: Store) -> None:
        assert days_of(symbol="VCB", all="false", limit=3)["VCB"] == DAYS[2:]
        assert days_of(symbol="VCB", all="false", end_date="2025-08-12")["VCB"] == DAYS[:2]


class TestAuthority:
    def test_trusted_leaves_overlays_out(self, market: Store) -> None:
        lay(market, bar(close=65_000))
        assert read(symbol="VCB")["VCB"][-1]["close"] == 65_000
        assert read(symbol="VCB", authority="")["VCB"][-1]["close"] == 65_000
        for query in ({}, {"limit": 1}, {"start_date": "2025-08-15"}):
            trusted = read(symbol="VCB", authority="trusted", **query)
            assert trusted["VCB"][-1]["close"] == 64_300

    def test_trusted_leaves_a_day_out_that_only_an_overlay_has(
        self, node: Store, fence: str
    ) -> None:
        node.merge([bar(day=THURSDAY)], Authority.CORE, fence=fence)
        lay(node, bar(close=65_000))
        assert days_of() == {"VCB": [THURSDAY, FRIDAY]}
        assert days_of(authority="trusted") == {"VCB": [THURSDAY]}

    def test_trusted_has_bars_of_every_trusted_authority(self, node: Store, fence: str) -> None:
        node.merge([bar("VCB")], Authority.CORE, fence=fence)
        node.merge([bar("PVS")], Authority.INTERNAL)
        node.merge([bar("ACV")], Authority.FOLLOWED)
        assert sorted(read(authority="trusted")) == ["ACV", "PVS", "VCB"]


class TestBadParameters:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(
                (name, value)
                for name in ("start_date", "end_date")
                for value in ("today", "2025-02-30", "15.08.2025", "20250815", "2025-8-1", "\ud55c")
            ),
            *(
                ("limit", value)
                for value in (
                    "0",
                    "-1",
                    "1.5",
                    "ten",
                    "\u0661",
                    "\u00b2",
                    "100001",
                    "9" * 5_000,
                    "000000001" + "9" * 5_000,
                    " 1",
                )
            ),
            ("all", "maybe"),
            ("all", "2"),
            ("authority", "public"),
            ("authority", "TRUSTED"),
        ],
    )
    def test_get_a_400_that_names_them(self, name: str, value: str, market: Store) -> None:
        answer = get(query={"symbol": "VCB", name: value})
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith(f"{name} must be ")
        assert answer["Access-Control-Allow-Origin"] == "*"
        assert "ETag" not in answer

    def test_unknown_ones_are_ignored(self, market: Store) -> None:
        assert read(symbol="VCB", fields="close") == read(symbol="VCB")


class TestHeaders:
    EXPECTED = {
        "Cache-Control": "public, max-age=1, stale-while-revalidate=30",
        "Vary": "Accept-Encoding",
        "Access-Control-Allow-Origin": "*",
    }

    def check(self, answer: Any, store: Store) -> None:
        assert {name: answer[name] for name in self.EXPECTED} == self.EXPECTED
        assert answer["ETag"] == f'W/"{store.state().position}"'
        assert {"ETag", "X-Data-Age"} <= set(
            answer["Access-Control-Expose-Headers"].replace(" ", "").split(",")
        )
        assert 0 <= int(answer["X-Data-Age"]) <= 5

    def test_of_an_answer(self, market: Store) -> None:
        self.check(get(), market)

    def test_of_a_304(self, market: Store) -> None:
        answer = get(If_None_Match=get()["ETag"])
        assert (answer.status_code, answer.content) == (304, b"")
        self.check(answer, market)

    def test_of_head_are_those_of_get(self, market: Store) -> None:
        head = CLIENT.head("/tickers", {"symbol": "VCB"})
        assert (head.status_code, head.content) == (200, b"")
        self.check(head, market)
        assert head["Content-Length"] == get(query={"symbol": "VCB"})["Content-Length"]

    def test_the_age_is_that_of_the_data(self, node: Store) -> None:
        node.merge([bar()], Authority.FOLLOWED, age=120)
        for answer in (get(), get("/tickers/changes", {"since": get()["ETag"]})):
            assert 120 <= int(answer["X-Data-Age"]) <= 125

    def test_the_etag_moves_with_the_market(self, market: Store, fence: str) -> None:
        seen = [get()["ETag"]]
        market.merge([bar(close=64_350)], Authority.CORE, fence=fence)
        seen.append(get()["ETag"])
        lay(market, bar("PVS", close=36_000))
        seen.append(get()["ETag"])
        market.withdraw_actors([ACTOR])
        seen.append(get()["ETag"])
        assert len(set(seen)) == 4
        market.merge([bar(close=64_350)], Authority.CORE, fence=fence)
        assert get()["ETag"] == seen[-1]


class TestIfNoneMatch:
    @pytest.mark.parametrize(
        "form", ["{0}", "*", 'W/"other-1", {0}', '{0}, "x"', '"{1}"', '"a,b", W/"{1}"']
    )
    def test_that_names_the_state_gets_a_304(self, form: str, market: Store) -> None:
        etag = get()["ETag"]
        answer = get(If_None_Match=form.format(etag, etag[3:-1]))
        assert answer.status_code == 304

    @pytest.mark.parametrize("tags", ['W/"other-1"', "", "nonsense", 'W/"', '"*"', "\u00ff"])
    def test_that_doesnt_gets_the_market(self, tags: str, market: Store) -> None:
        answer = get(If_None_Match=tags)
        assert answer.status_code == 200
        assert len(answer.json()) == 3

    def test_of_an_older_state_gets_the_market(self, market: Store, fence: str) -> None:
        etag = get()["ETag"]
        market.merge([bar(close=64_350)], Authority.CORE, fence=fence)
        assert get(If_None_Match=etag).status_code == 200

    def test_bad_parameters_come_first(self, market: Store) -> None:
        assert get(query={"limit": "0"}, If_None_Match="*").status_code == 400

    def test_other_conditions_get_the_market(self, market: Store) -> None:
        etag = get()["ETag"]
        assert get(If_Match=etag).status_code == 200
        assert get(If_Modified_Since="Fri, 15 Aug 2025 00:00:00 GMT").status_code == 200


class TestMethods:
    @pytest.mark.parametrize("path", ["/tickers", "/tickers/changes", "/tickers/group"])
    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
    def test_that_write_are_refused(self, method: str, path: str, market: Store) -> None:
        answer = CLIENT.generic(method, path)
        assert answer.status_code == 405
        assert answer.json() == {
            "detail": f'Method "{method}" not allowed.',
            "code": "method_not_allowed",
        }
        assert "GET" in answer["Allow"]

    @pytest.mark.parametrize("path", ["/tickers", "/tickers/changes", "/tickers/group"])
    def test_a_page_may_set_if_none_match(self, path: str, node: Store) -> None:
        """By the preflight that a browser sends first."""
        asked = {"Origin": "https://charts.example", "Access-Control-Request-Method": "GET"}
        answer = CLIENT.options(path, headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer["Access-Control-Allow-Origin"] == "*"
        assert answer["Access-Control-Allow-Methods"] == "GET, HEAD"
        assert answer["Access-Control-Allow-Headers"] == "If-None-Match"


class TestGroup:
    def test_is_the_universe_by_sector(self, node: Store) -> None:
        answer = get("/tickers/group")
        assert answer.status_code == 200
        groups = answer.json()
        assert groups == node_settings.UNIVERSE.sectors()
        assert "VCB" in groups["NGAN_HANG"]
        assert sum(map(len, groups.values())) == len(node_settings.UNIVERSE) == 287
        assert answer["Access-Control-Allow-Origin"] == "*"

    def test_needs_no_store(self, node: Store, settings: Any) -> None:
        with store_away(settings):
            assert get("/tickers/group").status_code == 200


class TestStoreAway:
    def test_a_process_goes_on_from_its_snapshot(self, market: Store) -> None:
        before = get()
        with store_lost():
            answer = get()
            assert (answer.status_code, answer.content) == (200, before.content)
            assert answer["ETag"] == before["ETag"]
            assert int(answer["X-Data-Age"]) >= int(before["X-Data-Age"])
            assert get(If_None_Match=before["ETag"]).status_code == 304

    def test_its_age_grows(self, market: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        get()
        refresher = wiring.snapshots()
        with store_lost():
            monkeypatch.setattr(refresher, "_age_read_at", refresher._age_read_at - 1_000)
            assert int(get()["X-Data-Age"]) >= 1_000

    def test_a_process_that_never_had_one_asks_to_try_again(
        self, market: Store, settings: Any
    ) -> None:
        with store_away(settings):
            answer = get()
        assert answer.status_code == 503
        assert "store can't be reached" in answer.json()["detail"]
        assert int(answer["Retry-After"]) > 0

    def test_nobody_is_given_older_data_than_it_has(self, market: Store, fence: str) -> None:
        """Another process served it a later position before the store went away."""
        before = get()["ETag"]
        epoch, revision = before[3:-1].split("-")
        for later in (int(revision) + 1, int(revision) + 1_000):
            known = f'W/"{epoch}-{later}"'
            with store_lost():
                answer = get(If_None_Match=known)
                assert (answer.status_code, answer.content) == (304, b"")
                assert answer["ETag"] == known
                assert "X-Data-Age" in answer
                waits = get("/tickers/changes", {"since": known})
            assert waits.status_code == 503
            assert int(waits["Retry-After"]) > 0

    def test_a_position_that_never_was_is_no_reason_for_a_304(self, market: Store) -> None:
        epoch, revision = get()["ETag"][3:-1].split("-")
        answer = get(If_None_Match=f'W/"{epoch}-{int(revision) + 1}"')
        assert answer.status_code == 200

    def test_changes_cant_be_told(self, market: Store) -> None:
        etag = get()["ETag"]
        with store_lost():
            answer = get("/tickers/changes", {"since": etag})
        assert answer.status_code == 503
        assert int(answer["Retry-After"]) > 0


# --- What changed ---------------------------------------------------------------------------------


def position() -> str:
    return str(wiring.store().state().position)


def changes(since: str) -> dict[str, Any]:
    answer = get("/tickers/changes", {"since": since})
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "public, max-age=1"
    assert answer["Content-Type"] == "application/json"
    body = dict(answer.json())
    assert sorted(body) == ["bars", "position", "removed", "replaced"]
    return body


class TestChanges:
    def test_are_none_at_the_present_position(self, market: Store) -> None:
        here = position()
        assert changes(here) == {"position": here, "bars": [], "replaced": [], "removed": []}

    def test_are_the_bars_changed_since(self, market: Store, fence: str) -> None:
        before = position()
        moved = bar(close=64_350, volume=1_001)
        market.merge([moved, bar("PVS", close=35_000)], Authority.CORE, fence=fence)
        market.merge([bar("NEW1")], Authority.INTERNAL)
        body = changes(before)
        assert [(entry["symbol"], entry["close"]) for entry in body["bars"]] == [
            ("VCB", 64_350),
            ("NEW1", 64_300),
        ]
        assert body["bars"][0] == read(symbol="VCB", limit=1)["VCB"][0]
        assert body["position"] == position() != before
        assert body["replaced"] == []

    @pytest.mark.parametrize("form", ["{}", 'W/"{}"', '"{}"', ' W/"{}" '])
    def test_since_an_etag_or_a_position(self, form: str, market: Store, fence: str) -> None:
        before = position()
        market.merge([bar(volume=2_000)], Authority.CORE, fence=fence)
        assert len(changes(form.format(before))["bars"]) == 1

    def test_the_answers_etag_is_the_new_position(self, market: Store) -> None:
        answer = get("/tickers/changes", {"since": position()})
        assert answer["ETag"] == f'W/"{position()}"'
        assert answer["Vary"] == "Accept-Encoding"
        assert answer["Access-Control-Allow-Origin"] == "*"

    def test_a_bar_is_told_once_as_it_is_now(self, market: Store, fence: str) -> None:
        before = position()
        for volume in range(2_000, 2_010):
            market.merge([bar(volume=volume)], Authority.CORE, fence=fence)
        assert [entry["volume"] for entry in changes(before)["bars"]] == [2_009]

    def test_bars_of_different_days_stand_apart(self, node: Store, fence: str) -> None:
        before = position()
        node.merge([bar(day=THURSDAY), bar(day=FRIDAY)], Authority.CORE, fence=fence)
        node.merge([bar(day=FRIDAY, volume=5_000)], Authority.CORE, fence=fence)
        told = [(entry["time"][:10], entry["volume"]) for entry in changes(before)["bars"]]
        assert told == [("2025-08-14", 1_000), ("2025-08-15", 5_000)]

    def test_a_replaced_series_is_named_and_its_bars_left_out(
        self, market: Store, fence: str
    ) -> None:
        before = position()
        market.merge([bar(volume=2_000)], Authority.CORE, fence=fence)
        halved = [bar(day=day, close=32_150) for day in DAYS]
        start = epoch_of(MONDAY)
        market.replace_series("VCB", halved, Authority.CORE, fence=fence, history_start=start)
        market.merge([bar(close=32_200, volume=3_000)], Authority.CORE, fence=fence)
        body = changes(before)
        assert (body["bars"], body["replaced"]) == ([], ["VCB"])

    def test_a_corrected_day_of_the_past_replaces_the_series(
        self, market: Store, fence: str
    ) -> None:
        before = position()
        market.merge([bar(day=MONDAY, close=60_000)], Authority.CORE, fence=fence)
        assert changes(before)["replaced"] == ["VCB"]

    def test_overlays_and_their_ends_are_left_out(self, market: Store, fence: str) -> None:
        before = position()
        lay(market, bar(close=65_000))
        body = changes(before)
        assert (body["bars"], body["replaced"]) == ([], [])
        assert body["position"] == position() != before
        market.withdraw_actors([ACTOR])
        after = changes(body["position"])
        assert (after["bars"], after["replaced"]) == ([], [])
        assert after["position"] == position() != body["position"]

    def test_a_trusted_bar_isnt_hidden_by_an_overlay(self, market: Store, fence: str) -> None:
        before = position()
        market.merge([bar(volume=2_000)], Authority.CORE, fence=fence)
        lay(market, bar(close=65_000, volume=9_000))
        (told,) = changes(before)["bars"]
        assert (told["close"], told["volume"]) == (64_300, 2_000)

    def test_from_the_very_beginning_are_the_market(self, node: Store, fence: str) -> None:
        before = position()
        assert before.endswith("-0")
        node.merge([bar(day=day) for day in DAYS], Authority.CORE, fence=fence)
        assert changes(before)["bars"] == read()["VCB"]


class TestGone:
    def check(self, since: str) -> None:
        answer = get("/tickers/changes", {"since": since})
        assert answer.status_code == 410
        assert "GET /tickers" in answer.json()["detail"]
        assert answer["Cache-Control"] == "no-store"

    def test_is_the_position_of_another_epoch(self, market: Store) -> None:
        epoch, revision = position().split("-")
        self.check(f"{epoch[::-1]}-{revision}")
        self.check(f"{epoch[::-1]}-0")

    def test_is_a_position_to_come(self, market: Store) -> None:
        epoch, revision = position().split("-")
        self.check(f"{epoch}-{int(revision) + 1}")
        self.check(f"{epoch}-{10**30}")


class TestAnyPositionOfThisEpoch:
    """Whatever the log reaches back to."""

    def test_is_one_that_the_log_was_trimmed_of(self, market: Store, fence: str) -> None:
        start = position()
        short = a_store(market.client, log_length=10)
        kept = []
        for volume in range(2_000, 2_030):
            short.merge([bar(volume=volume)], Authority.CORE, fence=fence)
            kept.append(position())
        for since in (start, kept[0], kept[-5]):
            assert [entry["volume"] for entry in changes(since)["bars"]] == [2_029]

    def test_is_one_of_a_log_that_was_lost(self, market: Store, clean_server: redis.Redis) -> None:
        epoch, revision = position().split("-")
        clean_server.delete(f"{ROOT}:changes")
        told = changes(f"{epoch}-{int(revision) - 1}")["bars"]
        assert [entry["symbol"] for entry in told] == ["VNINDEX"]
        assert changes(f"{epoch}-{revision}")["bars"] == []

    def test_costs_the_same(self, market: Store, fence: str) -> None:
        """Nothing is read from the store for it but where that stands."""
        start = position()
        for volume in range(2_000, 2_030):
            market.merge([bar(volume=volume)], Authority.CORE, fence=fence)
        get()
        counted: Any = market.client.info("commandstats")
        changes(start)
        after: Any = market.client.info("commandstats")
        for name in ("xrange", "hgetall", "lrange", "hmget"):
            command = f"cmdstat_{name}"
            assert after.get(command, {}).get("calls") == counted.get(command, {}).get("calls")


class TestChangesOfSymbols:
    def test_are_those_that_the_query_names(self, market: Store, fence: str) -> None:
        before = position()
        market.merge([bar(volume=2_000), bar("FPT")], Authority.CORE, fence=fence)
        market.merge([bar("PVS", MONDAY, close=34_000)], Authority.CORE, fence=fence)
        market.merge([bar("PVS", MONDAY, close=34_100)], Authority.CORE, fence=fence)
        market.forget("VNINDEX")
        for symbols, bars, replaced, removed in (
            (["vcb"], ["VCB"], [], []),
            (["VCB", "PVS"], ["VCB"], ["PVS"], []),
            (["VNINDEX", "NONE"], [], [], ["VNINDEX"]),
            ([""], ["VCB", "FPT"], ["PVS"], ["VNINDEX"]),
        ):
            body = get("/tickers/changes", {"since": before, "symbol": symbols}).json()
            assert sorted(entry["symbol"] for entry in body["bars"]) == sorted(bars)
            assert (body["replaced"], body["removed"]) == (replaced, removed)
            assert body["position"] == position()


class TestASymbolThatLeft:
    def test_is_named_until_it_comes_back(self, market: Store, fence: str) -> None:
        before = position()
        assert market.forget("PVS", fence=fence)
        body = changes(before)
        assert (body["bars"], body["replaced"], body["removed"]) == ([], [], ["PVS"])
        assert "PVS" not in read()
        assert changes(body["position"])["removed"] == []
        market.merge([bar("PVS", close=36_000)], Authority.CORE, fence=fence)
        assert [entry["close"] for entry in changes(body["position"])["bars"]] == [36_000]
        again = changes(before)
        assert (again["bars"], again["replaced"], again["removed"]) == ([], ["PVS"], [])


class TestCopiesOfChanges:
    def test_are_the_same_for_all_who_ask_from_one_position(
        self, market: Store, fence: str
    ) -> None:
        """In a process that followed the log, and in one that has just begun."""
        before = position()
        get()
        market.merge(
            [bar("PVS", close=35_000, volume=3), bar(volume=5)], Authority.CORE, fence=fence
        )
        market.merge([bar("AAA"), bar(day=THURSDAY, volume=7)], Authority.INTERNAL)
        followed = get("/tickers/changes", {"since": before}).content
        forget()
        assert get("/tickers/changes", {"since": before}).content == followed

    def test_are_revalidated_by_etag(self, market: Store) -> None:
        answer = get("/tickers/changes", {"since": position()})
        again = get("/tickers/changes", {"since": position()}, If_None_Match=answer["ETag"])
        assert (again.status_code, again.content) == (304, b"")
        assert again["Cache-Control"] == "public, max-age=1"
        assert again["ETag"] == answer["ETag"]

    @pytest.mark.parametrize("coding", ["gzip", "zstd"])
    def test_are_compressed_when_that_is_worth_it(
        self, coding: str, market: Store, fence: str
    ) -> None:
        small = get("/tickers/changes", {"since": position()}, Accept_Encoding=coding)
        assert "Content-Encoding" not in small
        before = position()
        market.merge([bar(f"S{n:02}") for n in range(50)], Authority.CORE, fence=fence)
        plain = get("/tickers/changes", {"since": before})
        packed = get("/tickers/changes", {"since": before}, Accept_Encoding=coding)
        assert packed["Content-Encoding"] == coding
        assert unpacked(coding, packed.content) == plain.content
        assert int(packed["Content-Length"]) == len(packed.content) < len(plain.content) / 2


def unpacked(coding: str, content: bytes) -> bytes:
    return gzip.decompress(content) if coding == "gzip" else zstd.decompress(content)


@pytest.mark.parametrize(
    "since",
    [
        None,
        "",
        "7",
        "abc",
        "abc-",
        "-7",
        "abc-x",
        "abc--7",
        "abc-1-2",
        "abc-1.5",
        "abc-\u0661",
        "a b-1",
        "*",
        'W/"',
        "\ud55c-",
        "abc-" + "9" * 5_000,
        "\0",
    ],
)
def test_changes_since_garbage_get_a_400(since: str | None, market: Store) -> None:
    answer = get("/tickers/changes", {} if since is None else {"since": since})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("since must be ")


# --- Following ------------------------------------------------------------------------------------

SYMBOLS = ["VCB", "PVS", "NEW1"]
some_bars = st.lists(
    st.builds(
        bar,
        st.sampled_from(SYMBOLS),
        st.sampled_from(DAYS[2:]),
        close=st.sampled_from([64_000, 64_300, 1659.75]),
        volume=st.integers(1, 4),
    ),
    min_size=1,
    max_size=3,
)
trusted = st.tuples(st.sampled_from(["CORE", "CORE", "INTERNAL", "FOLLOWED"]), some_bars)
steps: st.SearchStrategy[tuple[str, list[Bar]]] = st.one_of(
    trusted,
    st.tuples(st.just("replace"), some_bars),
    st.tuples(st.just("lay"), some_bars),
    st.tuples(st.just("withdraw"), st.just([])),
    st.tuples(st.just("forget"), some_bars),
)


def take(what: str, bars: list[Bar], store: Store, fence: str) -> None:
    """One step in the life of a market."""
    if what == "withdraw":
        store.withdraw_actors([ACTOR])
    elif what == "forget":
        store.forget(bars[0].symbol)
    elif what == "lay":
        newest = store.newest()
        known = [(entry, newest[entry.symbol].anchor) for entry in bars if entry.symbol in newest]
        if known:
            store.lay(known, actor=ACTOR, late_after=0)
    elif what == "replace":
        symbol = bars[0].symbol
        series = {entry.day: entry for entry in bars if entry.symbol == symbol}
        store.replace_series(
            symbol,
            [series[day] for day in sorted(series)],
            Authority.CORE,
            fence=fence,
            history_start=epoch_of(FRIDAY),
        )
    else:
        store.merge(bars, Authority(what), fence=fence if what == "CORE" else "")


def by_day(bars: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry["time"]: entry for entry in bars}


class FollowingClient:
    """Does with the answers what the API's documentation says, and nothing else."""

    def __init__(self) -> None:
        self.position: str | None = None
        self.market: Market = {}
        self.follow()

    def follow(self) -> None:
        if self.position is None:
            answer = get(query={"authority": "trusted"})
            if answer.status_code == 503:
                return  # the market is empty
            self.position = answer["ETag"]
            self.market = {s: by_day(bars) for s, bars in answer.json().items()}
        body = changes(self.position)
        for entry in body["bars"]:
            self.market.setdefault(entry["symbol"], {})[entry["time"]] = entry
        for symbol in body["replaced"]:
            bars = read(symbol=symbol, authority="trusted")
            self.market[symbol] = by_day(bars[symbol])
        for symbol in body["removed"]:
            self.market.pop(symbol, None)
        self.position = body["position"]


@hypothesis_settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(life=st.lists(steps, min_size=1, max_size=8))
def test_who_follows_from_any_point_ends_with_the_trusted_market(
    life: list[tuple[str, list[Bar]]], node: Store, clean_server: redis.Redis
) -> None:
    clean_server.flushall()
    forget()
    store = wiring.store()
    fence = lead(store)
    always = FollowingClient()
    started = [copy.deepcopy(always)]
    for what, bars in life:
        take(what, bars, store, fence)
        always.follow()
        started.append(FollowingClient())
    symbols = set(store.symbols())
    expected = FollowingClient().market
    assert set(expected) == symbols
    assert always.market == expected
    for client in started:
        client.follow()
        assert client.market == expected
        assert client.position == str(store.state().position) or not symbols
