"""What deploy/nginx-site.conf promises, kept by the real nginx before a stub that counts."""

import gzip
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.front import FORWARDER, LEFT_ALONE, Front, Stub, needs_nginx

pytestmark = needs_nginx

_numbers = itertools.count(1)


def a_key() -> str:
    """A small read that no test has made before."""
    return f"/tickers?symbol=X{next(_numbers)}"


def wait_until(moment: float) -> None:
    """Until this time.time(): nginx counts whole seconds of the wall clock."""
    while (rest := moment - time.time()) > 0:
        time.sleep(rest)


def early_in_a_second() -> None:
    """Now, if there is time for two requests in this second."""
    if time.time() % 1 > 0.7:
        at_fraction(0.0)


def at_fraction(fraction: float) -> None:
    """Until the clock next stands at this fraction of a second."""
    now = time.time()
    whole = int(now) + (now % 1 > fraction)
    wait_until(whole + fraction)


def at_once(count: int, work: Callable[[], requests.Response]) -> list[requests.Response]:
    """The answers of ``count`` readers that begin at the same moment."""
    barrier = threading.Barrier(count)

    def one(_: int) -> requests.Response:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


class TestKey:
    @pytest.mark.parametrize(
        "same",
        [
            "limit=1&symbol={0}",
            "symbol={0}&limit=1&all=true",
            "all=1&symbol={0}&limit=1&_=1723",
            "symbol={0}&limit=1&start_date=&format=json&&all=TRUE",
        ],
    )
    def test_is_the_normalised_query(self, same: str, front: Front, stub: Stub) -> None:
        name = f"S{next(_numbers)}"
        early_in_a_second()
        front.get(f"/tickers?symbol={name}&limit=1")
        assert front.get(f"/tickers?{same.format(name)}").headers["X-Cache"] == "HIT"
        assert [seen.path for seen in stub.seen] == [f"/tickers?&symbol={name}&limit=1"]

    @pytest.mark.parametrize(
        "other",
        [
            "symbol={0}&limit=2",
            "symbol={0}&limit=1&all=false",
            "symbol={0}&limit=1&authority=trusted",
            "symbol={0}&limit=1&start_date=2025-08-01",
            "symbol={0}&limit=1&symbol=FPT",
            "symbol={0}&limit=1&limit=2",
            "symbol={0}&l%69mit=3&limit=1",
            "symbol={0}&LIMIT=1",
        ],
    )
    def test_differs_where_the_answer_may(self, other: str, front: Front, stub: Stub) -> None:
        name = f"S{next(_numbers)}"
        early_in_a_second()
        front.get(f"/tickers?symbol={name}&limit=1")
        assert front.get(f"/tickers?{other.format(name)}").headers["X-Cache"] == "MISS"
        assert len(stub.seen) == 2

    def test_what_it_cannot_take_apart_reaches_the_node_unchanged(
        self, front: Front, stub: Stub
    ) -> None:
        front.get("/tickers?symbol=A&symbol=B&limit=7&unknown=1")
        assert stub.seen[-1].path == "/tickers?symbol=A&symbol=B&limit=7&unknown=1"

    @pytest.mark.parametrize(
        ("asked", "sent"),
        [
            ("gzip, deflate, br", "gzip"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("ZSTD ; q=0.05 ,gzip;q=0", "zstd"),
            ("zstd;q=1.0, gzip;q=1.0", "zstd"),
            ("gzip, zstd;q=0.5", "gzip"),
            ("zstd;q=0.9, gzip;q=1.0", "gzip"),
            ("zstd;q=0, gzip", "gzip"),
            ("zstd; q=0.000, gzip;q=0.5", "gzip"),
            ("zstd;q=0", None),
            ("zstd;q=0, gzip;q=0", None),
            ("br;q=1.0, GZIP;q=0.8, *;q=0.1", "gzip"),
            ("gzip;q=0, br", None),
            ("gzip; q=0.00", None),
            ("gzip;q=0.05", "gzip"),
            ("br", None),
            ("notgzip, zstd-9", None),
        ],
    )
    def test_folds_the_encoding(
        self, asked: str, sent: str | None, front: Front, stub: Stub
    ) -> None:
        key = a_key()
        early_in_a_second()
        front.get(key, Accept_Encoding=asked)
        assert stub.seen[-1].headers.get("accept-encoding") == sent
        again = front.get(key, Accept_Encoding=sent or "identity")
        assert again.headers["X-Cache"] == "HIT"
        assert again.headers.get("Content-Encoding") == sent


class TestCache:
    def test_asks_once_for_a_burst_of_readers_of_a_cold_key(self, front: Front, stub: Stub) -> None:
        key, stub.delay = a_key(), 0.1
        at_fraction(0.1)
        found = at_once(50, lambda: front.get(key))
        assert {(answer.status_code, answer.content) for answer in found} == {(200, stub.body)}
        assert len(stub.seen) == 1

    def test_asks_once_a_second_for_a_burst_late_in_a_second(
        self, front: Front, stub: Stub
    ) -> None:
        # The answer comes in this second; those who wait for it look again in the next.
        key, stub.delay = a_key(), 0.35
        at_fraction(0.55)
        found = at_once(50, lambda: front.get(key))
        assert {(answer.status_code, answer.content) for answer in found} == {(200, stub.body)}
        first, *others = stub.seen
        assert "if-none-match" not in first.headers
        assert len(others) <= 1

    def test_revalidates_by_etag(self, front: Front, stub: Stub) -> None:
        key = a_key()
        # In the first seconds of ten: later it would read anew, for the age.
        wait_until(time.time() // 10 * 10 + 10 if time.time() % 10 > 8 else 0)
        front.get(key)
        at_fraction(0.0)
        again = front.get(key)
        assert again.headers["X-Cache"] == "REVALIDATED"
        assert again.content == stub.body
        assert stub.seen[-1].headers["if-none-match"] == stub.etag

    def test_takes_a_changed_market_with_the_next_second(self, front: Front, stub: Stub) -> None:
        key = a_key()
        front.get(key)
        stub.etag, stub.body = 'W/"a:2"', b'{"VCB":[2]}'
        at_fraction(0.0)
        again = front.get(key)
        assert (again.content, again.headers["ETag"]) == (stub.body, stub.etag)

    def test_answers_304_itself(self, front: Front, stub: Stub) -> None:
        key = a_key()
        early_in_a_second()
        front.get(key)
        answer = front.get(key, If_None_Match=stub.etag)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == stub.etag
        assert answer.headers["X-Data-Age"] == "0"
        assert len(stub.seen) == 1

    def test_passes_compressed_bodies_as_they_are(self, front: Front, stub: Stub) -> None:
        key, stub.body = a_key(), b'{"VCB":[' + b"1," * 5_000 + b"1]}"
        for _ in range(2):
            with requests.get(
                f"{front.url}{key}", headers={"Accept-Encoding": "gzip"}, stream=True, timeout=10
            ) as answer:
                raw = answer.raw.read(decode_content=False)
            assert answer.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(raw) == stub.body
        plain = front.get(key)
        assert "Content-Encoding" not in plain.headers
        assert plain.content == stub.body

    def test_leaves_plain_bodies_plain(self, front: Front, stub: Stub) -> None:
        key, stub.compresses, stub.body = a_key(), False, b"[" + b"1," * 5_000 + b"1]"
        for _ in range(2):
            answer = front.get(key, Accept_Encoding="gzip")
            assert "Content-Encoding" not in answer.headers
            assert answer.content == stub.body

    def test_hands_on_the_nodes_own_headers(self, front: Front, stub: Stub) -> None:
        key = a_key()
        for _ in range(2):
            headers = front.get(key).headers
            assert headers["Cache-Control"] == stub.cache_control
            assert headers["Vary"] == "Accept-Encoding"
            for inner in ("X-Node-Cache-Control", "X-Accel-Expires", "Last-Modified"):
                assert inner not in headers

    def test_keeps_nothing_that_is_not_public(self, front: Front, stub: Stub) -> None:
        key, stub.cache_control = a_key(), "no-store"
        for _ in range(2):
            assert front.get(key).headers["Cache-Control"] == "no-store"
        assert len(stub.seen) == 2

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/gossip"),
            ("POST", "/public/gossip"),
            ("POST", "/tickers"),
            ("GET", "/tickers/changes?since=a:1"),
            ("GET", "/health"),
            ("GET", "/admin/"),
            ("GET", "/"),
        ],
    )
    def test_is_for_reads_of_the_market_alone(
        self, method: str, path: str, front: Front, stub: Stub
    ) -> None:
        for _ in range(2):
            front.request(method, path, data=b"{}")
        assert [(seen.method, seen.path) for seen in stub.seen] == [
            (method, path if method == "GET" or path != "/tickers" else "/tickers?")
        ] * 2


