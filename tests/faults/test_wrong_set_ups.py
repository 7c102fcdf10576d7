"""What an operator gets wrong at first is said in one line, with the setting and without its value.

Commands are real processes; which error a server gives for what is asked of real servers.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.db import DEFAULT_DB_ALIAS, Error, OperationalError
from django.db.utils import ConnectionHandler

from proxy_site import reasons
from proxy_site.environment import Environment
from tests.support import postgres
from tests.support.environment import clean
from tests.support.nodes import ROOT, free_port, wait_for
from tests.support.yard import PRIMARY, SECONDARY, Node, StoreServer, Yard
from tickers.store.redis_client import connect

PASSWORD = "swordfish-of-the-store"
REFUSED = "the database refuses us: correct the user and the password in DATABASE_URL"
NOWHERE = "redis://127.0.0.1:9/0"


def command(folder: Path, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of a node that keeps its data in ``folder``; stderr comes with stdout."""
    environment = clean(
        **{
            "DATA_DIR": str(folder),
            "PRIMARY_TOKEN": PRIMARY,
            "SECONDARY_TOKEN": SECONDARY,
            "REDIS_URL": NOWHERE,
            **settings,
        }
    )
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )


def only_line(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode != 0
    (line,) = done.stdout.splitlines()
    assert line.startswith("aipriceaction-proxy: ")
    return line


# --- Commands -------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_one_line(tmp_path: Path) -> None:
    url = f"postgres://node:{PASSWORD}@127.0.0.1:9/node"
    line = only_line(command(tmp_path, "manage.py", "migrate", DATABASE_URL=url))
    assert "the database can't be used" in line
    assert "DATABASE_URL" in line
    assert PASSWORD not in line


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "reputation.sqlite3").write_text("no database, but long enough to look at" * 9)
    line = only_line(command(tmp_path, "manage.py", "migrate"))
    assert "none of SQLite's" in line
    assert "DATA_DIR" in line


