"""How many there are of what data chooses: rows by a mask, what is not zero, what differs, boxes that are left.

On meta nobody knows, so a number is made up, another one in every recording of a program: sizes that follow from it
show as such. Whether it makes a difference to Python that none, one or all are chosen is recorded as well.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.trace.layouts import frozen, run_on_meta

aten = torch.ops.aten
NONE, ONE, ALL = -1, -2, -3
"""Recordings in which every choice takes nothing, one, or all there is."""


def without(place: int) -> int:
    """The recording in which one choice takes nothing, and the others what they take in the first."""
    return ALL - 1 - place


Numbers = int | tuple[int, ...]
"""How many each choice of a pass takes: see :class:`Choices`."""
_AS_MANY = (aten.unsqueeze, aten.squeeze, aten.view, aten.expand, aten.clone, aten.alias, aten.detach)
INTO = (aten.index_add, aten.index_put, aten.index_copy, aten.scatter, aten.scatter_add)
"""What writes into the first tensor, and returns another."""
_OPPOSITE = (aten.bitwise_not, aten.logical_not)


@dataclass(frozen=True)
class Choice:
    """What data chooses.

    Attributes:
        number: which choice of a pass it is.
        count: how many it takes of what the mask itself says (not of its repetitions).
        feigned: whether it takes nothing in truth.
    """

    number: int
    count: int
    feigned: bool = False


class Choices:
    """The choices of one pass. The same mask chooses as many, and so does one that is computed alike.

    Args:
        numbers: which recording it is, from 0 on or one of those above; or how many each choice takes, one at least, so
            that what they pass through is met.
    """

    def __init__(self, numbers: Numbers) -> None:
        self._numbering = numbers
        self._made: dict[int, Choice] = {}
        self._numbers: dict[int, int] = {}
        self._kept: dict[int, list[Tensor]] = defaultdict(list)
        self._known: dict[Hashable, int] = {}
        self._opposites: dict[int, int] = {}
        self._summed: dict[int, Tensor] = {}

    def of(self, chooser: Tensor) -> Choice:
        """How many a tensor chooses."""
        number = self._number(chooser)
        if number not in self._made:
            most = chooser.numel() // max(repeats(chooser), 1)
            other = self._made.get(self._opposites.get(number, -1))
            count = self._drawn(most) if other is None else most - other.count
            numbers, place = self._numbering, len(self._made)
            feigned = isinstance(numbers, tuple) and count > 0 and numbers[place : place + 1] == (0,)
            self._made[number] = Choice(place, count, feigned)
        return self._made[number]

    def summed(self, tensor: Tensor) -> Tensor | None:
        """The mask of which a tensor says how many are true."""
        return self._summed.get(self._number(tensor))

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Remember what has been computed from what."""
        made, given = tensors_in(out), tensors_in((args, kwargs))
        if func._schema.is_mutable:
            for tensor in [other for leaf in made for other in self._kept[leaf.untyped_storage()._cdata]]:
                self._numbers.pop(id(tensor), None)
        if func._schema.is_mutable or torch.Tag.nondeterministic_seeded in func.tags or not made:
            return
        numbers = tuple(map(self._number, given))
        if func.overloadpacket in _AS_MANY:
            self._keep(made[0], numbers[0])
            return
        try:
            key = (func, frozen(args, []), frozen(tuple(kwargs.items()), []), numbers)
            hash(key)
        except TypeError:
            return  # an argument without a hash
        for place, leaf in enumerate(made):
            self._keep(leaf, self._known.setdefault((key, place), len(self._known)))
        if func.overloadpacket in _OPPOSITE:
            self._opposites[self._number(made[0])] = numbers[0]
        if func is aten.sum.default and given[0].dtype is torch.bool:
            self._summed[self._number(made[0])] = given[0]

    def _number(self, tensor: Tensor) -> int:
        if id(tensor) not in self._numbers:
            self._keep(tensor, self._known.setdefault(("given", len(self._known)), len(self._known)))
        return self._numbers[id(tensor)]

    def _keep(self, tensor: Tensor, number: int) -> None:
        self._numbers[id(tensor)] = number
        self._kept[tensor.untyped_storage()._cdata].append(tensor)

    def _drawn(self, most: int) -> int:
        numbers, place = self._numbering, len(self._made)
        if isinstance(numbers, tuple):
            return min(max(1, numbers[place]), most) if place < len(numbers) else most
        few = {NONE: 0, ONE: min(1, most), ALL: most, without(place): 0}
        if numbers in few:
            return few[numbers]
        drawn = random.Random(97 * place + max(numbers, 0))  # the same everywhere
        return drawn.randint((most + 1) // 2, most)


def chooser(func: Any, args: tuple[Any, ...]) -> Any:
    """The argument whose values say how much an operator makes; None where that follows from sizes."""
    if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
        return next((index for index in args[1] if index is not None and index.dtype is torch.bool), None)
    return args[_CHOOSE[func._schema.name][0]] if func._schema.name in _CHOOSE else None


def run_chosen(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], count: int) -> Any:
    """What an operator makes on meta where data chooses so many."""
    if func.overloadpacket is aten.index:
        chosen = [[i] if i is None or i.dtype is not torch.bool else places(i, count) for i in args[1]]
        return run_on_meta(func, (args[0], [i for part in chosen for i in part]), kwargs)
    if func._schema.name not in _CHOOSE:
        return run_on_meta(func, args, kwargs)
    by, make = _CHOOSE[func._schema.name]
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    return make(count * repeats(args[by]), **given)


