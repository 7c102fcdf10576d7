"""A reload (HUP) gives the workers new settings, and is refused while a setting is wrong.

Workers are forked from gunicorn's master, and have what it imported as it was when the master
started. So the master imports neither the settings nor Django: it asks a process of its own where
to listen, and each worker reads the settings after the fork. A test lists the master's modules
(tests/proxy_site/serving/test_reload.py).

HUP is for settings. A release is a restart: modules that the master has imported stay the old ones.
"""

import functools
import subprocess
import sys
from typing import Any

# Seconds in which a process must have read the settings, and imported all that a worker imports.
PATIENCE = 60.0


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


def _run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own; what it says on stderr goes to the log."""
    return subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
