"""Two nodes that were given one Redis, or too little of one: the start is refused, with the remedy.

All processes of one node share a Redis, on whatever hosts. Nodes are told apart by their database.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy_site import ownership
from proxy_site.ownership import NotOursError
from tests.support.nodes import ROOT, wait_for
from tests.support.yard import Process, StoreServer, Yard
from tickers.store.redis_client import connect


@pytest.fixture
def store(yard: Yard) -> StoreServer:
    server = yard.store("redis")
    server.start()
    return server


def at(store: StoreServer, database: int) -> str:
    return f"redis://127.0.0.1:{store.port}/{database}"


# --- Whole processes ------------------------------------------------------------------------------


def test_a_second_node_doesnt_start_on_the_firsts_redis(yard: Yard, store: StoreServer) -> None:
    ours = yard.environment("node-a", REDIS_URL=store.url, PORT=str(yard.port()))
    theirs = yard.environment("node-b", REDIS_URL=store.url, PORT=str(yard.port()))
    first = yard.worker("node-a-worker", ours)
    first.start()
    wait_for(lambda: first.says("leading"), "node-a to lead", first)

    refused = {
        "worker": yard.worker("node-b-worker", theirs),
        "api": yard.api("node-b-api", theirs, workers=1),
        "node": yard.process(
            "node-b-node",
            "manage.py",
            "run_node",
            environment=theirs | {"PORT": str(yard.port())},
        ),
    }
    # Further processes of the first node, among them an API of another name.
    others = {
        "standing by: another worker leads": yard.worker("node-a-second-worker", ours),
        "Listening at": yard.api("node-a-api", ours | {"NODE_NAME": "node-a-host-2"}, workers=1),
    }
    for process in (*refused.values(), *others.values()):
        process.start()
    for process in refused.values():
        wait_for(has_ended(process), f"{process.name} to end", process)
        log = process.log()
        assert "REDIS_URL names the store of another node (node-a, since " in log
        assert "run manage.py take_store" in log
        assert "Traceback" not in log
    for words, process in others.items():
        wait_for(says(process, words), f"{process.name} to start", process)
        assert process.lives
    assert first.lives


def has_ended(process: Process) -> Callable[[], bool]:
    return lambda: not process.lives


def says(process: Process, words: str) -> Callable[[], bool]:
    return lambda: process.says(words)


@pytest.mark.slow
def test_a_node_with_another_database_takes_its_store(yard: Yard, store: StoreServer) -> None:
    url = at(store, 0)
    assert command(yard.environment("node-a", REDIS_URL=url), *START).stdout == "started\n"
    after = yard.environment("node-a-moved", REDIS_URL=url)
    assert "take_store" in command(after, *START).stdout

    store.client.set("{market}:4:lease", "1:nonce:run", px=60_000)
    done = command(after, "manage.py", "take_store")
    assert done.returncode == 1
    assert "a worker leads on this store: stop" in done.stdout
    store.client.delete("{market}:4:lease")
    done = command(after, "manage.py", "take_store")
    assert done.returncode == 0
    assert [line.partition(" (")[0] for line in done.stdout.splitlines()] == [
        "the store was another node's",
        "the cache was another node's",
    ]
    assert command(after, *START).stdout == "started\n"


@pytest.mark.slow
def test_a_start_without_redis_or_tables_goes_on(yard: Yard, store: StoreServer) -> None:
    nowhere = yard.environment("node-a", REDIS_URL="redis://127.0.0.1:9/0")
    assert command(nowhere, *START).stdout == "started\n"
    unmigrated = yard.environment("node-b", REDIS_URL=store.url)
    Path(unmigrated["DATA_DIR"], "reputation.sqlite3").unlink()
    assert command(unmigrated, *START).stdout == "started\n"
    assert not store.client.keys("*")
    # A node that has left a mark had tables, so that this one's is another's.
    store.client.set(ownership.STORE_MARK, '{"identity": "a", "name": "node-a", "since": "now"}')
    assert "the store of another node (node-a, since now)" in command(unmigrated, *START).stdout


# What every process of a node does when it starts.
START = (
    "-c",
    "import django; django.setup(); from proxy_site import ownership; ownership.end_unless_ours(); "
    "print('started')",
)


def command(environment: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command; what it says on stderr comes with stdout."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment | {"DJANGO_SETTINGS_MODULE": "proxy_site.settings"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


# --- Databases ------------------------------------------------------------------------------------

Start = Callable[..., str]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Start:
    """Start a node of this name, whose identity it is too; returns why it is refused, or ""."""
    settings.USES_EMBEDDED_SERVER = False

    def start(name: str, store: str, *, cache: str = "", by: str = "require") -> str:
        settings.NODE_NAME, settings.CACHE_HAS_ITS_OWN_URL = name, bool(cache)
        monkeypatch.setattr(ownership, "_identity", [name])
        place, _, database = store.rpartition("/")
        with (
            connect(store, timeout=5) as of_store,
            connect(cache or f"{place}/{int(database) + 1}", timeout=5) as of_cache,
        ):
            monkeypatch.setattr(ownership, "_store", lambda: of_store)
            monkeypatch.setattr(ownership, "_cache", lambda: of_cache)
            try:
                getattr(ownership, by)()
            except NotOursError as error:
                return str(error)
        return ""

    return start


def test_ones_store_as_anothers_cache_is_refused_whoever_comes_first(
    store: StoreServer, start: Start
) -> None:
    assert start("first", at(store, 0)) == ""
    line = start("above", at(store, 1))
    assert line.startswith("REDIS_URL names the cache of a node (first, since ")
    assert "name another database" in line

    assert start("later", at(store, 5)) == ""
    line = start("below", at(store, 4))
    assert line.startswith("CACHE_URL, by default the next database of REDIS_URL, names the store")
    assert "(later, since " in line
    for name, database in (("first", 0), ("later", 5)):
        assert start(name, at(store, database)) == ""


def test_a_market_that_has_no_mark_is_no_cache(store: StoreServer, start: Start) -> None:
    with connect(at(store, 1), timeout=5) as client:
        client.set(ownership.MARKET, 7)
    assert "of a node (without a mark)" in start("first", at(store, 0))


def test_one_store_or_cache_of_two_nodes_is_refused(store: StoreServer, start: Start) -> None:
    cache = at(store, 9)
    assert start("first", at(store, 0), cache=cache) == ""
    assert start("second", at(store, 0)).startswith("REDIS_URL names the store of another node (f")
    line = start("second", at(store, 2), cache=cache)
    assert line.startswith("CACHE_URL names the cache of another node (first, since ")


def test_one_database_by_two_names_is_refused(store: StoreServer, start: Start) -> None:
    alias = f"redis://localhost:{store.port}/0"
    for _ in range(2):
        line = start("first", at(store, 0), cache=alias)
        assert line.startswith("CACHE_URL leads to the database of REDIS_URL")
    assert start("first", at(store, 0)) == ""


def test_a_server_with_too_few_databases_is_refused(yard: Yard, start: Start) -> None:
    server = yard.store("small", databases="1")
    server.start()
    remedy = "raise `databases` in its configuration, or name another server in CACHE_URL"
    assert remedy in start("first", at(server, 0))
    assert "raise `databases`" in start("first", at(server, 3))


def test_to_look_leaves_no_mark(store: StoreServer, start: Start) -> None:
    assert start("first", at(store, 0), by="check") == ""
    assert store.client.info("keyspace") == {}
    assert start("first", at(store, 0)) == ""
    assert start("second", at(store, 0), by="check").startswith("REDIS_URL names the store of an")


def test_a_cache_that_is_away_doesnt_hide_whose_the_store_is(
    store: StoreServer, start: Start
) -> None:
    assert start("first", at(store, 0)) == ""
    away = "redis://127.0.0.1:9/0"
    with pytest.raises(redis.ConnectionError):
        start("first", at(store, 0), cache=away)
    assert start("second", at(store, 0), cache=away).startswith("REDIS_URL names the store of an")
