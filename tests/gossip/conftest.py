"""Fixtures of these tests; what they are made of is in tests/support/doors.py."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import redis
from django.conf import settings as node_settings

from tests.support.core import Core
from tests.support.doors import empty_market, market  # noqa: F401 - fixtures
from tests.support.peers import Behaviour, Node, Nodes, take
from tickers.market_clock import MarketClock
from tickers.store.redis_client import connect
from tickers.store.store import Store


@pytest.fixture
def store(clean_server: redis.Redis) -> Iterator[Store]:
    """An empty store, read and written by the test itself; the doors' is ``empty_market``."""
    with connect(node_settings.REDIS_URL, timeout=5) as client:
        clock = MarketClock(frozen_at=node_settings.DEBUG_SYSTEM_TIME)
        yield Store(client, clock=clock, trust_window=300)


@pytest.fixture
def core(store: Store) -> Iterator[Core]:
    """A core node's worker, on ``store``."""
    core = Core(store)
    yield core
    for delivery in core.deliveries:
        delivery.stop(timeout=2)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """``nodes(behaviour)`` starts a peer."""
    with ExitStack() as stack:

        def make(behaviour: Behaviour = take, **options: Any) -> Node:
            return stack.enter_context(closing(Node(behaviour, **options)))

        yield make
