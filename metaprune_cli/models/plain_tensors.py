"""Which tensors a model can be made of: dense ones that hold their own numbers, in a type that layers compute with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
_WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool)
_DTYPES = frozenset((*_FLOATING, *_WHOLE))
_LISTED = 10


def plain_tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """What a file holds as names and tensors that layers can use.

    Args:
        content: what was read.
        path: the file, which must be large enough for what it says is in it.

    Raises:
        InputError: listing all that is no such tensor, or has no name.
    """
    most_bytes = path.stat().st_size
    problems = [
        f"{_name(key)}: {problem}" for key, value in content.items() if (problem := _problem(key, value, most_bytes))
    ]
    if problems or not content:
        listed = "; ".join(problems[:_LISTED])
        raise InputError(
            "The file contains no state dict."
            if len(problems) == len(content)
            else "Some entries of the state dict cannot be used.",
            expected="names and dense tensors, at the top level or under state_dict, model or model_state_dict",
            got=f"{listed} ({len(problems)} of {len(content)})" if problems else "nothing",
            where=path,
            next_step="save torch.save(model.state_dict(), path), on the CPU, dense and dequantised, and name the "
            "architecture with --arch",
        )
    return {name: tensor.detach() for name, tensor in content.items()}


def _name(key: object) -> str:
    return str(key)[:100]


def _problem(key: object, value: object, most_bytes: int) -> str | None:
    """Why an entry is of no use; None where it is."""
    if not isinstance(key, str):
        return f"its name is of type {type(key).__name__}"
    if not isinstance(value, Tensor):
        return type(value).__name__
    if type(value) not in (Tensor, nn.Parameter, nn.Buffer):
        return f"a {type(value).__name__}"
    if value.is_meta:
        return "a tensor on meta, without numbers"
    if value.is_nested or value.layout != torch.strided:
        return f"a {'nested' if value.is_nested else str(value.layout).removeprefix('torch.')} tensor"
    if value.dtype not in _DTYPES:
        return f"numbers of type {str(value.dtype).removeprefix('torch.')}"
    if value.numel() * value.element_size() > most_bytes:
        return f"{value.numel()} numbers, more than the file has bytes for"
    return None
