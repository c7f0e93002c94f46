"""Sums that a layer adds to, such as residual connections: outputs are followed from the product to the addition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from metaprune_cli.pruning.calls import Call, Calls, Normalised, Seen, rows_of, uses_statistics

aten = torch.ops.aten
ADDITIONS = {aten.add.Tensor: 1.0, aten.add_.Tensor: 1.0, aten.sub.Tensor: -1.0, aten.sub_.Tensor: -1.0}
SAME = (aten.clone.default, aten.detach.default, aten.alias.default)
PRODUCTS = (aten.mul.Tensor, aten.mul_.Tensor, aten.mul.Scalar)


@dataclass(frozen=True, eq=False)
class Term:
    """A summand that comes from a call.

    Attributes:
        made: the call; of its ``out`` only the shape is kept.
        factor: what its outputs have been multiplied by since, shape (out,).
        axis: that of its features in the tensor where they are now; all others are in the order in which they were.
        number: of the call, in the order in which they were made.
        stage: how many additions it has met so far.
        read: whether an operator has read that tensor already.
        norm: the running mean that its outputs have met, and the factor until there; it can take up a bias.
    """

    made: Call
    factor: Float[Tensor, " out"]
    axis: int
    number: int
    stage: int = 0
    read: bool = False
    norm: tuple[Tensor, Float[Tensor, " out"]] | None = None

    @property
    def takes_shift(self) -> bool:
        """Whether something on the way to the sum can add a constant."""
        return self.made.bias is not None or self.norm is not None

    def shift_(self, by: Float[Tensor, " features"]) -> None:
        """Add a constant to the call's outputs: to its bias, or else to the norm that they meet."""
        if self.made.bias is not None:
            self.made.bias.add_(by.to(self.made.bias))
        elif self.norm is not None:
            mean, factor = self.norm
            mean.sub_((by * factor).to(mean))

    def rows(self, total: Tensor, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows out"]:
        """Those rows of the sum to which the same rows of the call's outputs are added."""
        return rows_of(total, self.axis, rows)

    def add_to_(
        self, total: Tensor, change: Float[Tensor, "groups k out"] | None, shift: Float[Tensor, " features"]
    ) -> None:
        """Change the sum as it changes when the call's matrix and bias do."""
        features_last = total.movedim(self.axis, -1)  # a view
        features_last.add_((shift * self.factor).to(total))
        if change is not None:
            more = self.made.product(change).movedim(self.made.axis, -1) * self.factor
            features_last.add_(more.reshape(features_last.shape).to(total))


Added = Callable[[Term, Tensor], None]
"""Is shown the latest call among the summands of a sum, and the sum, which it may change in place."""


class Sums(Calls):
    """Calls that are followed to the additions that they meet: times a factor per feature, and no further.

    So a residual connection is seen whatever normalisation or layer scale is in between.

    Attributes:
        shared: by ``Term.number`` the stage at which something else reads what comes of a call, if anything does: a
            change of the call that is made at a later stage would come too late for it.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, Tensor]], seen: Seen, added: Added, normalised: Normalised | None = None
    ) -> None:
        super().__init__(parameters, seen, normalised)
        self._added, self._number = added, 0
        self._terms = WeakTensorKeyDictionary()
        self.shared: dict[int, int] = {}

    def _passed(self, function: Any, args: Any, kwargs: Any, out: Any, made: Call | None) -> None:
        terms = self._read(function, args)
        if made is not None:
            self._number += 1
            features = made.weight.size(1 if made.geometry is None else 0)
            factor = torch.ones(features, dtype=out.dtype, device=out.device)
            then: Term | None = Term(replace(made, out=made.out.to("meta")), factor, made.axis, self._number)
        else:
            then = self._sum(function, args, kwargs, out, terms) or _multiplied(function, args, terms)
        for term in terms.values():
            if term.read or then is None or term.number != then.number:
                self.shared[term.number] = min(term.stage, self.shared.get(term.number, term.stage))
        if then is None:
            return
        result = out[0] if isinstance(out, tuple) else out
        if any(then.stage > term.stage for term in terms.values() if term.number == then.number):
            self._added(then, result)
        self._terms[result] = replace(then, read=False)

    def _read(self, function: Any, args: Any) -> dict[int, Term]:
        """The terms that an operator has read, by the id of their tensor, as they were before."""
        found: dict[int, Term] = {}
        for tensor in pytree.tree_leaves(args):
            term = self._terms.get(tensor) if isinstance(tensor, Tensor) else None
            if term is None:
                continue
            found[id(tensor)] = replace(term, read=term.read or id(tensor) in found)
            self._terms[tensor] = replace(term, read=True)
            if tensor is args[0] and function._schema.is_mutable:  # what it holds now is to be told by the caller
                del self._terms[tensor]
        return found

    def _sum(self, function: Any, args: Any, kwargs: Any, out: Any, terms: Mapping[int, Term]) -> Term | None:
        """The latest of the calls that this is a sum of; None if it is no sum of activations, or of other shapes."""
        summands = args[:2] if terms and function in ADDITIONS else ()
        if not summands or any(not isinstance(each, Tensor) or self._is_known(each) for each in summands):
            return None
        signs = {id(args[1]): ADDITIONS[function] * kwargs.get("alpha", 1)}
        latest = max(terms, key=lambda tensor: terms[tensor].number)
        term = terms[latest]
        if any(each.shape != out.shape for each in summands):
            return None
        return replace(term, factor=term.factor * signs.get(latest, 1.0), stage=term.stage + 1)


def _multiplied(function: Any, args: Any, terms: Mapping[int, Term]) -> Term | None:
    """What an operator makes of a term: the same, moved, or a multiple of it feature by feature."""
    x, *rest = args if function not in PRODUCTS or id(args[0]) in terms else (args[1], args[0])
    own = terms.get(id(x))
    if own is None or function in SAME:
        return own
    if function in MOVES:
        axis = MOVES[function](own.axis, tuple(x.shape), *rest)
        return None if axis is None else replace(own, axis=axis)
    if function in PRODUCTS:
        by = rest[0]
        if isinstance(by, Tensor) and not _along(by, x.dim(), own.axis, len(own.factor)):
            return None
        return replace(own, factor=own.factor * (by.flatten() if isinstance(by, Tensor) else by))
    if uses_statistics(function, args) and args[5] is not True and own.axis == 1:
        epsilon = next(a for a in reversed(args) if isinstance(a, float))
        scale = (args[4].to(own.factor) + epsilon).rsqrt()
        weight = 1.0 if args[1] is None else args[1].to(scale)
        return replace(own, factor=own.factor * scale * weight, norm=(args[3], own.factor))
    return None


def _viewed(axis: int, shape: Sequence[int], new: Sequence[int]) -> int | None:
    before, known = math.prod(shape[:axis]), math.prod(size for size in new if size > 0)
    new = [math.prod(shape) // max(known, 1) if size < 0 else size for size in new]
    found = (a for a, size in enumerate(new) if size == shape[axis] and math.prod(new[:a]) == before)
    return next(found, None)


def _permuted(axis: int, shape: Sequence[int], order: Sequence[int]) -> int | None:
    order = [place % len(shape) for place in order]
    others = [place for place in order if place != axis]
    return order.index(axis) if others == sorted(others) else None


def _transposed(axis: int, shape: Sequence[int], first: int, second: int) -> int | None:
    order = list(range(len(shape)))
    order[first], order[second] = order[second], order[first]
    return _permuted(axis, shape, order)


MOVES: Mapping[Any, Callable[..., int | None]] = {
    aten.view.default: _viewed,
    aten._unsafe_view.default: _viewed,
    aten.permute.default: _permuted,
    aten.transpose.int: _transposed,
}
"""The axis of the features afterwards; None where the others are not in their order any more."""


def _along(by: Tensor, dims: int, axis: int, features: int) -> bool:
    """Whether it is one number, or one for every feature and the same everywhere else."""
    shape = (1,) * (dims - by.dim()) + tuple(by.shape)
    return by.numel() == 1 or (len(shape) == dims and shape[axis] == features == by.numel())
