"""A reload (HUP) gives the workers new settings; a release (USR2) replaces the master as well.

Workers are forked from gunicorn's master, and have what it imported as it was when the master
started. So the master imports neither the settings nor Django: it asks a process of its own where
to listen, and each worker reads the settings after the fork. A test lists the master's modules
(tests/proxy_site/serving/test_reload.py).

HUP is for settings: modules that the master has imported stay the old ones. At USR2 gunicorn starts
a new master on the same sockets, beside the old one, which goes on when the new one can't start.
"""

import contextlib
import fcntl
import functools
import os
import signal
import subprocess
import sys
from typing import Any

import psutil
from gunicorn import systemd

# Seconds in which a process must have read the settings, and imported all that a worker imports.
PATIENCE = 60.0
TRIES = 3


@functools.cache
def listening() -> list[str]:
    """Return BIND as gunicorn's ``bind``. Ends the process, after the line that says which setting
    is wrong.

    It is asked once: a reload that lost its address to another program would end the node, so that
    BIND and PORT are taken at a restart only.
    """
    done = _run("from proxy_site.settings import BIND; print(*BIND, sep='\\n')")
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.splitlines()


def check_before_reload(arbiter: Any) -> None:
    """Have gunicorn's arbiter go on as it is when a new worker couldn't start.

    By itself it ends the old workers before the new ones have read their settings, and starts new
    ones for ever when they can't.
    """
    reload = arbiter.reload

    def reload_if_workers_can_start() -> None:
        try:
            wrong = _run("import proxy_site.wsgi").returncode != 0
        except subprocess.TimeoutExpired:
            wrong = True
        if wrong:
            arbiter.log.error("Not reloaded, as said above; the workers go on as they are")
        else:
            reload()

    arbiter.reload = reload_if_workers_can_start


def place_sockets(arbiter: Any) -> None:
    """Put systemd's sockets where the master that USR2 starts looks for them (sd_listen_fds(3)).

    gunicorn 27 tells it that they are there, but has moved them when it started itself.
    """
    if not arbiter.systemd:
        return
    first, count = systemd.SD_LISTEN_FDS_START, len(arbiter.LISTENERS)
    copies = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, first + count) for one in arbiter.LISTENERS]
    for place, copy in enumerate(copies, start=first):
        os.dup2(copy, place)
        os.close(copy)


def take_over(worker: Any) -> None:
    """End the master that got USR2, if this worker is ready as one of the master that it started.

    gunicorn leaves that to the operator. systemd is told which process is the service's main one
    from now on (sd_notify(3)); it would otherwise end the service with the old master.
    """
    old_master = int(os.environ.get("GUNICORN_PID", 0))
    # When another worker was ready before, it has ended, and its number may be another process's.
    if old_master and psutil.Process(worker.ppid).ppid() == old_master:
        systemd.sd_notify(f"MAINPID={worker.ppid}", worker.log)
        with contextlib.suppress(ProcessLookupError):
            os.kill(old_master, signal.SIGTERM)


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own; what it says on stderr goes to the log.

    One that is killed (out of memory, say) has said nothing of the settings, and is run again.
    """
    for _ in range(TRIES):
        done = subprocess.run(  # noqa: S603 - our own code
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode >= 0:
            break
    return done