class TestFreshness:
    """At most 1 s older than without nginx: than a read that begins at the same moment."""

    def test_of_a_key_that_is_read_all_the_time(self, front: Front, stub: Stub) -> None:
        stub.ticking = True
        key, ends = a_key(), time.monotonic() + 2.5
        ages: list[float] = []

        def read() -> None:
            with requests.Session() as session:
                while (begun := time.monotonic()) < ends:
                    answer = session.get(f"{front.url}{key}", timeout=10)
                    ages.append(begun - float(answer.content))

        readers = [threading.Thread(target=read) for _ in range(8)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert max(ages) <= 1.0
        assert len(stub.seen) < len(ages) / 5  # it was a cache that answered

    def test_of_a_key_that_nobody_read_for_a_second(self, front: Front, stub: Stub) -> None:
        stub.ticking, stub.delay = True, 0.05
        key = a_key()
        at_fraction(0.2)
        front.get(key)
        at_fraction(0.2)
        wait_until(time.time() + 0.1)
        self.burst(front, key)

    def test_of_a_key_that_was_left_alone(self, front: Front, stub: Stub) -> None:
        stub.ticking, stub.delay = True, 0.05
        self.burst(front, LEFT_ALONE[0])

    def burst(self, front: Front, key: str) -> None:
        begun = time.monotonic()
        found = at_once(20, lambda: front.get(key))
        assert max(begun - float(answer.content) for answer in found) <= 1.0


class TestFailingNode:
    @pytest.mark.parametrize("fraction", [0.0, 0.6])
    def test_reads_go_on_from_the_cache(self, fraction: float, front: Front, stub: Stub) -> None:
        key = a_key()
        at_fraction(fraction)
        front.get(key)
        stub.failing = True
        at_fraction(0.0)
        answer = front.get(key)
        assert (answer.status_code, answer.content) == (200, stub.body)
        assert answer.headers["X-Cache"] == "STALE"

    def test_what_was_never_read_is_refused_after_one_attempt(
        self, front: Front, stub: Stub
    ) -> None:
        stub.failing = True
        answer = front.get(a_key())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert answer.json() == {
            "detail": "The node can't be reached; try again soon.",
            "code": "node_unavailable",
        }
        assert len(stub.seen) == 1


class TestLimits:
    def test_a_reader_of_the_whole_market_is_slowed_first(self, front: Front, stub: Stub) -> None:
        greedy, modest = "127.0.0.21", "127.0.0.22"
        found = [front.get("/tickers", source=greedy) for _ in range(15)]
        refused = [answer for answer in found if answer.status_code == 429]
        assert 3 <= len(refused) <= 4
        assert "Too many reads" in refused[0].json()["detail"]
        assert refused[0].headers["Content-Type"] == "application/json"
        assert refused[0].headers["Retry-After"] == "1"
        assert refused[0].headers["Access-Control-Allow-Origin"] == "*"
        assert front.get(a_key(), source=greedy).status_code == 200
        assert front.get("/tickers", source=modest).status_code == 200

    @pytest.mark.parametrize(
        "query",
        [
            "all=true",
            "limit=100",
            "symbol=",
            "symbol=%20",
            "start_date=2024-01-01",
            "limit=1&limit=9999",
            "&".join(f"symbol=S{number}" for number in range(287)),
        ],
    )
    def test_whole_is_what_is_not_surely_small(
        self, query: str, front: Front, stub: Stub, request: pytest.FixtureRequest
    ) -> None:
        source = f"127.0.1.{next(_numbers) % 200 + 1}"
        statuses = [front.get(f"/tickers?{query}", source=source).status_code for _ in range(15)]
        assert 429 in statuses

    def test_small_reads_have_more_room(self, front: Front, stub: Stub) -> None:
        for query in ("symbol=VCB", "limit=1", "symbol=A&symbol=B&limit=500", "all=false"):
            path = f"/tickers?{query}"
            statuses = {front.get(path, source="127.0.0.23").status_code for _ in range(15)}
            assert statuses == {200}, query
        key = a_key()
        with requests.Session() as session:
            flood = [
                session.get(f"{front.url}{key}", headers={"X-Real-IP": "203.0.113.5"}, timeout=10)
                for _ in range(300)
            ]
        assert {answer.status_code for answer in flood} == {200}  # this machine isn't limited

    def test_a_flood_of_small_reads_is_refused(self, front: Front, stub: Stub) -> None:
        key = a_key()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: front.get(key, source="127.0.0.24"), range(400)))
        assert 429 in {answer.status_code for answer in found}

    @pytest.mark.parametrize(
        ("method", "path", "let_through"),
        [("GET", "/admin/login/", 100), ("POST", "/gossip", 600)],
    )
    def test_a_flood_of_logins_or_guessed_tokens_is_refused(
        self, method: str, path: str, let_through: int, front: Front, stub: Stub
    ) -> None:
        """What a person, or a peer that sends a whole market a bar a request, does isn't."""
        refused = threading.Event()

        def knock(_: int) -> int:
            if refused.is_set():
                return 0
            status = front.request(method, path, source="127.0.0.25").status_code
            if status == 429:
                refused.set()
            return status

        # An answer may take 44 ms (a delayed ACK), and eight at a time were no flood then.
        with ThreadPoolExecutor(32) as pool:
            statuses = list(pool.map(knock, range(20 * let_through)))
        assert 429 in statuses
        assert sum(status not in (0, 429) for status in statuses) >= let_through

    def test_an_ipv6_network_is_one_client(self, front: Front, stub: Stub) -> None:
        def read(address: str) -> int:
            return front.get("/tickers", source=FORWARDER, X_Real_IP=address).status_code

        statuses = [read(f"2001:db8:0:7::{number:x}") for number in range(1, 16)]
        assert 429 in statuses
        assert read("2001:db8:0:8::1") == 200


