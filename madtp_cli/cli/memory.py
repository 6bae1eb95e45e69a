"""Keep the C library from handing memory back to the system after every layer."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Blocks up to a gigabyte come from the heap and stay there when freed.
_KEPT = 2**30


def reuse_freed_memory() -> bool:
    """Let freed activations be reused instead of unmapped; True where the C library can.

    glibc maps every large block afresh, so each layer's activations are paged in again: on
    two cores a third of a training step was spent there. Changes nothing but speed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False  # another C library, which needs no such hint
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT) and mallopt(_M_TRIM_THRESHOLD, 4 * _KEPT - 1 - 2**31))
