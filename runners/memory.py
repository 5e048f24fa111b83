"""Memory that was freed stays with the process, where the C library can be told so."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed"]

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of `mallopt` [malloc.h of glibc]."""


def keep_freed() -> bool:
    """Tells the C library's allocator not to give freed memory back to the system while this process lives.

    The feature maps of a step are large. By default each is a mapping of its own, or the end of the heap is cut off
    when it is freed, and the next step faults every page in again: of a pass over an image of 768x1024 that was a
    third of the time. What is computed stays the same to the bit. The process holds the most that it has needed, and
    where images have many sizes some more, since a hole need not fit the next map.

    Returns:
        Whether the allocator took it; another than glibc's is left as it is.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # no such function; TypeError: Windows wants a library's name
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))
