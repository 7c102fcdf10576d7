"""BIND: where the API listens, as an operator writes it and as gunicorn takes it."""

import ipaddress
import os

from proxy_site.settings_error import SettingsError

LONGEST_PATH = 107  # bytes of a unix socket's path, in sockaddr_un (unix(7))
SOCKET_EXAMPLE = "unix:/run/aipriceaction/api.sock"
ADDRESS_EXAMPLE = "127.0.0.1"


def listening(name: str, words: list[str], *, port: int) -> list[str]:
    """Return IP addresses and unix sockets as gunicorn's ``bind``, each once.

    It is ``127.0.0.1:3000``, ``[::]:3000`` or ``unix:/run/x.sock``. Raises SettingsError.
    """
    return list(dict.fromkeys(_one(name, word, port) for word in words))


def _one(name: str, word: str, port: int) -> str:
    if word.startswith(("unix:", "/")):
        return _unix_socket(name, word.removeprefix("unix:"))
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        raise SettingsError(
            name, "must be IP addresses (the port is PORT's) or unix sockets", ADDRESS_EXAMPLE
        ) from None
    if isinstance(address, ipaddress.IPv4Address):
        return f"{address}:{port}"
    if address.scope_id:
        raise SettingsError(name, "must be IP addresses without a scope", ADDRESS_EXAMPLE)
    return f"[{address}]:{port}"


def _unix_socket(name: str, path: str) -> str:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise SettingsError(name, "must name a unix socket by its whole path", SOCKET_EXAMPLE)
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise SettingsError(
            name, f"names a unix socket by more than {LONGEST_PATH} bytes", SOCKET_EXAMPLE
        )
    return f"unix:{path}"
