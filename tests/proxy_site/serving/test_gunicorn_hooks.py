"""A gunicorn whose inner methods are other than the worker class needs is refused in one line."""

import subprocess
import sys
from inspect import isfunction
from pathlib import Path
from typing import Any

import gunicorn
import pytest
from gunicorn.http.parser import Parser
from gunicorn.workers import gthread
from gunicorn.workers.gthread import ThreadWorker

from proxy_site.serving import gunicorn_hooks
from proxy_site.serving.gunicorn_hooks import HOOKS, UnsupportedGunicornError, check
from proxy_site.serving.gunicorn_worker import GunicornWorker
from tests.support.environment import clean
from tests.support.nodes import PRIMARY, ROOT, SECONDARY, free_port


def test_the_installed_gunicorn_has_every_hook() -> None:
    check()


def test_every_inner_method_that_is_overridden_is_a_hook() -> None:
    ours = [base for base in GunicornWorker.__mro__ if base.__module__.startswith("proxy_site.")]
    written = {name for base in ours for name, found in vars(base).items() if isfunction(found)}
    overridden = {name for name in written - {"__init__"} if hasattr(ThreadWorker, name)}
    assert overridden == set(HOOKS["gunicorn.workers.gthread.ThreadWorker"])


INNER = [(ThreadWorker, "accept"), (ThreadWorker, "_keepalive_after"), (Parser, "finish_body")]


@pytest.mark.parametrize(("owner", "method"), INNER)
def test_a_hook_of_another_form_is_named(
    owner: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, lambda self, event, /: None)
    said = rf"{owner.__name__}\.{method}\(self, .*\) has become \(self, event, /\);"
    with pytest.raises(UnsupportedGunicornError, match=said):
        check()


@pytest.mark.parametrize(("owner", "method"), INNER)
def test_a_hook_that_is_missing_is_named(
    owner: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, method)
    said = rf"{owner.__name__}\.{method}\(self, .*\) is missing;"
    with pytest.raises(UnsupportedGunicornError, match=said):
        check()


def test_a_class_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(gthread, "TConn")
    with pytest.raises(
        UnsupportedGunicornError, match=r"gunicorn\.workers\.gthread\.TConn is missing"
    ):
        check()


def test_a_start_with_another_gunicorn_fails_with_one_line(tmp_path: Path) -> None:
    conf = tmp_path / "gunicorn.conf.py"
    other = """
import gunicorn
from gunicorn.workers.gthread import ThreadWorker
gunicorn.__version__ = "28.0.1"
ThreadWorker.finish_request = lambda self, conn, fs, reason: None
"""
    conf.write_text((ROOT / "gunicorn.conf.py").read_text() + other)
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", str(conf)],
        cwd=ROOT,
        env=clean(
            DATA_DIR=str(tmp_path),
            PRIMARY_TOKEN=PRIMARY,
            SECONDARY_TOKEN=SECONDARY,
            PORT=str(free_port()),
        ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout + done.stderr == (
        "aipriceaction-proxy: gunicorn 28.0.1 isn't supported: ThreadWorker.finish_request"
        "(self, conn, fs) has become (self, conn, fs, reason); install gunicorn 27 "
        "(requirements.lock has it)\n"
    )


def test_the_supported_version_is_the_one_that_is_installed() -> None:
    assert gunicorn.__version__.split(".")[0] == gunicorn_hooks.SUPPORTED
