"""A speed setting of the C library: freed memory is reused instead of returned to the operating system."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Blocks up to this size, in bytes, are allocated on the heap and stay there when they are freed.
_KEPT = 2**30


def reuse_freed_memory() -> bool:
    """Let the C library reuse the memory of freed activations.

    By default glibc maps every large block anew, so the operating system has to provide the pages of each layer's
    activations again. On two cores this took a third of a training step. Results do not change.

    Returns:
        Whether the C library accepted the setting. Only glibc has it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT) and mallopt(_M_TRIM_THRESHOLD, 4 * _KEPT - 1 - 2**31))
