"""A process's memory: what garbage collection looks at again and again, and what glibc keeps of
blocks that were freed."""

import contextlib
import ctypes
import gc

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE_BLOCK = 2**20  # bytes


def spare_collections() -> None:
    """Garbage collection leaves alone what there is now; to be called when all is imported.

    A full collection looks at each of some 100,000 objects of modules and classes, of which none
    is garbage: 20 ms on the machine of the benchmarks, in which no thread answers anybody.
    """
    gc.collect()
    gc.freeze()


def give_back_large_blocks() -> None:
    """A body that is freed goes back to the system at once.

    glibc raises this threshold to the largest block that was freed (up to 32 MB), and then keeps
    the memory of each thread's bodies for that thread: with a market of 13 MB, some 40 MB. Set by
    hand, it stays (mallopt(3)). Other C libraries need no such thing, and have no mallopt.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
