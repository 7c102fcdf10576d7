"""What the node's cache holds, by django-redis's methods, which Django's own type doesn't name."""

from typing import Any

from django.core.cache import cache

_cache: Any = cache


def cached_keys() -> list[str]:
    return list(_cache.iter_keys("*"))


def lifetime(key: str) -> int:
    """Milliseconds until the entry is forgotten."""
    return int(_cache.pttl(key))
