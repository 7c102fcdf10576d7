"""A fixture per real thing."""

from collections.abc import Iterator

import pytest
import redis
from django.conf import settings
from hypothesis import settings as hypothesis_settings

from proxy_site.local import embedded_redis
from tests.support import postgres


def pytest_report_header() -> str:
    """On which databases reputation is tested, and why not on PostgreSQL."""
    if settings.DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        return "reputation is tested on PostgreSQL only, in this process of another run"
    found = postgres.find()
    if found.url:
        return f"reputation is tested on SQLite, then on {found.what}"
    return f"reputation is tested on SQLite only: {found.what}"


def pytest_configure() -> None:
    # Tests write to the store behind the back of the process that reads it.
    settings.POSITION_LIFETIME = 0.0
    # Threads of a test stand for threads of many processes, each with a bulkhead of its own.
    settings.DATABASE_THREADS = 1_000
    # How long an example takes is the machine's: times are measured in benchmarks/.
    hypothesis_settings.register_profile("without deadlines", deadline=None)
    hypothesis_settings.load_profile("without deadlines")


@pytest.fixture(scope="session")
def server() -> Iterator[redis.Redis]:
    """A real Valkey or Redis server of the tests' own."""
    embedded_redis.ensure(settings.DATA_DIR)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        yield client
    embedded_redis.release(settings.DATA_DIR)


@pytest.fixture
def clean_server(server: redis.Redis) -> redis.Redis:
    """The server with every database empty."""
    server.flushall()
    return server
