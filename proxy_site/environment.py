"""The environment: settings are read from its variables, and each is checked where it is read.

A wrong variable ends the process with one line that names it, says what is wrong and gives an
example; the line never repeats the value, which may be a secret.
"""

import datetime as dt
import importlib.util
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ
import redis

from proxy_site.env_file import EnvFile
from proxy_site.env_file import read as read_env_file
from proxy_site.settings_error import Secret, SettingsError
from proxy_site.web_urls import (
    ENCODED,
    check_proxy,
    check_url,
    check_webhook,
    has_space,
    refuse_bare_password,
)
from tickers.store.redis_client import Sentinels, at_database, uses_sentinels

__all__ = ["Environment", "SettingsError", "is_weak", "next_database", "same_database"]

PLACEHOLDER = "change-me"
MINIMUM_SECRET = 16
# As Django compares them with the Host header, of which it takes the name only.
_HOST = re.compile(r"\*|\.?[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\]")
_RATE = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)?[smhd]")
_POSTGRES = ("postgres", "postgresql", "psql", "pgsql")

# The API and the files have these paths; the admin's must not begin with one.
TAKEN_PATHS = ("tickers", "gossip", "public", "health", "livez", "readyz", "static")
_PATH = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


class Environment:
    """The node's variables; each method reads one, checks it, and returns it typed.

    ``variables`` is the process environment; values of ``env_file`` fill in what it doesn't set.
    """

    def __init__(self, variables: Mapping[str, str], env_file: Path | None = None) -> None:
        self._file = EnvFile(Path()) if env_file is None else read_env_file(env_file)
        self._values = {**self._file.values, **variables}
        self._read: set[str] = set()
        self.kind = self.choice(
            "ENVIRONMENT", "development", ("development", "staging", "production")
        )

    @property
    def remarks(self) -> list[str]:
        """Lines about the file for the operator; complete once all settings are read."""
        return [*self._file.remarks, *self._file.misspelt(self._read)]

    def missing(self, name: str, problem: str, example: str) -> SettingsError:
        """Return the refusal of a variable that isn't set."""
        return SettingsError(name, problem + self._file.alike(name, self._read), example)

    @property
    def development(self) -> bool:
        return self.kind == "development"

    @property
    def production(self) -> bool:
        return self.kind == "production"

    def is_set(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        self._read.add(name)
        value = str(self._values.get(name, default)).strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            # Programs that pass a file on (docker --env-file) leave its quotes on the values.
            raise SettingsError(name, "has quotes around its value, which belong to it", "value")
        return value

    def either_case(self, name: str) -> str:
        """Read a variable that other programs write in lower case too, which goes first."""
        value = self.text(name)
        return self._values.get(name.lower(), "").strip() or value

    def _wrong(self, name: str, problem: str, default: str) -> SettingsError:
        """Return the refusal of a value; of an empty one, it says what may have been meant."""
        if not self.text(name, default):
            problem = f"is empty: it {problem}, and has its default when the line is left out"
        return SettingsError(name, problem, default)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value in ("1", "true", "yes", "on"):
            return True
        if value in ("0", "false", "no", "off"):
            return False
        raise self._wrong(name, "must be true or false", str(default).lower())

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise self._wrong(name, f"must be one of {', '.join(choices)}", default)
        return value

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        try:
            value = int(self.text(name, str(default)))
        except ValueError:
            raise self._wrong(name, "must be a whole number", str(default)) from None
        if not low <= value <= high:
            raise SettingsError(name, f"must be from {low} to {high}", str(default))
        return value

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        try:
            value = float(self.text(name, f"{default:g}"))
        except ValueError:
            raise self._wrong(name, "must be a number", f"{default:g}") from None
        if not low <= value <= high:  # refuses NaN and infinity too
            raise SettingsError(name, f"must be from {low:g} to {high:g}", f"{default:g}")
        return value

    def rate(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not _RATE.fullmatch(value):
            raise self._wrong(
                name, "must be REQUESTS/PERIOD, the period in s, m, h or d, as in 20/2s", default
            )
        return value

    def date(self, name: str, default: str) -> dt.date:
        try:
            return dt.date.fromisoformat(self.text(name, default))
        except ValueError:
            raise self._wrong(name, "must be a date, YYYY-MM-DD", default) from None

    def dates(self, name: str) -> frozenset[dt.date]:
        """Read comma-separated dates."""
        try:
            return frozenset(dt.date.fromisoformat(word) for word in self.words(name))
        except ValueError:
            raise SettingsError(
                name, "must be dates, YYYY-MM-DD", "2026-01-02,2026-11-24"
            ) from None

    def instant(self, name: str) -> dt.datetime | None:
        """Read an RFC 3339 instant with its offset; None when unset or empty."""
        value = self.text(name)
        if not value:
            return None
        example = "2025-08-15T10:00:00+07:00"
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            raise SettingsError(name, "must be an RFC 3339 time", example) from None
        if moment.tzinfo is None:
            raise SettingsError(name, "needs an offset from UTC", example)
        return moment

    def time_of_day(self, name: str, default: str) -> dt.time:
        """Read ``HH:MM``, or a whole hour as existing nodes write it."""
        value = self.text(name, default)
        try:
            time = dt.time(int(value)) if value.isdigit() else dt.time.fromisoformat(value)
        except (ValueError, OverflowError):
            raise self._wrong(name, "must be a time of day, HH:MM", default) from None
        if time.tzinfo is not None:
            raise SettingsError(name, "must be a time of day without an offset, HH:MM", default)
        return time

    def timezone(self, name: str, default: str) -> ZoneInfo:
        try:
            return ZoneInfo(self.text(name, default))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise self._wrong(name, "must be a time zone of the tz database", default) from None

    def path(self, name: str, default: str) -> str:
        """Read a path below the node's address, which ends in a slash: ``admin/``."""
        value = self.text(name, default).strip("/")
        if not _PATH.fullmatch(value):
            raise SettingsError(
                name, "must be a path of letters, digits, - and _", f"{default.rstrip('/')}/"
            )
        if value.startswith(TAKEN_PATHS):
            raise SettingsError(
                name, f"must not begin with {', '.join(TAKEN_PATHS)}: they are taken", default
            )
        return f"{value}/"

    def token(self, name: str) -> str:
        example = "$(openssl rand -hex 32)"
        value = self.text(name)
        if not value:
            raise self.missing(name, "is missing: peers prove themselves with it", example)
        if not value.isascii() or not value.isprintable() or " " in value:
            raise SettingsError(name, "must be printable ASCII without spaces", example)
        if self.development:
            return Secret(value)
        if len(value) < MINIMUM_SECRET:
            raise SettingsError(name, f"is shorter than {MINIMUM_SECRET} characters", example)
        if value.lower().startswith(PLACEHOLDER):
            raise SettingsError(name, "still has the value of the example file", example)
        if is_weak(value):
            raise SettingsError(
                name, "repeats a word or a few characters: it can be guessed", example
            )
        return Secret(value)

    def secret_key(self, name: str) -> str:
        example = "$(openssl rand -hex 40)"
        value = self.text(name)
        if not value and self.development:
            return Secret("development-only-not-a-secret")
        if not value:
            raise self.missing(name, "is missing: it signs the admin's sessions", example)
        if not self.development and value.startswith((PLACEHOLDER, "django-insecure")):
            raise SettingsError(name, "still has the value of an example", example)
        if not self.development and (len(value) < 50 or is_weak(value)):
            raise SettingsError(
                name, "must be at least 50 characters, not all alike and no word repeated", example
            )
        return Secret(value)

    def urls(
        self, name: str, default: str = "", *, example: str, with_path: bool = False
    ) -> list[str]:
        """Read comma-separated http or https URLs; trailing slashes and repeats are dropped."""
        urls = [check_url(name, word, example).rstrip("/") for word in self.words(name, default)]
        if not with_path and any(urlsplit(url).path for url in urls):
            raise SettingsError(
                name, "must end after the host and port: the node adds its paths itself", example
            )
        return list(dict.fromkeys(urls))

    def proxy(self, name: str) -> str:
        """Read the http URL of an outbound proxy; "" for none. ``http://`` may be left out."""
        value = self.either_case(name)
        if not value:
            return ""
        check_proxy(name, value)
        return Secret(value)

    def location(self, name: str, default: Path) -> Path:
        """Read the path of a file or folder; ``~`` is the home of the user that runs the node."""
        value = self.text(name)
        if "$" in value:
            raise SettingsError(name, "has a $, which stands for no variable here", "/srv/node")
        try:
            return Path(value or default).expanduser()
        except RuntimeError:
            raise SettingsError(name, "names the home of no user", "/srv/node") from None

    def webhook(self, name: str) -> str:
        """Read an http or https URL that is a secret, which it may have in its query; or empty."""
        value = self.text(name)
        if value:
            check_webhook(name, value)
        return Secret(value)

    def words(self, name: str, default: str = "") -> list[str]:
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def hosts(self, name: str, default: str = "") -> list[str]:
        """Read comma-separated host names and addresses; ``.example.com`` is a whole domain."""
        words = self.words(name, default)
        if not all(_HOST.fullmatch(word) for word in words):
            raise SettingsError(
                name,
                "must be names without https://, port and path (a whole domain is .example.com, "
                "any name *, an IPv6 address in brackets)",
                "api.example.com,10.0.0.5",
            )
        return words

    def networks(self, name: str) -> list[str]:
        """Read comma-separated IP addresses and networks; returns them in canonical form."""
        example = "127.0.0.1,10.0.0.0/8"
        try:
            return [str(ipaddress.ip_network(word)) for word in self.words(name)]
        except ValueError:
            raise SettingsError(name, "must be IP addresses or networks", example) from None

    def redis_url(self, name: str, default: str) -> str:
        """Read a redis, rediss, unix or redis+sentinel URL; ``default`` when unset or empty."""
        value = self.text(name) or default
        if uses_sentinels(value):
            return _sentinel_url(name, value)
        if not value.startswith("unix:"):
            refuse_bare_password(name, value, f"redis://:{ENCODED}@127.0.0.1:6379/0")
        example = "redis://127.0.0.1:6379/0"
        try:
            parts = urlsplit(value)
            known = parts.scheme in ("redis", "rediss", "unix")
            place = parts.path if parts.scheme == "unix" else parts.hostname
            database = parts.path.strip("/") if parts.scheme != "unix" else ""
            valid = known and bool(place) and parts.port != 0 and re.fullmatch("[0-9]*", database)
            _redis_options(value)
        except ValueError:
            valid = False
        except TypeError:
            raise SettingsError(name, "has an option that no client knows", example) from None
        if not valid or has_space(value):
            raise SettingsError(
                name, "must be a redis://, rediss://, unix:// or redis+sentinel:// URL", example
            )
        return value

    def database(self, name: str, default: str) -> dict[str, Any]:
        """Read the URL of a PostgreSQL or SQLite database; returns Django's settings of it."""
        example = "postgres://node:PASSWORD@127.0.0.1:5432/node"
        value = self.text(name) or default
        if not value.startswith("sqlite:"):
            refuse_bare_password(name, value, example.replace("PASSWORD", ENCODED))
        try:
            parts = urlsplit(value)
            known = parts.scheme in _POSTGRES or (parts.scheme == "sqlite" and not parts.netloc)
            # db_url_config warns, and shows the password, when it doesn't know the scheme.
            config = dict(environ.Env.db_url_config(value)) if known else {}
        except ValueError:
            config = {}
        if not config:
            raise SettingsError(name, "must be a postgres:// or sqlite:/// URL", example)
        if config["NAME"] in ("", ":memory:"):
            raise SettingsError(name, "must name a database", example)
        if parts.scheme in _POSTGRES and importlib.util.find_spec("psycopg") is None:
            raise SettingsError(
                name, "needs PostgreSQL's driver: pip install 'psycopg[binary]'", example
            )
        return config


def is_weak(secret: str) -> bool:
    """Tell whether a secret has less than five different characters, or is a word that is repeated.

    What stands between the words, and whether they are in capitals, makes no difference.
    """
    word = re.sub(r"[^a-z0-9]", "", secret.lower())
    repeats = any(
        word == (word[:length] * len(word))[: len(word)] for length in range(1, len(word) // 2 + 1)
    )
    return len(set(secret)) < 5 or repeats


def _sentinel_url(name: str, value: str) -> str:
    example = f"redis+sentinel://:{ENCODED}@10.0.0.1:26379,10.0.0.2:26379/mymaster/0"
    refuse_bare_password(name, value, example, ends="@/?#[] ")
    try:
        Sentinels.parse(value)
        valid = not has_space(value)
    except ValueError:
        valid = False
    if not valid:
        raise SettingsError(name, "must name sentinels, the service and a database", example)
    return value


def same_database(one: str, other: str) -> bool:
    """Tell whether two Redis URLs lead to one database, however they are written."""
    if uses_sentinels(one) and uses_sentinels(other):
        return Sentinels.parse(one).same_database(Sentinels.parse(other))
    if uses_sentinels(one) or uses_sentinels(other):
        return False
    return _database_of(one) == _database_of(other)


def _redis_options(redis_url: str) -> dict[str, Any]:
    """Return the connection options that the client reads from the URL, without connecting.

    Raises TypeError for an option that it doesn't know.
    """
    pool = redis.ConnectionPool.from_url(redis_url)
    pool.connection_class(**pool.connection_kwargs)
    return dict(pool.connection_kwargs)


def _database_of(redis_url: str) -> tuple[object, ...]:
    options = _redis_options(redis_url)
    path = options.get("path")
    host = str(options.get("host", "")).lower()
    host = "localhost" if host in ("127.0.0.1", "::1") else host
    place = (path,) if path else (host, options.get("port", 6379))
    return *place, int(options.get("db", 0))


def next_database(redis_url: str) -> str:
    """Return the URL of the same server's next database: ``redis://h:6379/0`` → ``…/1``."""
    if uses_sentinels(redis_url):
        return at_database(redis_url, Sentinels.parse(redis_url).database + 1)
    parts = urlsplit(redis_url)
    database = int(_redis_options(redis_url).get("db", 0)) + 1
    in_query = re.search(r"\bdb=", parts.query)
    if parts.scheme != "unix" and not in_query:
        return parts._replace(path=f"/{database}").geturl()
    query = re.sub(r"\bdb=\d*&?", "", parts.query).strip("&")
    return f"{redis_url.split('?')[0]}?{f'{query}&db={database}'.strip('&')}"
