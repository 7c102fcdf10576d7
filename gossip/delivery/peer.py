"""A peer is another node that this node sends bars to."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, urlsplit


class PeerKind(StrEnum):
    INTERNAL = "internal"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer is internal, with the ``token`` that is sent to it, or public, without one."""

    url: str
    kind: PeerKind
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if (self.kind is PeerKind.INTERNAL) != bool(self.token):
            raise ValueError("an internal peer needs the token, and a public one must not get it")

    @property
    def id(self) -> str:
        """Return the peer's name in keys: the same in every process, without the address."""
        name = f"{self.kind} {self.url.rstrip('/')}"
        return hashlib.sha256(name.encode()).hexdigest()[:16]

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def name(self) -> str:
        """Return host:port, which is all that a log may say of the peer."""
        host = self.parts.hostname or ""
        port = self.parts.port or (443 if self.parts.scheme == "https" else 80)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def path(self) -> str:
        door = "/gossip" if self.kind is PeerKind.INTERNAL else "/public/gossip"
        return self.parts.path.rstrip("/") + door
