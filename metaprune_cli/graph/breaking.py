"""What neither the model's class nor its program can follow is locked, with the error as its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.dry_run import Passes, program_failure
from metaprune_cli.graph.following import Following, on_meta
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.structure import Lock
from metaprune_cli.graph.trace.passes import Skeleton, record_pass, repeated
from metaprune_cli.graph.units import Family

_FEW = 12
"""Below this many families it is quicker to try each than to halve on: families that break come in numbers."""


def lock_what_breaks(
    graph: NeuronGraph, skeleton: Skeleton, passes: Passes, captured: Callable[[], Captured] | None = None
) -> list[Lock]:
    """Find the families that cannot be removed because the program around the parameters does not follow.

    One unit of every prunable family is removed at once, and the class is run on it; where Python fixes sizes, the
    recorded program is rewritten instead. Only if that fails too are the families halved until the culprits are found,
    so an ordinary model costs one pass on meta. A model whose control flow depends on data has a program only if all
    that it asks of its data is answered yes or no, and every way it may run has been recorded.

    Args:
        graph: the traced graph.
        skeleton: the model that was traced.
        passes: what was traced.
        captured: records every way, where that is needed.

    Returns:
        One lock per family that breaks, the error as its reason.
    """
    graph = graph if skeleton.real else on_meta(graph)
    families = [f for f in graph.units.families if f.locked is None]

    @cache
    def folded() -> Passes:
        return [(given, recording.folded()) for given, recording in passes]

    def by_program(kept: Tensor) -> str | None:
        return program_failure(graph, folded(), kept)

    following, a_little = Following(graph, skeleton, passes), _without(graph, families)
    if following.failure(a_little) is None:
        return []
    few = 1 if skeleton.real else _FEW  # a pass that computes something is not quick
    if following.by_values or _draws(skeleton, passes, graph.aliases):
        locks = _unless_learnt(graph, following, families, few)
        return locks if not locks or captured is None else _unless_recorded(graph, locks, families, captured)
    if by_program(a_little) is None:
        return []
    found = [_locks(graph, families, failure, few) for failure in (following.failure, by_program)]
    return min(found, key=_locked)


def _unless_learnt(graph: NeuronGraph, following: Following, families: Sequence[Family], few: int) -> list[Lock]:
    """Locks of those families that a class, which has to follow, does not follow whatever attributes change.

    Layers of one kind are one class's code, and those of one module may go by one number (the size of a head): their
    attributes are looked for together.
    """
    for together in (_household, _kin):
        groups: dict[tuple[Any, ...], list[Family]] = {}
        for family in families:
            groups.setdefault(together(family), []).append(family)
        failing = [group for group, _ in _culprits(graph, list(groups.values()), following.failure, few)]
        families = [family for group in failing if not following.learn(_without(graph, group)) for family in group]

    def reason(kept: Tensor) -> str | None:
        found = following.failure(kept)
        return None if found is None else f"{found}; the flow depends on data, so no program can take its place"

    return _locks(graph, families, reason, few)


def _unless_recorded(
    graph: NeuronGraph, locks: list[Lock], families: Sequence[Family], captured: Callable[[], Captured]
) -> list[Lock]:
    """Fewer locks, where a program of all the ways in which the model may run follows."""
    try:
        program, graph = captured(), on_meta(graph)
    except Exception:  # noqa: BLE001 - whatever the model raises where its questions are answered otherwise
        return locks

    def by_program(kept: Tensor) -> str | None:
        try:
            program.without(graph, kept)
        except MetapruneError as error:
            return f"its removal breaks the program: {error.what}"
        return None

    return min([locks, _locks(graph, families, by_program, _FEW)], key=_locked)


def _kin(family: Family) -> tuple[Any, ...]:
    return family.kin


def _household(family: Family) -> tuple[Any, ...]:
    name, *rest = family.kin
    return (name.rpartition(".")[0], *rest)


def _draws(skeleton: Skeleton, passes: Passes, aliases: Mapping[str, str]) -> bool:
    """Whether Python decides by a number that is drawn in training; a program would decide the same way for ever."""
    apart = Skeleton(copied(skeleton.model), skeleton.real, skeleton.known)  # some modules change as they train
    for times in (2, 1):
        try:
            given = replace(passes[0][0], training=True, inputs=repeated(passes[0][0].inputs, times))
            return record_pass(apart, given, aliases).reads_draws
        except InputError:
            continue
    return False


def _without(graph: NeuronGraph, families: Sequence[Family]) -> Tensor:
    """All units but one of every family."""
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in families:
        kept[family.units[graph.units.prunable[family.units]][0]] = False
    return kept


def _locked(locks: Sequence[Lock]) -> int:
    return sum(lock.neurons.numel() for lock in locks)


def _locks(
    graph: NeuronGraph, families: Sequence[Family], failure: Callable[[Tensor], str | None], few: int
) -> list[Lock]:
    """One lock for each family whose removal fails, the reason with it."""
    culprits = _culprits(graph, [[family] for family in families], failure, few)
    return [lock_of(graph, family, reason) for (family,), reason in culprits]


def _culprits(
    graph: NeuronGraph, groups: Sequence[list[Family]], failure: Callable[[Tensor], str | None], few: int
) -> list[tuple[list[Family], str]]:
    """Every group of families whose removal fails, with the reason."""
    found: list[tuple[list[Family], str]] = []
    queue = [list(groups)]
    while queue:
        batch = queue.pop()
        reason = failure(_without(graph, [family for group in batch for family in group])) if batch else None
        if reason is None:
            continue
        if len(batch) > few:
            queue += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        elif len(batch) > 1:
            queue += [[group] for group in batch]
        else:
            found.append((batch[0], reason))
    return found


def lock_of(graph: NeuronGraph, family: Family, reason: str) -> Lock:
    """What locks a whole family."""
    heads = family.kind == "heads"
    owner = graph.units.row_of if heads else graph.units.unit_of
    neurons = torch.isin(owner, family.units).nonzero().flatten()
    return Lock(neurons, reason, "row" if heads else "column")
