"""Redis checks find what endangers the store on its server, for /health and the worker's log."""

from collections.abc import Mapping
from typing import Any

# The first version with XTRIM MINID, which trims the change log in whole revisions. Scripts that
# only read have no shebang (7.0): a server without memory refuses a script's writes, not its call.
OLDEST_VERSION = (6, 2)


def complaints(info: Mapping[str, Any]) -> list[str]:
    """Return a line for each danger that the server's INFO shows; a missing field is none."""
    found = []
    version = str(info.get("redis_version", ""))  # of Valkey: the version it is compatible with
    if version and _numbers(version) < OLDEST_VERSION:
        found.append(
            f"the store's server is version {version}: the change log can't be trimmed; "
            "install Redis 6.2 or newer, or Valkey"
        )
    limit = info.get("maxmemory", 0)  # 0: none
    # The server doesn't count buffers of replicas and of the append-only file against its limit.
    counted = info.get("used_memory", 0) - info.get("mem_not_counted_for_evict", 0)
    if 0 < limit <= counted:
        found.append("the store is out of memory: it refuses writes; raise its maxmemory")
    if not info.get("aof_enabled", True):
        found.append("the store's append-only file is off: a restart loses the market")
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        found.append("the store evicts keys: set maxmemory-policy noeviction")
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
