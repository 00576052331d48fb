"""Give the memory that requests have used back to the system.

glibc keeps what was freed: 64 refused pictures of 1 and 30 MB left 200 MB in the worker for ever. They leave nothing
there when it is given back, and with two heaps instead of many (MALLOC_ARENA_MAX=2, in script/serve and cog.yaml).
"""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
