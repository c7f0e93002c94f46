"""What the benchmarks share: a run in a process of its own, its peak memory (Linux), the rate of this machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path


def in_process(script: str, *arguments: str, **environment: str) -> dict[str, float]:
    """Run ``script --one …`` and read the JSON object on its last line of output."""
    command = [sys.executable, script, "--one", *arguments]
    output = subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(output.stdout.splitlines()[-1]))


def resident() -> int:
    """Bytes of memory the process holds."""
    return _status("VmRSS:")


def peak() -> int:
    """The most it has held since :func:`reset_peak`."""
    return max(_status("VmHWM:"), resident())


def reset_peak() -> None:
    """Forget the peak so far."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def available() -> int:
    """Bytes of memory that are free on this machine."""
    with Path("/proc/meminfo").open() as info:
        return next(int(line.split()[1]) * 1024 for line in info if line.startswith("MemAvailable:"))


def rate(precision: str = "float32") -> float:
    """Fused multiply-adds per second of a matrix product."""
    import torch

    a, b = (torch.randn(2048, 2048).to(getattr(torch, precision)) for _ in range(2))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2048**3 / statistics.median(times)
