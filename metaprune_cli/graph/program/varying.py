"""Which sizes of a model's inputs may vary, and the sizes at which its program is recorded."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import count

import torch
from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves, map_tensors
from metaprune_cli.graph.program.emptiness import skips_what_is_empty
from metaprune_cli.graph.program.merging import Merged, alike, alike_but_for_copies, merged
from metaprune_cli.graph.program.script import Varying
from metaprune_cli.graph.trace.choices import ALL, NONE, ONE, without
from metaprune_cli.graph.trace.passes import batch_axis
from metaprune_cli.graph.trace.record import Recording
from metaprune_cli.graph.trace.tracer import ExampleInputs

BATCHES = (2, 3, 5, 8, 4, 7)
"""How often the example is repeated along the batch in the recordings; the first is the program's own."""
_FINE = ((0, 1, 6, 43, 11, 20), (0, 3, 13, 26, 8, 31), (0, 5, 22, 11, 15, 2), (0, 2, 17, 51, 9, 28))
"""What is added to sizes, in the order of the recordings: no two sizes grow alike, and all remainders come up."""
_COARSE = ((0, 1, 3, 4, 6, 2), (0, 2, 1, 5, 3, 4), (0, 4, 3, 1, 2, 5), (0, 3, 5, 2, 1, 6))
"""The same in steps, for models that take only multiples of something, and where sizes shrink."""
_MOST_CHOICES = 64
"""How often a program may take what data chooses: what runs where nothing is chosen is recorded for each."""
_ATTEMPTS = 10
"""How many combinations of sizes are tried; one that does not work costs a pass at most."""

Place = tuple[int, int]
"""An input tensor, by its position, and one of its dimensions."""


def inputs_at(example: ExampleInputs, varying: Sequence[Varying], recording: int) -> ExampleInputs:
    """Inputs on meta of the sizes of one of the recordings."""
    sizes = {place: size.recorded[recording] for size in varying for place in size.places}
    position = count()

    def resized(tensor: Tensor) -> Tensor:
        at = next(position)
        shape = [sizes.get((at, d), size) for d, size in enumerate(tensor.shape)]
        return tensor if list(tensor.shape) == shape else torch.empty(shape, dtype=tensor.dtype, device="meta")

    return map_tensors(example, resized)  # type: ignore[no-any-return]


def batch_of(example: ExampleInputs) -> Varying | None:
    """The batch; None where no input has one."""
    axes = [batch_axis(tensor, example) for tensor in leaves(example, Tensor)]
    places = tuple((at, axis) for at, axis in enumerate(axes) if axis is not None)
    if not places or axes[0] is None:
        return None
    once = next(leaves(example, Tensor)).size(axes[0])
    return Varying(places, tuple(once * times for times in BATCHES), None)


