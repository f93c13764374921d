"""What this machine can do, and how to make it do so: allocator, threads, precision, memory.

Everything here changes speed, never a result, except through ``has_fast_bf16``, whose answer the caller
writes down with the run.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc, malloc.h


def tune_allocator() -> bool:
    """Make freed memory stay with the process, so that large tensors are not mapped anew at every step.

    By default glibc maps every block of some size and gives it back when it is freed; a step on large tensors
    then pays tens of thousands of page faults. Call it once, before the first large tensor.

    Returns:
        Whether it was done; elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(n: int | None = None) -> int:
    """Let torch compute with ``n`` threads, by default OMP_NUM_THREADS or one for each core. Returns the number."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "2,1": one number a level
    torch.set_num_threads(n or (int(asked) if asked.isdecimal() and int(asked) else cores()))
    return torch.get_num_threads()


def has_fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def forget_peak_memory() -> bool:
    """Let ``peak_memory`` count from now on. Returns whether the system can do that (Linux can)."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def peak_memory() -> int | None:
    """The most memory in bytes that this process has held (since ``forget_peak_memory``, on Linux); None on
    Windows, which does not say."""
    status = "/proc/self/status"
    if os.path.exists(status):
        with open(status) as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
