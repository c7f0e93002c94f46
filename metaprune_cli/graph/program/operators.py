"""Which operators a program may call: an allow-list, as a program may come from anybody's file."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from metaprune_cli.errors import CorruptFileError, NumericsError
from metaprune_cli.graph.trace.rules.table import has_rule

aten = torch.ops.aten

_WITHOUT_RULE = frozenset(
    (
        # made from nothing but numbers
        *("zeros", "ones", "full", "empty", "arange", "linspace", "eye", "scalar_tensor", "tril_indices"),
        *("triu_indices", "rand", "randn", "randint", "randperm", "randint_like", "normal"),
        # computed without a rule: their neurons are locked, but a program runs them
        *(
            "scaled_dot_product_attention",
            "unsafe_split_with_sizes",
            "affine_grid_generator",
            "cdist",
            "_cdist_forward",
        ),
        *("vdot", "outer", "linalg_cross", "linalg_matrix_exp", "linalg_inv_ex", "linalg_solve_triangular", "trace"),
        *("bucketize", "searchsorted", "isin", "count_nonzero", "diag_embed", "take", "kron", "one_hot", "_conj"),
    )
)
"""Operators beside those of the rules. Each checks its arguments itself, on every device."""

_REFUSED = frozenset(
    (
        *("as_strided", "_reshape_alias", "new_empty_strided", "slice_inverse"),  # show what lies beside a tensor
        *("indices", "values", "crow_indices", "col_indices", "ccol_indices", "row_indices"),  # of sparse tensors
        *("coalesce", "_to_dense"),
        *("to", "cpu", "cuda", "pin_memory", "copy", "as_tensor", "sorted", "dict"),  # not for tensors on one device
    )
)
"""Operators of the rules that a program may not call all the same."""

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
    """Whether a program may call an operator: one with a rule (or listed here), from tensors to tensors only."""
    name = operator.overloadpacket.__name__
    if name in _REFUSED or operator.namespace not in ("aten", "torchvision"):
        return False
    known = name in _WITHOUT_RULE if operator.namespace == "aten" else False
    if not known and not has_rule(operator):
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
