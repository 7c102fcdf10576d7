"""At the server's memory limit the market is read as ever, and nothing is written.

Each test has a server of its own; its limit is set below what it holds already.
"""

from typing import Any

import pytest
import redis

from proxy_site.redis_checks import complaints
from tests.support.bars import (
    FRIDAY,
    NEXT_MONDAY,
    THURSDAY,
    TRUST_WINDOW,
    OwnServer,
    a_store,
    bar,
    clock_at,
    dump,
    exchange_time,
    lead,
    let_time_pass,
)
from tickers.snapshot.refresh import SnapshotRefresher
from tickers.store.store import ROOT, Store
from tickers.verdict import Authority

INTERNAL = Authority.INTERNAL
ACTORS = [("203.0.113.9", "203.0.113.0/24"), ("198.51.100.4", "198.51.100.0/24")]


@pytest.fixture
def market(own_server: OwnServer) -> Store:
    store = a_store(own_server.client)
    for symbol in ("VCB", "FPT"):
        store.merge([bar(symbol, THURSDAY), bar(symbol, FRIDAY)], INTERNAL)
    return store


def fill(own_server: OwnServer) -> None:
    own_server.client.config_set("maxmemory", 200_000)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        own_server.client.set("more", "x")


def test_a_new_process_loads_the_market_and_an_old_one_follows_it(
    market: Store, own_server: OwnServer
) -> None:
    old = SnapshotRefresher(market)
    old.current()
    market.merge([bar(volume=2_000)], INTERNAL)
    fill(own_server)
    before = dump(own_server.client)
    for keeper in (old, SnapshotRefresher(a_store(own_server.client))):
        snapshot = keeper.current()
        assert not keeper.is_away
        assert snapshot.position == market.state().position
        assert b'"volume":2000' in snapshot.changes(snapshot.position.revision - 1)
    assert dump(own_server.client) == before


def test_nothing_is_written(market: Store, own_server: OwnServer) -> None:
    fence = lead(market)
    fill(own_server)
    before = dump(own_server.client)
    for write in (
        lambda: market.merge([bar(volume=2_000)], INTERNAL),
        lambda: market.lay([(bar(volume=2_000), "64300")], actor="203.0.113.9", late_after=0),
        lambda: market.replace_series(
            "VCB", [bar(volume=2_000)], Authority.CORE, fence=fence, history_start=0
        ),
        lambda: market.complete_cycle(fence=fence),
    ):
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            write()
    assert dump(own_server.client) == before


@pytest.mark.parametrize("ends_by", ["its day", "the trust window"])
def test_public_bars_end_in_time(market: Store, own_server: OwnServer, ends_by: str) -> None:
    """Overlays, and of two held bars of one symbol the older, which leaves a list to be written."""
    for number, (actor, network) in enumerate(ACTORS):
        if number:
            let_time_pass(own_server.client, seconds=TRUST_WINDOW - 10)
        said = bar(close=64_400 + 2_000 * number, volume=2_000)
        market.lay([(said, "64300")], actor=actor, late_after=0, network=network)
    assert market.state().held == 1
    if ends_by == "its day":
        market.clock = clock_at(exchange_time(NEXT_MONDAY, 10))
    else:
        let_time_pass(own_server.client, seconds=11)
    fill(own_server)
    assert SnapshotRefresher(market).current().overlays == {}
    held: Any = own_server.client.hget(f"{ROOT}:held", "VCB")
    if ends_by == "its day":
        assert held is None
    else:
        assert held.count(b";") == 1


def test_a_server_that_started_again_is_another_life(market: Store, own_server: OwnServer) -> None:
    epoch = market.state().position.epoch
    own_server.client.set(f"{ROOT}:run_id", "0" * 40)  # as a restart leaves it
    fill(own_server)
    state = market.state()
    assert state.position.epoch != epoch
    assert market.state().position == state.position
    assert len(SnapshotRefresher(market).current().series) == 2


def test_health_complains(market: Store, own_server: OwnServer) -> None:
    info: Any = own_server.client.info
    assert not any("out of memory" in line for line in complaints(info()))
    fill(own_server)
    assert any("out of memory" in line for line in complaints(info()))


def test_what_reads_series_is_no_write(market: Store, own_server: OwnServer) -> None:
    """The server itself refuses a write of a script that is called so."""
    assert len(list(market.series(["VCB"]))) == 1  # the server knows the script now
    script: Any = market._reading_series._call
    reads: Any = own_server.client
    found = reads.execute_command("EVALSHA_RO", script.sha, 1, ROOT, '{"last":0}', "VCB")
    assert len(found[0][2]) == 1
