"""Fixtures of these tests; what they are made of is in tests/support/bars.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings

from tests.support.bars import OwnServer, a_store, lead
from tickers.store.redis_client import connect
from tickers.store.store import Store


@pytest.fixture
def store_client(clean_server: redis.Redis) -> Iterator[redis.Redis]:
    with connect(settings.REDIS_URL, timeout=5) as client:
        yield client


@pytest.fixture
def store(store_client: redis.Redis) -> Store:
    return a_store(store_client)


@pytest.fixture
def fence(store: Store) -> str:
    return lead(store)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[OwnServer]:
    server = OwnServer(tmp_path)
    try:
        yield server
    finally:
        server.stop()
        server.client.close()
