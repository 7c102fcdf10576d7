"""Redis checks find what endangers the store on its server, for /health and the worker's log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# The first version with XTRIM MINID, which trims the change log in whole revisions. Scripts that
# only read have no shebang (7.0): a server without memory refuses a script's writes, not its call.
OLDEST_VERSION = (6, 2)


NEARLY_FULL = 0.9  # of maxmemory


@dataclass(frozen=True, slots=True)
class Danger:
    """A danger in words, with the remedy if the words don't have it; ``loses``: it loses bars."""

    text: str
    remedy: str = ""
    loses: bool = False


def complaints(info: Mapping[str, Any]) -> list[str]:
    """Return a line for each danger that the server's INFO shows; a missing field is none."""
    return [danger.text for danger in dangers(info)]


def dangers(info: Mapping[str, Any]) -> list[Danger]:
    """Return the dangers that the server's INFO shows; a missing field is none."""
    found = []
    version = str(info.get("redis_version", ""))  # of Valkey: the version it is compatible with
    if version and _numbers(version) < OLDEST_VERSION:
        found.append(
            Danger(
                f"the store's server is version {version}: the change log can't be trimmed; "
                "install Redis 6.2 or newer, or Valkey",
                loses=True,
            )
        )
    if memory_used(info) >= 1:
        text = "the store is out of memory: it refuses writes; raise its maxmemory"
        found.append(Danger(text, loses=True))
    if not info.get("aof_enabled", True):
        text = "the store's append-only file is off: a restart loses the market"
        found.append(Danger(text, "set appendonly yes"))
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        text = "the store evicts keys: set maxmemory-policy noeviction"
        found.append(Danger(text, loses=True))
    return found


def memory_used(info: Mapping[str, Any]) -> float:
    """Return the used part of the server's memory limit; 0 without a limit."""
    limit = info.get("maxmemory", 0)
    # The server doesn't count buffers of replicas and of the append-only file against its limit.
    counted = info.get("used_memory", 0) - info.get("mem_not_counted_for_evict", 0)
    return float(counted / limit) if limit else 0.0


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
