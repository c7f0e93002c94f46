"""What can follow a removal: the model's class, or else its program, rewritten; what neither can do is locked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from types import MappingProxyType

import torch
from torch import Tensor

from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.arguments import found_in
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.placement import cut_elsewhere, misplaced
from metaprune_cli.graph.program.rewrite import rewrite
from metaprune_cli.graph.resize import copied, fill_, own_copies, resize_
from metaprune_cli.graph.slicing import slice_tensors
from metaprune_cli.graph.structure import Lock
from metaprune_cli.graph.trace.passes import Pass, Skeleton, record_pass, repeated
from metaprune_cli.graph.trace.record import READ, Recording, Step, Value
from metaprune_cli.graph.units import Family
from metaprune_cli.graph.widths import Recipe, Widths, choices, recipes_for, set_widths_, widths_by

aten = torch.ops.aten
Passes = Sequence[tuple[Pass, Recording]]
_TRIES = 32
"""Sets of attributes that are tried, at most."""
_FEW = 12
"""Below this many families it is quicker to try each than to halve on: families that break come in numbers."""


def lock_what_breaks(graph: NeuronGraph, skeleton: Skeleton, passes: Passes) -> list[Lock]:
    """Find the families that cannot be removed because the program around the parameters does not follow.

    One unit of every prunable family is removed at once, and the class is run on it; where Python fixes sizes, the
    recorded program is rewritten instead. Only if that fails too are the families halved until the culprits are found,
    so an ordinary model costs one pass on meta. A model whose control flow depends on data has no program of its own;
    nor has one that decides by what it draws, but there attributes that hold a width can be set.

    Args:
        graph: the traced graph.
        skeleton: the model that was traced.
        passes: what was traced.

    Returns:
        One lock per family that breaks, the error as its reason.
    """
    if not skeleton.real:
        graph = graph.with_tensors({n: torch.empty_like(t, device="meta") for n, t in graph.tensors.items()})
    families = [f for f in graph.units.families if f.locked is None]
    folded = [(given, recording.folded()) for given, recording in passes]

    def by_class(kept: Tensor) -> str | None:
        return class_failure(graph, skeleton, passes, kept)

    def by_widths(kept: Tensor) -> str | None:
        reason = by_class(kept)
        return None if reason is None or helpful(graph, skeleton, passes, kept) else reason

    def by_program(kept: Tensor) -> str | None:
        return program_failure(graph, folded, kept)

    a_little = _without(graph, families)
    if by_class(a_little) is None:
        return []
    if skeleton.real:
        ways = [by_class]
    else:
        ways = [by_widths] if _draws(skeleton, passes, graph.aliases) else [by_class, by_program]
        if ways[-1](a_little) is None:
            return []
    few = 1 if skeleton.real else _FEW  # a pass that computes something is not quick
    return min((_culprits(graph, families, failure, few) for failure in ways), key=_locked)


def _draws(skeleton: Skeleton, passes: Passes, aliases: Mapping[str, str]) -> bool:
    """Whether Python decides by a number that is drawn in training; a program would decide the same way for ever."""
    apart = Skeleton(copied(skeleton.model), skeleton.real, skeleton.known)  # some modules change as they train
    for times in (2, 1):
        try:
            given = Pass(training=True, inputs=repeated(passes[0][0].inputs, times))
            return record_pass(apart, given, aliases).reads_draws
        except InputError:
            continue
    return False


def class_failure(
    graph: NeuronGraph, skeleton: Skeleton, passes: Passes, kept: Tensor, widths: Widths = MappingProxyType({})
) -> str | None:
    """Why the model's class, given smaller parameters, does not compute what it should; None if it does.

    Where nothing depends on data, it must run the very operators that it ran before, with the same constants in them: a
    class that derives an attention's scale from the width of its heads, say, does not follow. ``widths``: what its
    attributes become.
    """
    try:
        small = Skeleton(copied(skeleton.model), skeleton.real, skeleton.known)
        tensors = slice_tensors(graph, kept)
        resize_(small.model, {name: tuple(t.shape) for name, t in tensors.items()})
        set_widths_(small.model, widths)
        if skeleton.real:  # what control flow depends on
            fill_(small.model, own_copies(tensors, graph.tensors))
        for given, before in passes:
            after = record_pass(small, given, graph.aliases)
            if _shapes(after, exact=not skeleton.real) != _shapes(before, exact=not skeleton.real):
                return "its removal changes the shape of the output"
            was, now = _without_copies(before), _without_copies(after)
            if _constants_differ(was, now, before.unknown, real=skeleton.real):
                return "its removal changes a constant in the program"
            if reason := (cut_elsewhere if skeleton.real else misplaced)(was, now, graph, kept):
                return f"its removal changes what is cut: {reason}"
    except InputError as error:
        return f"its removal breaks the program: {error.details['got']}"
    except MetapruneError as error:
        return f"its removal is not rectangular: {error.what}"
    return None


def helpful(graph: NeuronGraph, skeleton: Skeleton, passes: Passes, kept: Tensor) -> tuple[Recipe, ...] | None:
    """The attributes that hold a width which, set, let the class follow a removal; None where there are none.

    As few as suffice: what is a width by chance alone must not change.
    """
    try:
        small = copied(skeleton.model)
        resize_(small, {name: tuple(t.shape) for name, t in slice_tensors(graph, kept).items()})
        recipes = recipes_for(small, graph, kept)
    except MetapruneError:
        return None

    def helps(chosen: Sequence[Recipe]) -> bool:
        return class_failure(graph, skeleton, passes, kept, widths_by(recipes, chosen)) is None

    found = next((chosen for chosen in islice(choices(recipes), _TRIES) if helps(chosen)), None)
    for recipe in found or ():
        fewer = [other for other in found or () if other != recipe]
        found = fewer if helps(fewer) else found
    return None if found is None else tuple(found)


def program_failure(graph: NeuronGraph, passes: Passes, kept: Tensor) -> str | None:
    """Why the recorded program, rewritten, does not run; None if it does."""
    try:
        tensors = slice_tensors(graph, kept)
        for _, recording in passes:
            rewrite(recording, graph, kept, tensors)
    except MetapruneError as error:
        return f"its removal breaks the program: {error.what}"
    return None


def _without(graph: NeuronGraph, families: Sequence[Family]) -> Tensor:
    """All units but one of every family."""
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in families:
        kept[family.units[graph.units.prunable[family.units]][0]] = False
    return kept


def _locked(locks: Sequence[Lock]) -> int:
    return sum(lock.neurons.numel() for lock in locks)


def _culprits(
    graph: NeuronGraph, families: Sequence[Family], failure: Callable[[Tensor], str | None], few: int
) -> list[Lock]:
    """One lock for each family whose removal fails, the reason with it."""
    locks: list[Lock] = []
    queue = [list(families)]
    while queue:
        batch = queue.pop()
        reason = failure(_without(graph, batch)) if batch else None
        if reason is None:
            continue
        if len(batch) > few:
            queue += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        elif len(batch) > 1:
            queue += [[family] for family in batch]
        else:
            locks.append(lock_of(graph, batch[0], reason))
    return locks


def lock_of(graph: NeuronGraph, family: Family, reason: str) -> Lock:
    """What locks a whole family."""
    heads = family.kind == "heads"
    owner = graph.units.row_of if heads else graph.units.unit_of
    neurons = torch.isin(owner, family.units).nonzero().flatten()
    return Lock(neurons, reason, "row" if heads else "column")


def _shapes(recording: Recording, *, exact: bool) -> list[tuple[int, ...]]:
    """The outputs' shapes; how many there are of what depends on data (detections) is not comparable."""
    shapes = [tuple(recording.values[v.number].shape) for v in leaves(recording.outputs, Value)]
    return shapes if exact else [(len(shape),) for shape in shapes]


