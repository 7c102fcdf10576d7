"""The URLs of other nodes, upstreams and proxies in the settings, and what is refused of them.

Each function raises SettingsError, which names the setting and never shows the URL.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

import psutil

from proxy_site.settings_error import SettingsError
from tickers.vci.client import source_name
from tickers.vci.upstream import PATH, SITE

MOST_UPSTREAMS = 8
ENCODED = "p%40ss%2Fw%23rd"  # p@ss/w#rd, as it is in a URL
_HOST = re.compile(r"[\w.-]+")


def refuse_bare_password(name: str, url: str, example: str, *, ends: str = "/?#[] ") -> None:
    """Refuse a user or password with characters that end it, as its rest would name another host.

    The last @ ends it too; one before that does only where ``ends`` has it.
    """
    address, _, query = url.partition("://")[2].partition("?")
    options = re.match("[A-Za-z_]+=", query)
    user, _, _ = (address if options else f"{address}?{query}").rpartition("@")
    if not set(user).isdisjoint(ends):
        raise SettingsError(
            name,
            "has a password with characters that must be percent-encoded: @ as %40, / as %2F, "
            "# as %23, ? as %3F, [ as %5B, a space as %20",
            example,
        )


def _is_host(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    return bool(_HOST.fullmatch(host)) or f"[{host}]" in parts.netloc.lower()


def has_space(value: str) -> bool:
    return any(character.isspace() or not character.isprintable() for character in value)


def check_url(name: str, value: str, example: str) -> str:
    if "@" in value:
        raise SettingsError(name, "must not carry a user or password", example)
    try:
        parts = urlsplit(value)
        valid = parts.scheme in ("http", "https") and _is_host(parts) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or has_space(value):
        raise SettingsError(
            name, "must be an http:// or https:// URL, or several with commas between them", example
        )
    return value


def check_webhook(name: str, value: str) -> None:
    """Refuse what is no URL of one receiver; it may have a query."""
    example = "https://chat.example.com/hooks/SECRET"
    address, _, query = value.partition("?")
    check_url(name, address, example)
    if "," in address or "#" in query or has_space(query):
        raise SettingsError(name, "must be an http:// or https:// URL, of one receiver", example)


def check_proxy(name: str, value: str) -> None:
    """Refuse what is no http URL of an outbound proxy; ``http://`` may be left out."""
    example = "http://USER:PASSWORD@proxy.example.com:3128"
    url = value if "://" in value else f"http://{value}"
    refuse_bare_password(name, url, example)
    try:
        parts = urlsplit(url)
        valid = parts.scheme == "http" and _is_host(parts) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.path.strip("/") or parts.query or parts.fragment or has_space(url):
        raise SettingsError(name, "must be the http:// URL of a proxy, without a path", example)


def check_upstreams(name: str, urls: Sequence[str]) -> None:
    """Refuse more upstreams than MOST_UPSTREAMS, and two of one host: each has its own budget.

    Refuse a URL whose path can't be right, too.
    """
    example = "https://trading.vietcap.com.vn/api/,https://node-b.example.com/api/"
    if len(urls) > MOST_UPSTREAMS:
        raise SettingsError(name, f"must name at most {MOST_UPSTREAMS} upstreams", example)
    if len({source_name(url) for url in urls}) < len(urls):
        raise SettingsError(
            name, "names a host twice: it would be asked twice as often as it may be", example
        )
    for parts in map(urlsplit, urls):
        if parts.path.rstrip("/").endswith(f"/{PATH}"):
            raise SettingsError(name, f"must end before {PATH}: the node adds it itself", example)
        if parts.hostname == urlsplit(SITE).hostname and parts.path.strip("/") != "api":
            raise SettingsError(name, "lacks the path of the broker's API, /api/", example)


def refuse_self(name: str, urls: Sequence[str], *, port: int, own_hosts: Sequence[str]) -> None:
    """Refuse a URL that leads back to this node, which would gossip with, or follow, itself."""
    for url in urls:
        if _is_self(urlsplit(url), port, own_hosts):
            raise SettingsError(
                name, "names this node itself; name other nodes only", "https://node-b.example.com"
            )


def _is_self(url: SplitResult, port: int, own_hosts: Sequence[str]) -> bool:
    host = (url.hostname or "").rstrip(".")
    url_port = url.port or (443 if url.scheme == "https" else 80)
    if host in {own.lower().strip("[]") for own in own_hosts}:
        # Behind a proxy the node's public name answers on 80 or 443, not on PORT.
        return url_port in (port, 80, 443)
    return url_port == port and _is_this_machine(host)


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost") or host == socket.gethostname().lower():
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified or str(address) in _own_addresses()


def _own_addresses() -> set[str]:
    interfaces = psutil.net_if_addrs().values()
    return {entry.address.split("%")[0] for addresses in interfaces for entry in addresses}