@pytest.mark.parametrize("folder", ["a file", "/sys", "/proc/nowhere/below"])
def test_a_data_folder_that_cant_be_written_is_one_line(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a file").touch()
    line = only_line(command(tmp_path / folder, "manage.py", "check"))
    assert line.startswith("aipriceaction-proxy: DATA_DIR ")
    assert "Example: DATA_DIR=" in line


def test_gunicorn_ends_where_the_data_folder_cant_be_written() -> None:
    done = command(
        Path("/sys"),
        "-m",
        "gunicorn",
        "-c",
        "gunicorn.conf.py",
        PORT=str(free_port()),
        DATABASE_URL="postgres://node@127.0.0.1:9/node",
    )
    assert done.returncode != 0
    assert "aipriceaction-proxy: DATA_DIR " in done.stdout
    assert "Traceback" not in done.stdout


def test_tables_that_are_missing_are_one_line(tmp_path: Path) -> None:
    line = only_line(command(tmp_path, "manage.py", "prune_actors"))
    assert (
        line == "aipriceaction-proxy: the database lacks tables or columns: run manage.py migrate"
    )


def test_a_fault_of_the_code_keeps_its_traceback(tmp_path: Path) -> None:
    done = command(
        tmp_path,
        "-c",
        """
from unittest import mock
from proxy_site import command_line
with mock.patch.object(command_line, "execute_from_command_line", side_effect=KeyError("a bug")):
    command_line.run(["manage.py", "check"])
""",
        DJANGO_SETTINGS_MODULE="proxy_site.settings",
    )
    assert done.returncode == 1
    assert "Traceback" in done.stdout


def test_one_cycle_without_a_store_says_so(tmp_path: Path) -> None:
    done = command(tmp_path, "manage.py", "run_worker", "--once")
    assert done.returncode == 1
    assert "no cycle was run: the store can't be reached" in done.stdout
    assert "see REDIS_URL" in done.stdout
    assert "another worker" not in done.stdout


# --- What an operator hasn't run yet --------------------------------------------------------------


def test_what_wasnt_run_yet_is_named_and_the_page_works(yard: Yard, tmp_path: Path) -> None:
    store = yard.store("store")
    store.start()
    port = yard.port()
    settings = {
        "ENVIRONMENT": "production",
        "ALLOWED_HOSTS": "*",
        "SECRET_KEY": "wrong-set-ups-0123456789-abcdefghijklmnopqrstuvwxyz",
        "REDIS_URL": store.url,
        "INTERNAL_PEER_URLS": "",
        "PUBLIC_PEER_URLS": "",
        "PORT": str(port),
    }
    data = tmp_path / "data"
    tokens = {"PRIMARY_TOKEN": PRIMARY, "SECONDARY_TOKEN": SECONDARY}
    api = yard.api("api", clean(DATA_DIR=str(data), **tokens, **settings), workers=1)
    api.start()
    node = Node("node", store, api, api, port)
    wait_for(node.answers, "the node to answer", node)

    files = re.findall(r'"(/static/[^"]+)"', node.get("/").text)
    assert [node.get(file).status_code for file in files] == [200] * 3
    refused = node.post("/public/gossip", {})
    assert refused.status_code == 503
    assert refused.json() == {
        "detail": "The node's database isn't set up: its operator must run manage.py migrate.",
        "code": "database_unavailable",
    }
    assert "answering 503: the database lacks tables or columns: run manage.py migrate" in api.log()
    problems = node.get("/health").json()["problems"]
    (static,) = [problem for problem in problems if "static files" in problem]
    (migrations,) = [problem for problem in problems if "migrations" in problem]
    assert "run manage.py collectstatic" in static
    assert re.fullmatch(r"migrations aren't applied \(\d+\): run manage.py migrate", migrations)

    for name in ("migrate", "collectstatic --noinput"):
        done = command(data, "manage.py", *name.split(), "--verbosity=0", **settings)
        assert (done.returncode, done.stdout) == (0, "")
    problems = node.get("/health").json()["problems"]
    assert not [problem for problem in problems if "static" in problem or "migrat" in problem]


# --- Redis ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(module_yard: Yard) -> StoreServer:
    """A server with a password and one database."""
    server = module_yard.store("locked", requirepass=PASSWORD, databases="1")
    server.start()
    return server


def refusal(url: str, ask: Callable[[redis.Redis], object] = lambda client: client.ping()) -> str:
    with connect(url, timeout=2) as client, pytest.raises(redis.RedisError) as caught:
        ask(client)
    for line in (reasons.of_store(caught.value), reasons.of_store(caught.value, for_anyone=True)):
        assert "REDIS_URL" in line or "can't be reached" in line
        assert PASSWORD not in line
        assert "\n" not in line
    return reasons.of_store(caught.value)


@pytest.mark.parametrize("credentials", ["", ":wrong@", "stranger:wrong@", f"stranger:{PASSWORD}@"])
def test_a_wrong_password_of_redis_names_its_setting(locked: StoreServer, credentials: str) -> None:
    line = refusal(f"redis://{credentials}127.0.0.1:{locked.port}/0")
    assert line == "the store refuses us: correct the user and the password in REDIS_URL"


def test_a_database_that_redis_lacks_names_the_remedy(locked: StoreServer) -> None:
    line = refusal(locked.url.replace("/0", "/1"))
    assert "too few databases: raise `databases`" in line


def test_a_redis_user_without_rights_names_the_remedy(locked: StoreServer) -> None:
    locked.client.acl_setuser(
        "narrow", enabled=True, passwords=["+narrow"], commands=["+get"], keys=["mine"]
    )
    line = refusal(f"redis://narrow:narrow@127.0.0.1:{locked.port}/0", lambda c: c.set("a", "b"))
    assert "allow the user of REDIS_URL all (ACL)" in line


def test_a_replica_names_the_remedy(locked: StoreServer) -> None:
    locked.client.replicaof("127.0.0.1", "9")
    try:
        line = refusal(locked.url, lambda client: client.set("a", "b"))
    finally:
        locked.client.replicaof("NO", "ONE")
    assert line == "the store's server is a replica: name its primary in REDIS_URL"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (NOWHERE, "Connection refused"),
        ("unix:///nowhere/redis.sock?db=0", "No such file"),
        ("redis+sentinel://127.0.0.1:9/mymaster/0", "No master found for 'mymaster'; do"),
    ],
)
def test_a_server_that_isnt_there_is_named_by_its_setting(url: str, words: str) -> None:
    line = refusal(url)
    assert words in line
    assert line.endswith("see REDIS_URL")
    assert len(line) < 200


