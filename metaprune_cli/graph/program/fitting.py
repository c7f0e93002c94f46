"""Find what a number is made of, from what it was in several recordings and how large their tensors were."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations_with_replacement, islice

from metaprune_cli.graph.trace.sizes import Expression, Extent, Operation

Seen = tuple[int, ...]
"""A number in each of the recordings."""
_LARGEST_DIVISOR = 256
"""By how much Python code is taken to round a size up or down (windows, patches, strides)."""
_FACTORS = {1: 2000, 2: 150, 3: 40}
"""Of how many sizes, the earliest first, products of so many factors are tried."""
_SMALL = 16
_ROUNDINGS: tuple[Callable[[int, int], int], ...] = (
    lambda size, by: size // by,
    lambda size, by: -(-size // by),
    lambda size, by: -size % by,
    lambda size, by: size % by,
    lambda size, by: size // by * by,
    lambda size, by: -(-size // by) * by,
    lambda size, by: -size % by // 2,
    lambda size, by: (-size % by + 1) // 2,
)


def _as_expression(kind: int, known: Expression, by: int) -> Expression:
    """The same as one of the roundings."""
    lacking = Operation("*", known, -1)
    down, up = Operation("//", known, by), Operation("*", Operation("//", lacking, by), -1)
    lack = Operation("%", lacking, by)
    made = (down, up, lack, Operation("%", known, by), Operation("*", down, by), Operation("*", up, by))
    return (*made, Operation("//", lack, 2), Operation("//", Operation("+", lack, 1), 2))[kind]


class Extents:
    """The sizes of tensors that differ between recordings, in the order in which the program makes them.

    Every number is written by the first tensor of its size: what convolutions and pools make of a size is read from
    what they made, so that no formula of theirs has to be found.
    """

    def __init__(self) -> None:
        self._known: dict[Seen, Expression] = {}
        self._fitted: dict[tuple[float, ...], Expression] = {}

    def add(self, extent: Extent) -> None:
        """A dimension of a tensor."""
        if len(set(extent.seen)) > 1:
            self._known.setdefault(extent.seen, extent)

    def fit(self, seen: Seen) -> Expression | None:
        """An expression that has these values; None where there is none."""
        if seen not in self._fitted:
            found = self._known.get(seen) or next(self._candidates(seen), None)
            if found is None:
                return None  # asked again, it may be known
            self._fitted[seen] = found
        return self._fitted[seen]

    def fit_fraction(self, seen: Sequence[float]) -> Expression | None:
        """The same for a floating-point number, to the bit: a size by a number, or a number by a size."""
        if not all(map(math.isfinite, seen)):
            return None
        for sizes, known in self._known.items():
            for over in {round(sizes[0] / seen[0]) if seen[0] else 0, round(seen[0] * sizes[0])} - {0}:
                if all(s == size / over for s, size in zip(seen, sizes, strict=True)):
                    return Operation("/", known, over)
                if all(s == over / size for s, size in zip(seen, sizes, strict=True) if size) and all(sizes):
                    return Operation("/", over, known)
        return None

    def _candidates(self, seen: Seen) -> Iterator[Expression]:
        if max(seen) <= 0 and any(seen):
            positive = self.fit(tuple(-s for s in seen))
            if positive is not None:
                yield Operation("*", positive, -1)
        yield from self._multiples(seen)
        yield from self._rounded(seen)
        yield from self._sums(seen)
        if (offset := self._offset(seen)) is not None:
            yield offset

    def _products(self, most: int) -> Iterator[tuple[Seen, Expression]]:
        """The products of up to ``most`` sizes, those of few factors first."""
        for count in range(1, most + 1):
            known = list(islice(self._known.items(), _FACTORS[count]))
            for (values, product), *factors in combinations_with_replacement(known, count):
                for sizes, factor in factors:
                    values = tuple(a * b for a, b in zip(values, sizes, strict=True))
                    product = Operation("*", product, factor)
                yield values, product

    def _multiples(self, seen: Seen) -> Iterator[Expression]:
        """A product of sizes, times or over a constant."""
        for values, product in self._products(3):
            if all(s * values[0] == seen[0] * v for s, v in zip(seen, values, strict=True)):
                yield from _scaled(product, seen[0], values[0])

    def _rounded(self, seen: Seen) -> Iterator[Expression]:
        """A size divided and rounded, what is left of it, what it lacks, and the halves of that.

        Small numbers may be taken for several: then they are for none.
        """
        found: dict[tuple[Seen, tuple[int, ...]], Expression] = {}
        for sizes, known in self._known.items():
            if max(sizes) <= _SMALL:
                continue  # batches are not rounded
            for by in range(2, _LARGEST_DIVISOR + 1):
                for kind, work_out in enumerate(_ROUNDINGS):
                    if all(work_out(size, by) == s for size, s in zip(sizes, seen, strict=True)):
                        everywhere = tuple(work_out(size, by) for size in range(1, 2 * _LARGEST_DIVISOR))
                        found.setdefault((sizes, everywhere), _as_expression(kind, known, by))
        if len(found) == 1:
            yield from found.values()

    def _sums(self, seen: Seen) -> Iterator[Expression]:
        """A sum or a difference of two sizes, or of a size and what has been found before."""
        for sizes, known in self._known.items():
            rest = tuple(a - b for a, b in zip(seen, sizes, strict=True))
            if (other := self._known.get(rest) or self._fitted.get(rest)) is not None:
                yield Operation("+", known, other)
            if (more := tuple(-r for r in rest)) in self._known:
                yield Operation("+", known, Operation("*", self._known[more], -1))

    def _offset(self, seen: Seen) -> Expression | None:
        """A constant beside a multiple of a size or of the product of two."""
        for values, product in self._products(2):
            if values[1] == values[0]:
                continue
            slope, rest = divmod(seen[1] - seen[0], values[1] - values[0])
            fixed = seen[0] - slope * values[0]
            if not rest and slope and all(s == slope * v + fixed for s, v in zip(seen, values, strict=True)):
                return Operation("+", next(_scaled(product, slope, 1)), fixed)
        return None


def _scaled(product: Expression, times: int, over: int) -> Iterator[Expression]:
    """A product times ``times / over``, where one of the two goes into the other."""
    if times and times % over == 0:
        yield product if times == over else Operation("*", product, times // over)
    elif times and over % times == 0:
        yield Operation("//", product, over // times)
