"""What a model's class can follow: widths kept as numbers, families that must shrink alike; the rest is locked.

Layers of one kind are one class's code, so they are tried together: a network of a hundred layers takes a few trials.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.trials import Trials, at_fault
from metaprune_cli.pruning.plan import Held
from metaprune_cli.pruning.rules import tied_alike
from metaprune_cli.workflows.allowed import Allowed, gains_of, only, shrunk_by

_SHARES = (0.75, 0.5, 0.25, 0.0)
"""Of the units that a plan takes, how many are tried instead; at least one."""
Group = tuple[int, ...]
"""Families of one kind, by number."""


def narrowed(trials: Trials, allowed: Allowed, kept: Tensor) -> Allowed:
    """What may go, so that the class follows a removal like the one that it does not.

    Of what fails, the attributes that hold its width are looked for; where there are none, families that must lose
    equally many are tied, or lose less (an attention of one head runs other operators than one of many); where nothing
    helps, they are locked.

    Args:
        trials: of the model; learns which attributes are widths.
        allowed: what may go so far.
        kept: the removal that the class does not follow.
    """
    graph, families = allowed.graph, allowed.graph.units.families
    groups = _groups(graph, kept)

    def failure(some: Sequence[Group]) -> str | None:
        return trials.by_class(only(kept, [families[number] for group in some for number in group]))

    faults = at_fault(groups, failure)
    if not faults:
        return allowed.without_all(kept, trials.by_class)
    for group, reason in faults:
        alone = only(kept, [families[number] for number in group])
        if trials.by_class(alone) is None:  # it is too much beside the others alone
            allowed = _locked(trials, allowed, kept, group, reason)
            continue
        if trials.learn(alone):
            continue
        allowed = (
            _tied(trials, allowed, kept, group)
            or _limited(trials, allowed, kept, group, reason)
            or _locked(trials, allowed, kept, group, reason)
        )
    return allowed


def _groups(graph: NeuronGraph, kept: Tensor) -> list[Group]:
    """The families that shrink, those of the same name but for its numbers together; what saves much first."""
    gains, found = gains_of(graph, kept), defaultdict(list)
    for number in gains:
        family = graph.units.families[number]
        found[family.kin].append(number)
    return sorted(map(tuple, found.values()), key=lambda group: -sum(gains[number] for number in group))


def _locked(trials: Trials, allowed: Allowed, kept: Tensor, group: Group, reason: str) -> Allowed:
    """All of a group, where its first by itself fails too; else those of it that do."""
    families = allowed.graph.units.families
    if trials.by_class(only(kept, [families[group[0]]])) is not None:
        return allowed.locking([(number, reason) for number in group])
    faults = at_fault(group, lambda some: trials.by_class(only(kept, [families[number] for number in some])))
    return allowed.locking(faults or [(number, reason) for number in group])


def _tied(trials: Trials, allowed: Allowed, kept: Tensor, group: Group) -> Allowed | None:
    """With families tied that have to lose as many as these; None where no ties help."""
    for ties in _candidates(allowed, group):
        alike = _alike(allowed.graph, kept, ties)
        if not any(len(tie) > 1 for tie in ties) or alike is None:
            continue
        if trials.by_class(alike) is not None and not trials.learn(alike):
            continue
        tied = allowed.limits.tied.clone()
        for tie in ties:
            tied[torch.isin(tied, tied[list(tie)])] = int(tied[list(tie)].min())
        if not torch.equal(tied, allowed.limits.tied):
            return replace(allowed, limits=tied_alike(replace(allowed.limits, tied=tied)))
    return None


def _limited(trials: Trials, allowed: Allowed, kept: Tensor, group: Group, reason: str) -> Allowed | None:
    """With fewer units that may go of each of a group; None where even one of each is too many."""
    graph, families = allowed.graph, allowed.graph.units.families
    taken = [int((~kept[families[number].units]).sum()) for number in group]
    for share in _SHARES:
        counts = [max(int(count * share), 1) for count in taken]
        fewer = torch.ones_like(kept)
        for number, count in zip(group, counts, strict=True):
            units = families[number].units
            fewer[units[graph.units.prunable[units]][:count]] = False
        if counts != taken and (trials.by_class(fewer) is None or trials.learn(fewer)):
            most = allowed.limits.most.clone()
            most[list(group)] = torch.minimum(most[list(group)], torch.tensor(counts))
            least = torch.minimum(allowed.limits.least, most)
            limits = tied_alike(replace(allowed.limits, most=most, least=least))
            named = tuple(Held(families[number].name, reason) for number in group)
            return replace(allowed, limits=limits, limited=(*allowed.limited, *named))
    return None


def _candidates(allowed: Allowed, group: Group) -> Iterator[list[Group]]:
    """Who may have to shrink with whom: parts of a parameter, or of a module (halves, q and v); all layers; both."""
    families = allowed.graph.units.families

    def partners(number: int) -> Group:
        own, touched = families[number], set(families[number].parameters)
        same = [
            n
            for n, other in enumerate(families)
            if (other.kind, len(other.units)) == (own.kind, len(own.units))
            and (touched & set(other.parameters) or (own.home and other.home == own.home))
        ]
        return tuple(sorted({number, *(n for n in same if families[n].locked is None)}))

    beside = [partners(number) for number in group]
    yield beside
    yield [group]
    yield [tuple(sorted({number for some in beside for number in some}))]


def _alike(graph: NeuronGraph, kept: Tensor, ties: Sequence[Group]) -> Tensor | None:
    """A removal of the same places from all that are tied, as many as the plan takes of one of them."""
    found, families = torch.ones_like(kept), graph.units.families
    for tie in ties:
        sizes = {len(families[number].units) for number in tie}
        taken = [int((~kept[families[number].units]).sum()) for number in tie]
        if len(sizes) > 1:
            return None
        count = min(max(taken), sizes.pop() - 1)
        free = torch.stack([graph.units.prunable[families[number].units] for number in tie]).all(0)
        places = free.nonzero().flatten()[:count]
        for number in tie:
            found[families[number].units[places]] = False
    return found if shrunk_by(graph, found) else None