# --- The database ---------------------------------------------------------------------------------

Ask = Callable[..., str]


@pytest.fixture
def refuse(django_db_blocker: Any) -> Iterator[Ask]:
    """Asks a database of a URL, which refuses the last query; returns the reason."""

    def refuse(url: str, *queries: str) -> str:
        config: Any = Environment({"DATABASE_URL": url}).database("DATABASE_URL", "")
        connection = ConnectionHandler({DEFAULT_DB_ALIAS: config})[DEFAULT_DB_ALIAS]
        try:
            for query in queries[:-1]:
                connection.cursor().execute(query)
            with pytest.raises(Error) as caught:
                connection.cursor().execute(queries[-1] if queries else "SELECT 1")
        finally:
            connection.close()
        line = reasons.of_database(caught.value)
        for told in (line, reasons.of_database(caught.value, for_anyone=True)):
            assert PASSWORD not in told
            assert "\n" not in told
        assert reasons.of(caught.value) == line
        return line

    with django_db_blocker.unblock():
        yield refuse


MAKE = "CREATE TABLE there (id INTEGER)"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM reputation_actor",
        "SELECT colour FROM there",
        "INSERT INTO there (colour) VALUES (1)",
        "UPDATE there SET colour = 1",
    ],
)
def test_what_migrations_make_names_the_command(tmp_path: Path, query: str, refuse: Ask) -> None:
    url = f"sqlite:///{tmp_path / 'there.sqlite3'}"
    assert refuse(url, MAKE, query).endswith("run manage.py migrate")


def test_a_file_of_another_user_names_the_remedy(tmp_path: Path, refuse: Ask) -> None:
    file = tmp_path / "there.sqlite3"
    assert "can't be written" in refuse(f"sqlite:///{file.parent / 'nowhere' / 'there.sqlite3'}")
    file.touch()
    assert "can't be written" in refuse(f"sqlite:///{file}", "PRAGMA query_only=ON", MAKE)


@pytest.mark.skipif(not postgres.find().url, reason=postgres.find().what)
def test_postgresqls_refusals_name_the_remedy(refuse: Ask) -> None:
    server = postgres.find().url
    place = urlsplit(server)
    stranger = f"postgres://nobody:{PASSWORD}@{place.hostname}:{place.port or 5432}/nothing"
    assert refuse(stranger) == REFUSED
    assert "doesn't exist: create it" in refuse(place._replace(path="/nothing").geturl())
    assert refuse(server, "SELECT * FROM reputation_actor").endswith("run manage.py migrate")
    assert refuse(server, "SELECT colour FROM pg_roles").endswith("run manage.py migrate")
    narrow = ("BEGIN", "CREATE ROLE narrow_test", "SET LOCAL ROLE narrow_test")
    assert "owner of the database" in refuse(server, *narrow, "CREATE TABLE public.no (id int)")


def test_a_wrong_password_of_postgresql_names_its_setting() -> None:
    text = 'connection failed: FATAL:  password authentication failed for user "node"'
    assert reasons.of_database(OperationalError(text)) == REFUSED
