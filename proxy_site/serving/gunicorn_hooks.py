"""gunicorn's hooks: private methods that a node's worker class overrides or calls.

gunicorn promises nothing about them, so pyproject.toml pins its version, and each is checked here
before the worker class is made: the start fails with one line instead of a node that hangs.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping
from typing import Any

import gunicorn

SUPPORTED = "27"

# Dotted path of a class → method → its signature as inspect.signature shows it.
HOOKS: Mapping[str, Mapping[str, str]] = {
    "gunicorn.arbiter.Arbiter": {
        "reload": "(self)",
    },
    "gunicorn.workers.gthread.ThreadWorker": {
        "_keepalive_after": "(self, conn, keepalive)",
        "accept": "(self, listener)",
        "enqueue_req": "(self, conn)",
        "finish_request": "(self, conn, fs)",
        "handle": "(self, conn)",
        "handle_error": "(self, req, client, addr, exc)",
        "handle_request": "(self, req, conn)",
        "load_wsgi": "(self)",
        "murder_pending": "(self)",
        "set_accept_enabled": "(self, enabled)",
        "wait_for_and_dispatch_events": "(self, timeout)",
    },
    "gunicorn.workers.gthread.TConn": {
        "__init__": "(self, cfg, sock, client, server)",
        "close": "(self, graceful=False)",
    },
    "gunicorn.http.parser.Parser": {
        "finish_body": "(self, deadline=None, max_bytes=None)",
    },
}


class UnsupportedGunicornError(Exception):
    """The installed gunicorn has no such hook, or has it with another signature."""


def thread_worker() -> Any:
    """Return gunicorn's ThreadWorker after the checks; ends the process with one line on stderr
    when one fails."""
    try:
        check()
    except UnsupportedGunicornError as error:
        sys.exit(f"aipriceaction-proxy: {error}")  # gunicorn would wrap an error in its traceback
    return _load("gunicorn.workers.gthread.ThreadWorker")


def check() -> None:
    """Raise UnsupportedGunicornError for the first hook that differs from ``HOOKS``."""
    for path, methods in HOOKS.items():
        owner = _load(path)
        name = path.rpartition(".")[2]
        if owner is None:
            raise _unsupported(f"{path} is missing")
        for method, expected in methods.items():
            found = getattr(owner, method, None)
            if found is None:
                raise _unsupported(f"{name}.{method}{expected} is missing")
            signature = str(inspect.signature(found))
            if signature != expected:
                raise _unsupported(f"{name}.{method}{expected} has become {signature}")


def _load(path: str) -> Any:
    """Return the class at a dotted path; None if there is none."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _unsupported(what: str) -> UnsupportedGunicornError:
    return UnsupportedGunicornError(
        f"gunicorn {gunicorn.__version__} isn't supported: {what}; "
        f"install gunicorn {SUPPORTED} (requirements.lock has it)"
    )