class Search:
    """Finds the sizes that a model takes others for, by running it at some.

    Args:
        example: what it was encoded with; its sizes are recorded first.
        record: records the model on inputs on meta, and says which recording it is: what data chooses differs too.
    """

    def __init__(self, example: ExampleInputs, record: Callable[[ExampleInputs, int], Recording]) -> None:
        self._example, self._record = example, record
        self._left = _ATTEMPTS
        self._known: dict[Hashable, Recording | None] = {}

    def found(self, like: tuple[Varying, ...] | None = None) -> tuple[Varying, ...]:
        """What may vary, the batch first; nothing where the model takes no sizes but the example's.

        ``like`` is what may vary in another mode: that, or the batch alone.
        """
        if like and self._works(like):
            return like
        batch = batch_of(self._example)
        fixed: tuple[Varying, ...] = () if batch is None or not self._runs((batch,), (0, 1)) else (batch,)
        taken = {place for size in fixed for place in size.places}
        for groups in self._groups(fixed, taken) if like is None else ():
            found = self._of(fixed, groups)
            if found is not None:
                return found
        return fixed if fixed and self._merges(fixed) else ()

    def _groups(self, fixed: Sequence[Varying], taken: set[Place]) -> Iterator[_Groups]:
        """Dimensions that may vary together; in the end those that may each by itself (nodes, and edges)."""
        every: dict[_Candidate, None] = {}
        for candidates in _candidates(self._example, taken):
            every |= dict.fromkeys(candidates)
            yield from _groupings(candidates)
        alone = [candidate for candidate in every if self._runs((*fixed, *_varying([[candidate]], 1)), (3, 1))]
        if 0 < len(alone) < len(every) and len(alone) <= len(_FINE):
            yield [[candidate] for candidate in alone]

    def recordings(self, varying: Sequence[Varying]) -> list[Recording] | None:
        """The model at all sizes; None where it does not run on one of them.

        Where data chooses, also where it chooses all there is, and one, where the model runs so.
        """
        first, *others = (self._at(varying, point) for point in range(len(BATCHES)))
        if first is not None and first.choices:
            others.append(self._at(varying, ALL))
            if (one := self._at(varying, ONE)) is not None:
                others += [one] if alike(first, one) or not alike_but_for_copies(first, one) else []
        return None if first is None or None in others else [first, *others]  # type: ignore[list-item]

    def merged(self, varying: Sequence[Varying], traced: Recording | None = None) -> Merged | None:
        """The program at all sizes, ``traced`` its first recording; None where it is not one."""
        recordings = self.recordings(varying)
        found = None if recordings is None else merged([traced or recordings[0], *recordings[1:]])
        if found is None or not (choices := found.recording.choices):
            return found
        empty = [NONE, *map(without, sorted({choice.number for choice in choices}))]
        for numbers in empty if len(empty) <= _MOST_CHOICES else ():
            nothing = self._at(varying, numbers)
            if nothing is not None and not skips_what_is_empty(found.recording, nothing, numbers):
                return None
        return found if len(empty) <= _MOST_CHOICES else None

    def _of(self, fixed: tuple[Varying, ...], groups: _Groups) -> tuple[Varying, ...] | None:
        """The finest steps in which these sizes may vary."""
        words = [any(whole for _, _, whole in group) for group in groups]
        for step in [-1, 1] if any(words) else [1]:
            if self._works(trial := (*fixed, *_varying(groups, step))):
                return trial
        if all(words) or not self._runs((*fixed, *_varying(groups, common := _common(groups))), (1,)):
            return None
        for step in [*(s for s in self._ratios(fixed, common) if 1 < s < common), common]:
            if self._works(trial := (*fixed, *_varying(groups, step))):
                return trial
        return None

    def _ratios(self, fixed: Sequence[Varying], size: int) -> list[int]:
        """By how much a size is divided where the model divides it."""
        base = self._at(fixed, 0)
        seen = {d for shape in base.shapes for d in shape if 1 < d < size and size % d == 0} if base else set()
        return sorted(size // d for d in seen)

    def _works(self, varying: Sequence[Varying]) -> bool:
        """Whether the program at all sizes is one."""
        if self._left <= 0:
            return False
        self._left -= 1
        return self._runs(varying, (0, 3, 1)) and self._merges(varying)

    def _merges(self, varying: Sequence[Varying]) -> bool:
        return self.merged(varying) is not None

    def _runs(self, varying: Sequence[Varying], points: Sequence[int]) -> bool:
        """Whether the model runs at these sizes, and runs the same operators."""
        base = self._at(varying, 0)
        made = (self._at(varying, point) for point in points)
        return base is not None and all(other is not None and alike(base, other) for other in made)

    def _at(self, varying: Sequence[Varying], point: int) -> Recording | None:
        inputs = inputs_at(self._example, varying, max(point, 0))
        key = (point, *(tensor.shape for tensor in leaves(inputs, Tensor)))
        if key not in self._known:
            try:
                self._known[key] = self._record(inputs, point)
            except InputError:
                self._known[key] = None
        return self._known[key]


_Candidate = tuple[Place, int, bool]
"""A dimension of an input, its size, and whether the input is of whole numbers."""
_Groups = list[list[_Candidate]]
"""Dimensions that vary together."""


def _candidates(example: ExampleInputs, taken: set[Place]) -> Iterator[list[_Candidate]]:
    """Dimensions that may vary, the likeliest first: lengths of tokens and of images; of either; of features."""
    tokens: list[_Candidate] = []
    spatial: list[_Candidate] = []
    features: list[_Candidate] = []
    for at, tensor in enumerate(leaves(example, Tensor)):
        for d, size in enumerate(tensor.shape):
            if (at, d) in taken or size == 1:
                continue
            whole = not tensor.is_floating_point()
            (tokens if whole else spatial if d > 1 else features).append(((at, d), size, whole))
    last = [candidate for candidate in features if candidate not in spatial]
    found = [tokens + spatial, tokens if spatial else [], spatial if tokens else [], tokens + last]
    yield from (candidates for candidates in found if candidates)


def _groupings(candidates: list[_Candidate]) -> Iterator[_Groups]:
    """Each dimension by itself; those of one size at one place, as ids and their mask; those of one size."""
    before: list[_Groups] = []
    for key in (
        lambda candidate: candidate[0],
        lambda candidate: (candidate[0][1], candidate[1]),
        lambda candidate: candidate[1],
    ):
        groups: dict[object, list[_Candidate]] = {}
        for candidate in candidates:
            groups.setdefault(key(candidate), []).append(candidate)
        if (found := list(groups.values())) not in before and len(found) <= len(_FINE):
            before.append(found)
            yield found


def _varying(groups: _Groups, step: int) -> Iterator[Varying]:
    """Sizes that grow by ``step`` or several of it; for a step below 0, those of whole numbers shrink instead."""
    for group, fine, coarse in zip(groups, _FINE, _COARSE, strict=False):
        size = min(size for _, size, _ in group)
        shrinks = step < 0 and any(whole for _, _, whole in group) and size > max(coarse) + 1
        table = coarse if shrinks or abs(step) > 1 else fine
        by = -1 if shrinks else abs(step)
        yield Varying(tuple(place for place, _, _ in group), tuple(size + by * more for more in table), abs(step))


def _common(groups: _Groups) -> int:
    """What all sizes are multiples of."""
    return math.gcd(*(size for group in groups for _, size, _ in group))
