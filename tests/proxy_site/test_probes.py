"""GET /livez and /readyz, as a supervisor or a balancer asks them; only /health uses a database."""

from typing import Any

import pytest

from tests.support.checks import check_documented
from tests.support.doors import CLIENT, cache_away, empty_market, market, store_away, store_lost
from tickers.store.store import Store

__all__ = ["empty_market", "market"]  # fixtures

PROBES = ("/livez", "/readyz")


def ask(path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    answer = CLIENT.get(path, **options)
    check_documented(answer, path, "get")
    assert answer["Cache-Control"] == "no-store"
    assert CLIENT.head(path, **options).status_code == answer.status_code
    return answer.status_code, answer.json()


class TestLive:
    def test_a_process_that_answers_is_alive_whatever_is_away(self, settings: Any) -> None:
        with store_away(settings), cache_away(settings):
            assert ask("/livez") == (200, {"status": "alive"})

    def test_also_with_nothing_to_serve(self, empty_market: Store) -> None:
        assert ask("/livez")[0] == 200


class TestReady:
    def test_with_a_market(self, market: Store) -> None:
        assert ask("/readyz") == (200, {"status": "ready"})

    def test_not_with_an_empty_one(self, empty_market: Store) -> None:
        status, body = ask("/readyz")
        assert (status, body["code"]) == (503, "market_empty")

    def test_not_when_it_was_emptied(self, market: Store) -> None:
        assert ask("/readyz")[0] == 200
        for symbol in market.symbols():
            market.forget(symbol)
        assert ask("/readyz")[0] == 503

    def test_with_the_last_market_of_a_store_that_is_away(
        self, market: Store, settings: Any
    ) -> None:
        ask("/readyz")
        with store_lost(), cache_away(settings):
            assert [ask("/readyz")[0] for _ in range(3)] == [200] * 3

    def test_not_with_a_store_that_was_never_reached(self, market: Store, settings: Any) -> None:
        with store_away(settings):
            status, body = ask("/readyz")
        assert (status, body["code"]) == (503, "store_unavailable")


@pytest.mark.django_db
class TestHost:
    """Who probes knows an address, and the operator names in ALLOWED_HOSTS what clients ask by."""

    @pytest.fixture(autouse=True)
    def _named(self, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["api.test"]

    @pytest.mark.parametrize("path", PROBES)
    @pytest.mark.parametrize("host", ["10.0.0.5:3000", "localhost", "pod-7.local", "no host!", ""])
    def test_any_will_do(self, path: str, host: str, market: Store) -> None:
        assert ask(path, HTTP_HOST=host)[0] == 200

    @pytest.mark.parametrize(
        "host", ["10.0.0.5:3000", "127.0.0.1", "localhost:3000", "[2001:db8::1]:3000", "api.test"]
    )
    def test_of_health_may_be_an_address(self, host: str, market: Store) -> None:
        assert CLIENT.get("/health", HTTP_HOST=host).status_code == 200

    @pytest.mark.parametrize(
        "host",
        ["evil.test", "10.0.0.5.evil.test", "10.0.0.5@evil.test", "localhost.evil.test", "10.0.0"],
    )
    def test_of_health_may_be_no_other_name(self, host: str, market: Store) -> None:
        assert CLIENT.get("/health", HTTP_HOST=host).status_code == 400

    @pytest.mark.parametrize("path", ["/tickers", "/", "/livez/x", "/livezz", "/health/x"])
    def test_counts_everywhere_else(self, path: str, market: Store) -> None:
        assert CLIENT.get(path, HTTP_HOST="10.0.0.5").status_code == 400
