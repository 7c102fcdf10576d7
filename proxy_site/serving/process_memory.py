"""What a process carries along: libraries that it never calls, memory that it has freed, objects
that garbage collection looks at again and again."""

import contextlib
import ctypes
import gc
import importlib.util
import sys
from collections.abc import Iterator

# Django REST framework imports whatever it could work with, when that is installed: requests for a
# client of tests, PostgreSQL's driver for fields of its own. Here that is 18 MB for nothing.
_OPTIONAL = ("requests", "django.contrib.postgres.fields", "yaml", "pygments", "markdown")

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE_BLOCK = 2**20  # bytes


def spare_imports() -> None:
    """Import what would import too much, in a way that it doesn't.

    Django REST framework finds none of its optional libraries; others still import them. The
    holidays of a country come without those of all others (10 MB): their package is there, but what
    it would import isn't run.
    """
    with _without(_OPTIONAL):
        import rest_framework.compat  # noqa: F401 - for what it then has not imported
    countries = importlib.util.find_spec("holidays.countries")
    if countries is not None:
        sys.modules.setdefault(countries.name, importlib.util.module_from_spec(countries))


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Where importing ``names`` fails: None in sys.modules says so to the import system."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def spare_collections() -> None:
    """Have garbage collection leave alone what there is now; to be called when all is imported.

    A full collection looks at each of some 100,000 objects of modules and classes, of which none
    is garbage: 20 ms on the machine of the benchmarks, in which no thread answers anybody.
    """
    gc.collect()
    gc.freeze()


def give_back_large_blocks() -> None:
    """Have a body that is freed go back to the system at once.

    glibc raises this threshold to the largest block that was freed (up to 32 MB), and then keeps
    the memory of each thread's bodies for that thread: with a market of 13 MB, some 40 MB. Set by
    hand, it stays (mallopt(3)). Other C libraries need no such thing, and have no mallopt.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
