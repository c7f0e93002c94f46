"""In which precision the arithmetic of a training step runs; weights and losses are float32 in all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from metaprune_cli.config import Precision
from metaprune_cli.errors import InputError


def check_precision(wanted: Precision, device: torch.device) -> None:
    """Make sure that ``device`` computes in what is wanted.

    Raises:
        InputError: it emulates bfloat16, which is slower than float32 and less precise.
    """
    if wanted == "bfloat16" and not _is_native(device):
        raise InputError(
            "This device does not compute in bfloat16.",
            expected="auto or float32",
            got=wanted,
            where=f"precision, {torch.cuda.get_device_name(device)}",
        )


def resolved(wanted: Precision, device: torch.device) -> Precision:
    """With ``auto``: bfloat16 on CUDA alone, where it is native; of CPUs, only some are faster in it."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and _is_native(device) else "float32"


def in_precision(wanted: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products and convolutions in bfloat16, where wanted; it has float32's range, so losses need no scaling."""
    if resolved(wanted, device) == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def _is_native(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
