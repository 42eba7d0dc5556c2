"""Memory that a training on the CPU frees stays with the program, for the next step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # the numbers of these options in malloc.h
_MOST, _MOST_FROM_HEAP = 2**31 - 1, 2**25  # bytes, the largest that they take


def keep_freed_memory() -> None:
    """Let the GNU C library keep what is freed, up to tensors of 32 MiB; another is left as it is.

    Otherwise it gives the memory of a step's tensors back to the system and asks for it again in
    the next, and the system clears every page: a tenth of the time of training a small network.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # TypeError: Windows wants a name
        return
    set_option(_TRIM_THRESHOLD, _MOST)
    set_option(_MMAP_THRESHOLD, _MOST_FROM_HEAP)
