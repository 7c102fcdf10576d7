"""Another node's gap-chart door as an upstream: what its headers say of its bars.

A door serves what its node has, so its bars are second-hand: they are merged as FOLLOWED, and as
old as the door says. It names the nodes that they came through; when this node is one of them they
are its own, and would keep each other young for ever. Nothing here does I/O.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tickers.vci.errors import DoorError

DATA_AGE = "X-Data-Age"  # seconds since the door's node had its last trusted update
NODE_PATH = "X-Node-Path"  # ids of the nodes that its bars came through, comma-separated

MOST_NODES = 32
_AGE = re.compile(r"[0-9]{1,9}", re.ASCII)
_NODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Door:
    """``age`` in seconds; ``path``: the ids of the nodes that the bars came through."""

    age: float
    path: tuple[str, ...]

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Door | None":
        """The door that answered with these headers; None: no door, but an upstream of its own.

        Raises DoorError for one that says less, or other, than a door must.
        """
        age, path = headers.get(DATA_AGE), headers.get(NODE_PATH)
        if age is None and path is None:
            return None
        if age is None or not _AGE.fullmatch(age.strip()):
            raise DoorError(
                "the upstream is another node's door and doesn't say how old its bars are"
            )
        nodes = tuple(node.strip() for node in (path or "").split(",", MOST_NODES))
        if len(nodes) > MOST_NODES or not all(_NODE.fullmatch(node) for node in nodes):
            raise DoorError(
                "the upstream is another node's door and doesn't say which way its bars came"
            )
        return cls(float(age), nodes)

    def admit(self, *, own_id: str, oldest: float) -> None:
        """Raise DoorError when its bars are our own, or older than ``oldest`` seconds."""
        if own_id in self.path:
            raise DoorError("the upstream is another node's door that leads back to this node")
        if self.age > oldest:
            raise DoorError(
                f"the upstream is another node's door, and its bars are {self.age:.0f} s old"
            )
