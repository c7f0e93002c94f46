"""Shared tensors: stored once, under their first name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from metaprune_cli.errors import CorruptFileError

_LISTED = 10


def split_aliases(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Separate second names of one tensor (tied weights) from the tensors themselves.

    Two entries are one tensor when they are the same elements: same storage, offset, shape and strides.

    Returns:
        The entries under their first names, and ``{second name: first name}``.
    """
    first_names: dict[tuple[object, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in state_dict.items():
        first = first_names.setdefault(_identity(name, tensor), name)
        if first == name:
            tensors[name] = tensor
        else:
            aliases[name] = first
    return tensors, aliases


def join_aliases(tensors: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    """The inverse of ``split_aliases``, but for the order of the entries.

    Raises:
        CorruptFileError: a second name is taken already, or there is no tensor of the first; all of them are listed.
    """
    wrong = [f"{name} for {first}" for name, first in aliases.items() if name in tensors or first not in tensors]
    if wrong:
        raise CorruptFileError(
            "The names of shared tensors in the file are not those of its tensors.",
            expected="second names, each of a tensor in the file",
            got="\n".join(wrong[:_LISTED]),
            next_step="create the file again",
        )
    return {**tensors, **{name: tensors[first] for name, first in aliases.items()}}


def _identity(name: str, tensor: Tensor) -> tuple[object, ...]:
    if tensor.numel() == 0 or tensor.is_meta:  # no memory to share
        return (name,)
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
