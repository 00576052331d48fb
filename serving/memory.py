"""Keep the memory of Cog's server and of its worker from staying at the most that requests ever used.

glibc keeps what was freed. 64 refused pictures of 1 and 30 MB left 200 MB in the worker for ever, and 70 MB in Cog's
own process. So script/serve and cog.yaml set MALLOC_ARENA_MAX=2 (two heaps instead of many) and
MALLOC_MMAP_THRESHOLD_ (what is larger lies outside the heaps, and goes back to the system when it is freed).
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGE = 32 * 2**20  # bytes: the most that glibc's own threshold grows to


def use_heaps() -> None:
    """Undo MALLOC_MMAP_THRESHOLD_ in this process, as far as glibc is its C library.

    Drawing takes and frees tensors of megabytes all the time: outside the heaps a picture of the embedded model took
    0.35 instead of 0.22 seconds.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGE)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGE)


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
