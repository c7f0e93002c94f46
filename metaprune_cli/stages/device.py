"""Which device the work runs on."""

from __future__ import annotations

import torch

from metaprune_cli.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is the first CUDA device where there is one, else the CPU.

    Raises:
        InputError: the name is unknown, or this machine has no such device.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if available else torch.device("cpu")
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()) or (kind == "cpu" and index):
        raise InputError("Unknown device.", expected="auto, cpu, cuda or cuda:N", got=name, where="--device")
    if kind == "cuda" and int(index or 0) >= available:
        raise InputError(
            "This machine has no such device.",
            expected=f"one of {available} CUDA devices" if available else "cpu: no CUDA device is visible",
            got=name,
            where="--device",
            next_step="--device auto takes what is there",
        )
    return torch.device("cpu") if kind == "cpu" else torch.device("cuda", int(index or 0))