def _constants_differ(was: Recording, now: Recording, unknown: set[int], *, real: bool) -> bool:
    """Whether an operator, a number that is no size, or a tensor that depends on no input is another than before.

    Where control flow depends on data, so do the operators, and numbers that Python has read.
    """
    if real and any(s.operator is READ and was.values[s.inputs()[0]].is_floating_point() for s in was.steps):
        return False
    if not real and [step.operator for step in was.steps] != [step.operator for step in now.steps]:
        return True
    together = takewhile(lambda pair: pair[0].operator is pair[1].operator, zip(was.steps, now.steps, strict=False))
    return any(
        _numbers(a, real=real) != _numbers(b, real=real)
        or any(_differ(was, now, *pair) for pair in zip(a.inputs(), b.inputs(), strict=False) if pair[0] not in unknown)
        for a, b in together
    )


def _differ(was: Recording, now: Recording, old: int, new: int) -> bool:
    """Whether two tensors are constants of one shape and other values."""
    if old not in was.constants or new not in now.constants:
        return False
    before, after = was.constants[old], now.constants[new]
    return before.is_floating_point() and before.shape == after.shape and not torch.equal(before, after)


def _without_copies(recording: Recording) -> Recording:
    """The same without what PyTorch does for the sake of memory alone: along a size of one, nothing is copied."""
    steps = [
        replace(step, operator=aten.view.default) if step.operator is aten._unsafe_view.default else step
        for step in recording.steps
        if step.operator is not aten.clone.default
    ]
    return replace(recording, steps=tuple(steps))


def _numbers(step: Step, *, real: bool) -> list[float]:
    pointwise = torch.Tag.pointwise in step.operator.tags and not real
    return found_in((step.args, step.kwargs), (int, float) if pointwise else float)
