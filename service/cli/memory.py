"""How often Python looks for garbage, and how much memory that is free a process keeps."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_KEPT = 32 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _MAPPED = -1, -3, 4 << 20  # of glibc's malloc.h


def collect_rarely() -> None:
    """Look through new objects each 20,000, not each 700: loading a program, or serving, makes few that are garbage.

    It takes a tenth off the time of a start. More at a time would hold the loop: objects that a flood keeps in use take
    half a microsecond each. Those that were kept once are looked through a second time with two later lots, 60,000 in
    all; with five lots 2,100 calls at once held the loop for 80 ms.
    """
    gc.set_threshold(20_000, 1, 2_500)


def keep_freed() -> None:
    """Keep up to 32 MiB of what C code has freed, where the C library is glibc.

    By itself it keeps 128 KiB. Then what an expression or a large message takes is mapped anew each time, page by page:
    of an expression that built a list of 1,000 elements in 17 ms, 8 ms were these pages.
    """
    with suppress(OSError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        c_library.mallopt(_M_MMAP_THRESHOLD, _MAPPED)
