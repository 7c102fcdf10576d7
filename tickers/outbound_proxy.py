"""An outbound proxy is the way to other servers that HTTPS_PROXY and HTTP_PROXY name.

Each is http://[USER:PASSWORD@]HOST[:PORT], the first for https:// addresses and the second for
http:// ones; NO_PROXY names the hosts that are asked directly. They are variables of the process,
read as requests reads them (names in lower case go first); proxy_site.settings puts those of .env
there. To an https:// address the proxy opens a tunnel, and sees no more than the host. What goes to
an http:// one it reads, the token too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy
from urllib3.util import make_headers

# The text in which http.client reports the status that a proxy refuses a tunnel with.
_NO_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})\b")


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """A proxy, and the headers that it wants of this node."""

    host: str
    port: int
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def to(cls, url: str) -> "OutboundProxy | None":
        """Return the proxy for requests to ``url``; None when it is asked directly."""
        found = select_proxy(url, get_environ_proxies(url))
        if not found:
            return None
        parts = urlsplit(found if "://" in found else f"http://{found}")
        headers: Mapping[str, str] = {}
        if parts.username:
            user, password = unquote(parts.username), unquote(parts.password or "")
            headers = make_headers(proxy_basic_auth=f"{user}:{password}")
        return cls(parts.hostname or "", parts.port or 80, headers)

    @property
    def name(self) -> str:
        """Return host:port, which is all that a log may say of the proxy."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def explain(self, error: BaseException, reason: str) -> str:
        """Return the ``reason`` for which there was no answer, and the proxy's part in it."""
        refusal = _NO_TUNNEL.search(str(error))
        if refusal:
            return self.refusal(int(refusal[1]))
        return f"{reason}, through the proxy {self.name}"

    def refusal(self, status: int) -> str:
        """Return what a refusal of the proxy's own means to the operator."""
        remedy = ": check the user and password in HTTPS_PROXY and HTTP_PROXY"
        return f"the proxy {self.name} answered {status}{remedy if status == 407 else ''}"
