"""Fixtures of these tests; what they are made of is in tests/support/checks.py."""

from typing import Any

import pytest

from tests.support.doors import empty_market, market  # noqa: F401 - fixtures


@pytest.fixture
def unlimited(settings: Any) -> None:
    """No sender is limited or banned, so that every request reaches what it was made for."""
    settings.PUBLIC_RATE, settings.BAN_AFTER_FAILURES = "1000000/s", 1_000_000
