"""Who may read what a node keeps: real processes under a careless umask, and what they leave."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy_site import file_modes
from proxy_site.local import embedded_redis
from tests.support.environment import clean
from tests.support.nodes import ROOT

# As gunicorn and the worker begin, but for the market: the server, an account, and a session whose
# rows are in the files beside the database while it is open.
NODE = """
import django, os, stat, sys
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from proxy_site.local import embedded_redis
embedded_redis.ensure(settings.DATA_DIR)
call_command("migrate", verbosity=0)
call_command("collectstatic", verbosity=0, interactive=False)
User.objects.get_or_create(username="keeper")
import redis
with redis.Redis.from_url(settings.REDIS_URL) as server:
    server.set("market", "here")
    server.bgrewriteaof()
print("ready", flush=True)
sys.stdin.read()
"""
TOKENS = {"PRIMARY_TOKEN": "modes-primary-token", "SECONDARY_TOKEN": "modes-secondary-token"}


@contextlib.contextmanager
def a_node(data: Path, umask: int) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", NODE],
        cwd=ROOT,
        env=clean(DATA_DIR=str(data), DJANGO_SETTINGS_MODULE="proxy_site.settings", **TOKENS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        umask=umask,
    )
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.communicate(timeout=60)
        embedded_redis.stop(data)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def open_to_others(data: Path) -> dict[str, str]:
    """What of a node's folder others may do anything with, but for the folder and ``static``."""
    return {
        str(path.relative_to(data)): f"{mode(path):o}"
        for path in data.rglob("*")
        if mode(path) & 0o077 and data / "static" not in (path, *path.parents)
    }


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=["umask 000", "umask 022", "umask 077"])
def umask(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "deep" / "data"
    embedded_redis.stop(tmp_path / "deep" / "data")


class TestANode:
    def test_keeps_its_files_to_itself_and_static_ones_readable(
        self, data: Path, umask: int
    ) -> None:
        with a_node(data, umask):
            names = {path.name for path in data.iterdir()}
            assert {"reputation.sqlite3", "reputation.sqlite3-wal", "appendonlydir"} <= names
            assert {"reputation.sqlite3-shm", "server.log", "server.lock", "static"} <= names
            assert open_to_others(data) == {}
            assert mode(data) == 0o711
            assert mode(data.parent) & 0o022 == 0
            files = [data / "static", *(data / "static").rglob("*")]
            assert len(files) > 100
            for path in files:
                assert mode(path) == (0o755 if path.is_dir() else 0o644), path
            socket = Path(embedded_redis.url(data).removeprefix("unix://").split("?")[0])
            assert (mode(socket), mode(socket.parent)) == (0o600, 0o700)
        assert open_to_others(data) == {}

    def test_closes_what_an_older_version_left_open(self, data: Path, umask: int) -> None:
        with a_node(data, umask):
            pass
        for path in (data, *data.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        (data / "dump.rdb").touch(0o666)
        with a_node(data, umask):
            assert open_to_others(data) == {}
            assert mode(data) & 0o022 == 0
            assert mode(data / "static") == 0o755

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
    def test_lets_another_user_read_static_files_alone(self) -> None:
        nobody = {"user": 65_534, "group": 65_534, "extra_groups": []}

        def reads(path: Path) -> bool:
            command = [shutil.which("cat") or "cat", str(path)]
            done = subprocess.run(command, capture_output=True, check=False, **nobody)  # type: ignore[call-overload]  # the three are its own
            return bool(done.returncode == 0)

        # Nobody else reaches pytest's own folders.
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o711)
            data = Path(folder) / "data"
            with a_node(data, 0o000):
                assert reads(next((data / "static").rglob("*.css")))
                for name in ("reputation.sqlite3", "reputation.sqlite3-wal", "server.log"):
                    assert (data / name).exists()
                    assert not reads(data / name)


class TestMakeDatabase:
    def test_closes_the_files_beside_it(self, tmp_path: Path, umask: int) -> None:
        file = tmp_path / "reputation.sqlite3"
        for ending in ("", "-wal", "-shm", "-journal"):
            file.with_name(file.name + ending).touch(0o666)
            file.with_name(file.name + ending).chmod(0o666)
        file_modes.make_database(file)
        assert {mode(path) for path in tmp_path.iterdir()} == {0o600}

    def test_follows_a_link_and_keeps_what_is_stored(self, tmp_path: Path) -> None:
        real, link = tmp_path / "real.sqlite3", tmp_path / "link.sqlite3"
        with contextlib.closing(sqlite3.connect(real)) as database:
            database.execute("CREATE TABLE kept (row)")
        real.chmod(0o644)
        link.symlink_to(real)
        file_modes.make_database(link)
        assert mode(real) == 0o600
        with contextlib.closing(sqlite3.connect(link)) as database:
            assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("kept",)]


class TestMakeFolder:
    def test_leaves_a_shared_folder_as_it_is(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o1777)
        file_modes.make_folder(tmp_path, file_modes.DATA_FOLDER)
        assert mode(tmp_path) == 0o1777

    @pytest.mark.parametrize(("before", "after"), [(0o750, 0o750), (0o777, 0o755)])
    def test_takes_others_right_to_write_alone_from_one_that_is_there(
        self, before: int, after: int, tmp_path: Path
    ) -> None:
        tmp_path.chmod(before)
        file_modes.make_folder(tmp_path, file_modes.DATA_FOLDER)
        assert mode(tmp_path) == after