class TestClientAddress:
    def test_is_the_true_one_whatever_the_client_says(self, front: Front, stub: Stub) -> None:
        for path in ("/public/gossip", a_key()):
            front.request(
                "POST" if "gossip" in path else "GET",
                path,
                source="127.0.0.31",
                X_Forwarded_For="203.0.113.1, 127.0.0.1",
                X_Forwarded_Proto="https",
                X_Forwarded_Host="evil.example",
                Forwarded="for=203.0.113.1",
                X_Real_IP="203.0.113.1",
            )
            headers = stub.seen[-1].headers
            assert headers["x-forwarded-for"] == "127.0.0.31"
            assert headers["x-forwarded-proto"] == "http"
            assert not {"forwarded", "x-real-ip", "x-forwarded-host"} & set(headers)


class TestBodies:
    @pytest.mark.parametrize("path", ["/gossip", "/public/gossip", "/tickers"])
    @pytest.mark.parametrize("chunked", [False, True])
    def test_over_a_megabyte_are_refused_before_the_node(
        self, path: str, chunked: bool, front: Front, stub: Stub
    ) -> None:
        body = b" " * 1_000_001
        answer = front.request("POST", path, data=iter([body]) if chunked else body)
        assert answer.status_code == 413
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.json() == {
            "detail": "A body has at most 1000000 bytes; send several.",
            "code": "body_too_large",
        }
        assert stub.seen == []

    def test_of_a_megabyte_pass(self, front: Front, stub: Stub) -> None:
        assert front.request("POST", "/gossip", data=b" " * 1_000_000).status_code == 200


class TestStaticFiles:
    def test_are_served_by_nginx_and_else_by_the_node(self, front: Front, stub: Stub) -> None:
        folder = front.folder / "static"
        folder.mkdir(exist_ok=True)
        (folder / "home.0123456789ab.css").write_text("body {}")
        (folder / "home.css").write_text("body {}")
        hashed = front.get("/static/home.0123456789ab.css")
        assert (hashed.text, hashed.headers["Content-Type"]) == ("body {}", "text/css")
        assert "max-age=315360000" in hashed.headers["Cache-Control"]
        assert front.get("/static/home.css").headers["Cache-Control"] == "max-age=60"
        assert stub.seen == []
        front.get("/static/elsewhere.css")
        assert [seen.path for seen in stub.seen] == ["/static/elsewhere.css"]


class TestAgeOfTheData:
    """Last in this file: by now the key was left alone for most of ten seconds."""

    def test_stands_still_for_ten_seconds_at_most(self, front: Front, stub: Stub) -> None:
        stub.age = 600
        wait_until(front.began // 10 * 10 + 10)
        assert front.get(LEFT_ALONE[1]).headers["X-Data-Age"] == "600"
