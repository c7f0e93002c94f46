"""What a process has around it: numbers that environment variables hold, and the C library's allocator."""

from __future__ import annotations

import ctypes
import os

from metaprune_cli.errors import InputError

DIGITS = 9
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 1 << 30  # bytes
ALLOCATOR = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
"""Environment variables by which somebody has chosen or set an allocator."""


def whole_number(name: str, default: int) -> int:
    """What an environment variable says, or ``default`` where it is not set.

    Raises:
        InputError: it is no whole number from 0 on.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= DIGITS):
        raise InputError(
            "An environment variable is not a number.",
            expected="a whole number from 0 on",
            got=text[:100],
            where=f"environment variable {name}",
            next_step="torchrun sets it; unset it for a run of one process",
        )
    return int(text)


def keep_freed_memory() -> bool:
    """Let the allocator use up to 1 GiB of freed memory again, instead of returning it to the system at once.

    glibc maps every tensor above 32 MiB anew, and its pages have to be zeroed at first use. A pass over a thousand
    images, as repairs and sensitivities make them, spends a quarter of its time on that (``benchmarks/allocator.py``).

    Returns:
        Whether anything was changed: not with another C library, or where the environment has settled it.
    """
    if any(name in os.environ for name in ALLOCATOR):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, KEPT))
