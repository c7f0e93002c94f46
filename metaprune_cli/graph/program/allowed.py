"""Which operators a program may call: an allow-list, as a program may come from anybody's file."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from metaprune_cli.errors import CorruptFileError, NumericsError
from metaprune_cli.graph.operators.registry import has_rule, operator_of

_TYPES = frozenset(
    (
        *("int", "float", "bool", "str", "complex", "number", "Tensor"),
        *("Generator", "Device", "ScalarType", "Layout", "MemoryFormat"),
    )
)


def operator_named(name: object) -> Any:
    """An overload by its name, as ``aten.add.Tensor``.

    Raises:
        CorruptFileError: there is no such operator, or a program may not call it.
    """
    parts = name.split(".") if isinstance(name, str) else []
    if len(parts) == 3 and parts[0] in ("aten", "torchvision") and all(part.isidentifier() for part in parts):
        if parts[0] == "torchvision":
            import torchvision  # noqa: F401 - registers its operators
        found = getattr(getattr(getattr(torch.ops, parts[0]), parts[1], None), parts[2], None)
        if isinstance(found, torch._ops.OpOverload) and is_allowed(found):
            return found
    raise CorruptFileError(
        f"The program calls {str(name)[:100]!r}, which is not an operator of a program here.",
        expected="operators of PyTorch and torchvision that compute tensors from tensors",
        next_step="update torch, or use the version the file was made with",
    )


def check_allowed(operator: Any) -> None:
    """Refuse to make a program that could not be read again.

    Raises:
        NumericsError: no program may call this operator.
    """
    if not is_allowed(operator):
        raise NumericsError("It calls what no program may call")


@cache
def is_allowed(operator: Any) -> bool:
    """Whether a program may call an operator: one with a rule (or whose row says so), from tensors to tensors only."""
    wanted = operator_of(operator).in_programs
    if wanted is False or operator.namespace not in ("aten", "torchvision") or not (wanted or has_rule(operator)):
        return False
    schema = operator._schema
    if any(argument.is_out for argument in schema.arguments) and torch.Tag.pointwise not in operator.tags:
        return False
    returned = bool(schema.returns) and all(str(r.type) in ("Tensor", "List[Tensor]") for r in schema.returns)
    return returned and all(innermost(argument.real_type) in _TYPES for argument in schema.arguments)


def innermost(kind: Any) -> str:
    """What an argument's type is about, without ``Optional`` and ``List``."""
    while kind.kind() in ("OptionalType", "ListType"):
        kind = kind.getElementType()
    return str(kind)
