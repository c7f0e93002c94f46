"""The products of activations and parameters in a model's pass, seen from below: by operator and storage, not by class.

A model's class and its program run the same operators, so one way of looking does for both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


@dataclass(frozen=True)
class Geometry:
    """Where a convolution's taps lie, dimension by dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, eq=False)
class Call:
    """A product of activations with one parameter, or with a part of one.

    Attributes:
        param: the parameter's name; ``parameter`` is the parameter itself.
        weight: the very argument, a view of the parameter: (out, in per group, *kernel) of a convolution, else (in,
            out).
        bias: shape (out,), or None.
        x: the activations that enter.
        out: what comes out.
        geometry: of a convolution; None for a matrix product.
    """

    param: str
    parameter: Tensor
    weight: Tensor
    bias: Tensor | None
    x: Tensor
    out: Tensor
    geometry: Geometry | None

    def matrix(self, weight: Tensor | None = None) -> Shaped[Tensor, "groups k out"]:
        """The weight, or a tensor of its shape, as one matrix a group; k counts the inputs, then the taps."""
        weight = self.weight if weight is None else weight
        if self.geometry is None:
            return weight[None]
        return weight.reshape(self.geometry.groups, weight.size(0) // self.geometry.groups, -1).transpose(1, 2)

    def add_(self, change: Float[Tensor, "groups k out"]) -> None:
        """Add to the parameter."""
        self.weight.add_(self._laid_out(change).to(self.weight))

    def _laid_out(self, matrix: Tensor) -> Tensor:
        return matrix[0] if self.geometry is None else matrix.transpose(1, 2).reshape(self.weight.shape)

    def part_of(self, whole: Tensor) -> Shaped[Tensor, "groups k out"]:
        """Of a tensor of the parameter's shape the part that is used here, as in :meth:`matrix`."""
        laid_out = torch.empty_strided(whole.shape, self.parameter.stride(), dtype=whole.dtype).copy_(whole)
        offset = self.weight.storage_offset() - self.parameter.storage_offset()
        return self.matrix(laid_out.as_strided(self.weight.size(), self.weight.stride(), offset))

    @property
    def num_rows(self) -> int:
        """Samples times positions: how often the weight is used."""
        features = self.weight.size(1 if self.geometry is None else 0)
        return self.out.numel() // max(features, 1)

    @property
    def axis(self) -> int:
        """Of ``out``, that of the features."""
        return self.out.dim() - 1 if self.geometry is None else 1

    def outputs(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows out"]:
        """Some rows of what came out."""
        return rows_of(self.out, self.axis, rows)

    def product(self, matrix: Float[Tensor, "groups k out"]) -> Tensor:
        """What would come out with another weight and no bias, laid out as ``out``."""
        weight = self._laid_out(matrix).to(self.x)
        if self.geometry is None:
            return self.x @ weight
        lie, nothing = self.geometry, (0,) * len(self.geometry.stride)
        out: Tensor = aten.convolution(
            self.x, weight, None, lie.stride, lie.padding, lie.dilation, False, nothing, lie.groups
        )
        return out

    def inputs(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "groups rows k"]:
        """What those rows were computed from."""
        if self.geometry is None:
            return self.x.reshape(-1, self.x.size(-1))[rows][None]
        lie = self.geometry
        padded = F.pad(self.x, [side for size in reversed(lie.padding) for side in (size, size)])
        sample, *place = self._places(rows)
        taps = []
        for tap in itertools.product(*(range(size) for size in self.weight.shape[2:])):
            where = [p * s + t * d for p, s, t, d in zip(place, lie.stride, tap, lie.dilation, strict=True)]
            taps.append(_at(padded, sample, where))
        return torch.stack(taps, dim=2).reshape(len(rows), lie.groups, -1).transpose(0, 1)

    def _places(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Sample and position of every row of the output (n, out, *positions)."""
        return torch.unravel_index(rows, (self.out.size(0), *self.out.shape[2:]))


def rows_of(tensor: Tensor, axis: int, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows features"]:
    """Single rows, one for each place along all axes but that of the features."""
    features_last = tensor.movedim(axis, -1)
    return features_last[torch.unravel_index(rows, features_last.shape[:-1])]


def _at(tensor: Tensor, sample: Tensor, place: Sequence[Tensor]) -> Tensor:
    """All channels of single positions: (n, channels, *positions) -> (rows, channels)."""
    index: tuple[Any, ...] = (sample, slice(None), *place)
    return tensor[index]


Seen = Callable[[Call], bool]
"""Is shown a call; says whether it has changed the weights, so that the operator is to run again."""
Normalised = Callable[[Tensor, Tensor, Tensor], None]
"""Is shown activations, and the running mean and variance that they are about to be normalised with."""


class Calls(TorchDispatchMode):
    """While it is entered, every :class:`Call` with one of these parameters is shown to ``seen``."""

    def __init__(
        self, parameters: Iterable[tuple[str, Tensor]], seen: Seen, normalised: Normalised | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen, self._normalised = seen, normalised
        self._known: dict[int, tuple[str, Tensor]] = {}
        for name, parameter in parameters:
            self._known.setdefault(parameter.untyped_storage().data_ptr(), (name, parameter))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator, and show it."""
        kwargs = kwargs or {}
        if self._normalised is not None and uses_statistics(function, args):
            self._normalised(args[0], args[3], args[4])
        out = function(*args, **kwargs)
        made = self._call(function, args, out)
        if made is not None and self._seen(made):
            out = function(*args, **kwargs)
        self._passed(function, args, kwargs, out, made)
        return out

    def _passed(self, function: Any, args: Any, kwargs: Any, out: Any, made: Call | None) -> None:
        """For those who follow what comes out: an operator has run, and will not be run again."""

    def _is_known(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._known

    def _call(self, function: Any, args: Any, out: Any) -> Call | None:
        geometry = bias = None
        if function is aten.convolution.default and not args[6]:  # 6: transposed
            x, weight, bias, *sizes = args[:6]
            dims = weight.dim() - 2
            stride, padding, dilation = (tuple(s) if len(s) == dims else tuple(s) * dims for s in sizes)
            geometry = Geometry(stride, padding, dilation, groups=args[8])
        elif function is aten.addmm.default and args[0].dim() == 1:
            bias, x, weight = args
        elif function is aten.mm.default:
            x, weight = args
        else:
            return None
        known = self._known.get(weight.untyped_storage().data_ptr())
        return None if known is None else Call(*known, weight, bias, x, out, geometry)


def uses_statistics(function: Any, args: Any) -> bool:
    """Some operator batch_norm(x, weight, bias, running_mean, running_var, ...), and it has running statistics."""
    return "batch_norm" in function.__name__ and len(args) > 4 and all(isinstance(a, Tensor) for a in args[3:5])


@contextmanager
def seen_whole(model: nn.Module) -> Iterator[None]:
    """In eval mode, without gradients, and without the fused kernels of attention, whose products nobody sees."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, training in modes:
            module.training = training
