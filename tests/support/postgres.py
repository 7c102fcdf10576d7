"""The PostgreSQL server that the reputation tests run on a second time, where there is one."""

import functools
import getpass
import os
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

REACH_WITHIN = 1.0  # seconds
USUAL = tuple(
    f"postgres://{user}@127.0.0.1:5432/postgres"
    for user in dict.fromkeys(("postgres", getpass.getuser()))
)


@dataclass(frozen=True, slots=True)
class Postgres:
    """``url`` of a server on which databases may be made, "" for none; ``what`` says which it is,
    or why there is none."""

    url: str
    what: str


@functools.cache
def find() -> Postgres:
    """The server of DATABASE_TEST_URL, else this machine's own."""
    named = os.environ.get("DATABASE_TEST_URL", "")
    tried = [_try(url) for url in ((named,) if named else USUAL)]
    return next((found for found in tried if found.url), tried[0])


def _try(url: str) -> Postgres:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "127.0.0.1", parts.port or 5432
    except ValueError:
        return Postgres("", "DATABASE_TEST_URL isn't a URL")
    place = f"{host}:{port}"
    try:
        import psycopg

        socket.create_connection((host, port), REACH_WITHIN).close()
        with psycopg.connect(url, connect_timeout=2) as connection:
            version = connection.info.server_version // 10_000
            row = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
    except ImportError:
        return Postgres("", "the driver psycopg isn't installed")
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Postgres("", f"nothing listens on {place} ({why})")
    except psycopg.Error as error:
        return Postgres("", f"{place} lets us not in ({type(error).__name__})")
    if not row or not row[0]:
        return Postgres("", f"{place} lets this user make no database")
    return Postgres(url, f"PostgreSQL {version} at {place}")


def drop(url: str, database: str) -> None:
    """Drop a database whoever still uses it: a run that was cut off leaves its own behind."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database))
        )
