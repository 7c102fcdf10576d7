"""Reads settings from environment variables and checks each where it is read.

Every refusal is one line that names the variable, says what is wrong and gives an example; it never
repeats the value, which may be a secret.
"""

import datetime as dt
import ipaddress
import math
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import environ

PLACEHOLDER = "change-me"
MINIMUM_SECRET = 16
_RATE = re.compile(r"^([1-9]\d*)/([1-9]\d*)?[smhd]$")


class SettingsError(SystemExit):
    """A variable is missing or wrong: ends the process with the line that the operator reads."""

    def __init__(self, name: str, problem: str, example: str) -> None:
        super().__init__(f"aipriceaction-proxy: {name} {problem}. Example: {name}={example}")


class Environment:
    """The node's variables; each method reads one, checks it, and returns it typed.

    ``variables`` is the process environment; values of ``env_file`` fill in what it doesn't set.
    """

    def __init__(self, variables: Mapping[str, str], env_file: Path | None = None) -> None:
        self._env = environ.Env()
        self._env.ENVIRON = dict(variables)
        if env_file is not None and env_file.is_file():
            self._fill_in(env_file)
        self.kind = self.choice(
            "ENVIRONMENT", "development", ("development", "staging", "production")
        )

    def _fill_in(self, env_file: Path) -> None:
        from_file = environ.Env()
        from_file.ENVIRON = {}
        from_file.read_env(str(env_file), overwrite=True)
        self._env.ENVIRON = {**from_file.ENVIRON, **self._env.ENVIRON}

    @property
    def development(self) -> bool:
        return self.kind == "development"

    @property
    def production(self) -> bool:
        return self.kind == "production"

    def is_set(self, name: str) -> bool:
        return name in self._env

    def text(self, name: str, default: str = "") -> str:
        return str(self._env.str(name, default=default)).strip()

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name, str(default)).lower()
        if value in ("1", "true", "yes", "on"):
            return True
        if value in ("0", "false", "no", "off"):
            return False
        raise SettingsError(name, "must be true or false", str(default).lower())

    def choice(self, name: str, default: str, choices: Sequence[str]) -> str:
        value = self.text(name, default)
        if value not in choices:
            raise SettingsError(name, f"must be one of {', '.join(choices)}", default)
        return value

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        try:
            value = int(self.text(name, str(default)))
        except ValueError:
            raise SettingsError(name, "must be a whole number", str(default)) from None
        if not low <= value <= high:
            raise SettingsError(name, f"must be from {low} to {high}", str(default))
        return value

    def number(self, name: str, default: float, *, low: float, high: float) -> float:
        try:
            value = float(self.text(name, f"{default:g}"))
        except ValueError:
            raise SettingsError(name, "must be a number", f"{default:g}") from None
        if not math.isfinite(value) or not low <= value <= high:
            raise SettingsError(name, f"must be from {low:g} to {high:g}", f"{default:g}")
        return value

    def rate(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not _RATE.match(value):
            raise SettingsError(
                name, "must be REQUESTS/PERIOD, the period in s, m, h or d, as in 20/2s", default
            )
        return value

    def date(self, name: str, default: str) -> dt.date:
        try:
            return dt.date.fromisoformat(self.text(name, default))
        except ValueError:
            raise SettingsError(name, "must be a date, YYYY-MM-DD", default) from None

    def instant(self, name: str) -> dt.datetime | None:
        """An RFC 3339 instant with its offset, or None when unset or empty."""
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
        """``HH:MM``, or a whole hour as existing nodes write it."""
        value = self.text(name, default)
        try:
            return dt.time(int(value)) if value.isdigit() else dt.time.fromisoformat(value)
        except ValueError:
            raise SettingsError(name, "must be a time of day, HH:MM", default) from None

    def timezone(self, name: str, default: str) -> ZoneInfo:
        try:
            return ZoneInfo(self.text(name, default))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError(name, "must be a time zone of the tz database", default) from None

    def token(self, name: str) -> str:
        example = "$(openssl rand -hex 32)"
        value = self.text(name)
        if not value:
            raise SettingsError(name, "is missing: peers prove themselves with it", example)
        if not value.isascii() or not value.isprintable() or " " in value:
            raise SettingsError(name, "must be printable ASCII without spaces", example)
        if self.development:
            return value
        if len(value) < MINIMUM_SECRET:
            raise SettingsError(name, f"is shorter than {MINIMUM_SECRET} characters", example)
        if value.startswith(PLACEHOLDER):
            raise SettingsError(name, "still has the value of the example file", example)
        return value

    def secret_key(self, name: str) -> str:
        example = "$(openssl rand -hex 40)"
        value = self.text(name)
        if not value and self.development:
            return "development-only-not-a-secret"
        if not value:
            raise SettingsError(name, "is missing: it signs the admin's sessions", example)
        if not self.development and (len(value) < 50 or len(set(value)) < 5):
            raise SettingsError(name, "must be at least 50 characters, not all alike", example)
        if not self.development and value.startswith((PLACEHOLDER, "django-insecure")):
            raise SettingsError(name, "still has the value of an example", example)
        return value

    def url(self, name: str, default: str = "", *, example: str) -> str:
        """An http or https URL, or "" when unset or empty."""
        value = self.text(name, default)
        return check_url(name, value, example) if value else ""

    def urls(self, name: str, default: str = "", *, example: str) -> list[str]:
        """Comma-separated http or https URLs, without trailing slashes and repeats."""
        parts = [part.strip() for part in self.text(name, default).split(",")]
        return list(
            dict.fromkeys(check_url(name, part, example).rstrip("/") for part in parts if part)
        )

    def words(self, name: str, default: str = "") -> list[str]:
        return [part.strip() for part in self.text(name, default).split(",") if part.strip()]

    def networks(self, name: str) -> list[str]:
        """IP addresses and networks, comma-separated, in canonical form."""
        example = "127.0.0.1,10.0.0.0/8"
        try:
            return [str(ipaddress.ip_network(word)) for word in self.words(name)]
        except ValueError:
            raise SettingsError(name, "must be IP addresses or networks", example) from None

    def redis_url(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if urlsplit(value).scheme not in ("redis", "rediss", "unix"):
            raise SettingsError(
                name, "must be a redis://, rediss:// or unix:// URL", "redis://127.0.0.1:6379/0"
            )
        return value

    def database(self, name: str, default: str) -> dict[str, object]:
        example = "postgres://node:PASSWORD@127.0.0.1:5432/node"
        try:
            config = dict(environ.Env.db_url_config(self.text(name, default)))
        except Exception as error:
            raise SettingsError(name, "must be a database URL", example) from error
        if config.get("ENGINE") not in (
            "django.db.backends.sqlite3",
            "django.db.backends.postgresql",
        ):
            raise SettingsError(name, "must be a postgres:// or sqlite:// URL", example)
        return config


def check_url(name: str, value: str, example: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise SettingsError(name, "must be an http:// or https:// URL", example)
    if parts.username or parts.password:
        raise SettingsError(name, "must not carry a user or password", example)
    return value


def refuse_self(name: str, urls: Sequence[str], *, port: int, own_hosts: Sequence[str]) -> None:
    """Refuse a URL that leads back to this node: it would gossip with, or follow, itself."""
    for url in urls:
        if _is_self(urlsplit(url), port, own_hosts):
            raise SettingsError(
                name, "names this node itself; name other nodes only", "https://node-b.example.com"
            )


def _is_self(url: SplitResult, port: int, own_hosts: Sequence[str]) -> bool:
    host = (url.hostname or "").lower()
    url_port = url.port or (443 if url.scheme == "https" else 80)
    if host in {own.lower() for own in own_hosts if own != "*"}:
        # Behind a proxy the node's public name answers on 80 or 443, not on PORT.
        return url_port in (port, 80, 443)
    return url_port == port and _is_this_machine(host)


def _is_this_machine(host: str) -> bool:
    if host in ("localhost", socket.gethostname().lower()):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def next_database(redis_url: str) -> str:
    """The same server's next database: ``redis://h:6379/0`` → ``redis://h:6379/1``."""
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        number = re.search(r"\bdb=(\d+)", parts.query)
        database = int(number[1]) + 1 if number else 1
        query = re.sub(r"&?\bdb=\d+", "", parts.query).strip("&")
        return f"unix://{parts.netloc}{parts.path}?{f'{query}&db={database}'.strip('&')}"
    path = parts.path.strip("/")
    return parts._replace(path=f"/{int(path) + 1 if path.isdigit() else 1}").geturl()
