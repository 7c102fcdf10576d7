"""A process's memory: settings of Python's garbage collector and of glibc's allocator."""

import contextlib
import ctypes
import gc

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE_BLOCK = 2**20  # bytes


def freeze_imported_objects() -> None:
    """Exclude all present objects from garbage collection (gc.freeze), once all is imported.

    A full collection examines some 100,000 objects of modules and classes, of which none is
    garbage: on the machine of the benchmarks it stops every thread for 20 ms.
    """
    gc.collect()
    gc.freeze()


def give_back_large_blocks() -> None:
    """Have glibc return the memory of a freed body to the system at once.

    glibc raises this threshold to the largest block that was freed (up to 32 MB), and then keeps
    the memory of each thread's bodies for that thread: with a market of 13 MB, some 40 MB. A
    threshold that was set stays (mallopt(3)). Other C libraries don't need this, and have no
    mallopt.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK)
