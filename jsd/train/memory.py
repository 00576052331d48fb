"""Keep freed memory for the next step instead of giving it back to the system.

glibc's malloc returns every large block at once, so that each step of training faults in all its pages again. Kept,
they make a step on a CPU a quarter faster (`script/bench-train`: 185 against 247 ms at 256 pixels); the process stays
as large as it once was, which is why serving does not do it.
"""

import ctypes

# malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE = 1 << 30  # bytes


def keep_freed_memory() -> bool:
    """Set it for this process. False where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, LARGE) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))
