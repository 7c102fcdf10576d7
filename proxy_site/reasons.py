"""Reasons say in one line why Redis, the database or a folder can't be used, and what helps.

A reason names the setting to correct and never repeats its value, which may hold a password.
"""

import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path

import redis
from django.conf import settings
from django.db import DatabaseError, Error, InterfaceError, OperationalError
from redis.sentinel import MasterNotFoundError

MIGRATE = "run manage.py migrate"

# PostgreSQL's SQLSTATE of an undefined table and column, and of a missing privilege.
_UNDEFINED = {"42P01", "42703"}
_NO_PRIVILEGE = "42501"


def of_store(error: Exception, *, for_anyone: bool = False) -> str:
    """Return why the store can't be used; ``for_anyone``: without its address."""
    return _of_redis(error, "store", "REDIS_URL", for_anyone)


def of_cache(error: Exception, *, for_anyone: bool = False) -> str:
    """Return why the cache can't be used; ``for_anyone``: without its address."""
    return _of_redis(error, "cache", cache_setting(), for_anyone)


def cache_setting() -> str:
    """Return the setting that names the cache's server."""
    return "CACHE_URL" if settings.CACHE_HAS_ITS_OWN_URL else "REDIS_URL"


def _of_redis(error: Exception, what: str, setting: str, for_anyone: bool) -> str:
    text = str(error)
    if isinstance(error, redis.AuthenticationError):
        return f"the {what} refuses us: correct the user and the password in {setting}"
    if lacks_database(error):
        return (
            f"the {what}'s server has too few databases: raise `databases` in its configuration, "
            + (
                "or name another server in CACHE_URL"
                if what == "cache"
                else f"or correct {setting}"
            )
        )
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"the {what} forbids us commands or keys: allow the user of {setting} all (ACL)"
    if isinstance(error, redis.ReadOnlyError):
        return f"the {what}'s server is a replica: name its primary in {setting}"
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return f"the {what} is out of memory: it refuses writes; raise its maxmemory"
    if for_anyone:
        return f"the {what} can't be reached ({type(error).__name__})"
    if isinstance(error, MasterNotFoundError):
        text = f"{text.partition(' : ')[0]}; do the sentinels answer, and know that name"
    return f"the {what} can't be reached ({_line(text) or type(error).__name__}): see {setting}"


def lacks_database(error: Exception) -> bool:
    """Tell whether a Redis server has fewer databases than the URL names."""
    return "DB index is out of range" in str(error)


def of_database(error: Error, *, for_anyone: bool = False) -> str:
    """Return why the database can't be used; ``for_anyone``: without its address."""
    text = str(error)
    if lacks_tables(error):
        return f"the database lacks tables or columns: {MIGRATE}"
    if re.search(r'authentication failed|no password supplied|role "[^"]*" does not exist', text):
        return "the database refuses us: correct the user and the password in DATABASE_URL"
    if re.search(r'database "[^"]*" does not exist', text):
        return "the database doesn't exist: create it, or correct the name in DATABASE_URL"
    if _state(error) == _NO_PRIVILEGE:
        return (
            "the database's user lacks a right: make the user of DATABASE_URL the owner of the "
            f"database{'' if for_anyone else f' ({_line(text)})'}"
        )
    if re.search("unable to open database file|readonly database", text):
        return _of_file(for_anyone)
    if "file is not a database" in text:
        return f"the database's file is none of SQLite's: correct {_database_setting()}"
    if for_anyone:
        return f"the database can't be reached ({type(error).__name__})"
    return f"the database can't be used ({_line(text)}): see {_database_setting()}"


def _of_file(for_anyone: bool) -> str:
    file = "file" if for_anyone else f"file {settings.DATABASES['default']['NAME']}"
    return (
        f"the database's {file} can't be written: it and its folder must belong to the node's "
        f"user{'' if for_anyone else f', here {user()}'} (see {_database_setting()})"
    )


def _database_setting() -> str:
    return "DATABASE_URL" if settings.DATABASE_HAS_ITS_OWN_URL else "DATA_DIR"


def lacks_tables(error: BaseException) -> bool:
    """Tell whether a query failed because migrations weren't run."""
    return _state(error) in _UNDEFINED or (
        isinstance(error, OperationalError)
        and re.match("no such (table|column)|table .* has no column", str(error)) is not None
    )


def _state(error: BaseException) -> str:
    return str(getattr(error.__cause__, "sqlstate", None) or "")


def of_folder(error: OSError) -> str:
    """Return why a file or folder in DATA_DIR can't be made or written, after that name."""
    return (
        f"must be a folder that the node's user, here {user()}, may write "
        f"({error.filename}: {error.strerror})"
    )


def of(error: BaseException) -> str:
    """Return the reason of what ended a command; "" for an error that is a fault of the code."""
    for link in _chain(error):
        if isinstance(link, redis.RedisError):
            if settings.CACHE_HAS_ITS_OWN_URL:  # the error doesn't say which of them it was
                return _of_redis(link, "store or cache", "REDIS_URL and CACHE_URL", False)
            return _of_redis(link, "store", "REDIS_URL", False)
        if isinstance(link, Error) and _is_the_databases(link):
            return of_database(link)
        if isinstance(link, OSError) and _is_in_data_dir(link):
            return f"DATA_DIR {of_folder(link)}"
    return ""


def _is_the_databases(error: Error) -> bool:
    """Return whether the database, and not a query, is at fault."""
    return (
        isinstance(error, OperationalError | InterfaceError)
        or type(error) is DatabaseError
        or lacks_tables(error)
        or _state(error) == _NO_PRIVILEGE
    )


def _is_in_data_dir(error: OSError) -> bool:
    return isinstance(error.filename, str) and Path(error.filename).is_relative_to(
        settings.DATA_DIR
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _line(text: str) -> str:
    return text.strip().partition("\n")[0]


def user() -> str:
    """Return the name of the user that this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"number {os.geteuid()}"
