"""A fixture per real thing."""

from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from proxy_site import embedded


@pytest.fixture(scope="session")
def server() -> Iterator[redis.Redis]:
    """A real Valkey or Redis server of the tests' own."""
    embedded.ensure(settings.DATA_DIR)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client
    embedded.release(settings.DATA_DIR)


@pytest.fixture
def clean_server(server: redis.Redis) -> redis.Redis:
    """The server with every database empty."""
    server.flushall()
    return server
