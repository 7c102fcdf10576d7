"""The headers of another node's gap-chart door say how old its bars are and which way they came.

Such a door can be an upstream. It serves what its node has, so its bars are second-hand: they are
merged as FOLLOWED, and are as old as the door says. If this node is among those that they came
through, they are refused: two nodes that read each other would think their bars fresh for ever.
Nothing here does I/O.
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
    """A door's bars are ``age`` seconds old and came through the nodes with the ids ``path``."""

    age: float
    path: tuple[str, ...]

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Door | None":
        """Return the door that answered with these headers; None: the upstream is no node.

        Raises DoorError when a header that a door must send is absent or wrong.
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