def is_feigned(func: Any, args: tuple[Any, ...], feigned: Callable[[Tensor], bool]) -> bool:
    """Whether an operator makes nothing in truth: it is given nothing, and puts it into nothing that is something."""
    first = args[0] if args else None
    if func.overloadpacket in (aten.cat, aten.stack):
        return all(map(feigned, tensors_in(first)))
    into = func._schema.is_mutable or func.overloadpacket in INTO
    return any(map(feigned, tensors_in((first,) if into else args)))


def counted(by: Tensor, out: Any) -> int:
    """How many were chosen for real."""
    if by.dtype is torch.bool or (isinstance(out, Tensor) and out.dim() == 2):
        return int(by.count_nonzero()) // max(repeats(by), 1)
    return len(out if isinstance(out, Tensor) else out[0])


def places(mask: Tensor, count: int, device: str = "meta") -> list[Tensor]:
    """The index, one part for each dimension, that a mask stands for of which so many are true."""
    return [torch.zeros(count * repeats(mask), dtype=torch.int64, device=device)] * mask.dim()


def repeats(mask: Tensor) -> int:
    """How often a mask lies in itself, expanded."""
    return math.prod(size for size, step in zip(mask.size(), mask.stride(), strict=True) if step == 0)


def _nonzero(count: int, self: Tensor) -> Tensor:
    return self.new_empty((count, self.dim()), dtype=torch.int64)


def _masked(count: int, self: Tensor, mask: Tensor) -> Tensor:
    wide = math.prod(torch.broadcast_shapes(self.shape, mask.shape))
    return self.new_empty(count * (wide // mask.numel()) if mask.numel() else 0)


def _different(count: int, self: Tensor, return_inverse: bool = False, return_counts: bool = False, **_: Any) -> Any:
    inverse = self.new_empty(self.shape if return_inverse else 0, dtype=torch.int64)
    return self.new_empty(count), inverse, self.new_empty(count if return_counts else 0, dtype=torch.int64)


def _kept_boxes(count: int, dets: Tensor, **_: Any) -> Tensor:
    return dets.new_empty(count, dtype=torch.int64)


_CHOOSE: dict[str, tuple[int, Callable[..., Any]]] = {
    "aten::nonzero": (0, _nonzero),
    "aten::masked_select": (1, _masked),
    "aten::_unique2": (0, _different),
    "torchvision::nms": (1, _kept_boxes),
}
"""By operator: the argument that chooses, and what it makes of how many."""
