"""What users say about single layers: which of them, and what may happen to them."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from metaprune_cli.config import PruningRule
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.errors import InputError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.pruning.ranking import Limits, plain_limits

Names = tuple[frozenset[str], ...]
"""For every family the names that a rule can mean it by."""


def limits_of(
    graph: NeuronGraph,
    rules: Sequence[PruningRule] = (),
    max_ratio: float = 0.8,
    *,
    round_to: int = 1,
    model: nn.Module | None = None,
) -> Limits:
    """The limits of every family under ``rules``; where several speak of one, the later has the last word.

    A rule means a family if it matches its name, or a layer (or parameter) that produces its units: a convolution's
    output channels, the norm after it; not the layers that read them. What is coupled to them is the same family.

    Args:
        graph: the structure.
        rules: see :class:`PruningRule`; ``match`` is a glob, ``re:`` and a regular expression, or ``type:`` and the
            name of a module's class (or of a base of it), or ``kind:heads``.
        max_ratio: the fraction that may go of families that no rule says anything else about.
        round_to: likewise, the multiple.
        model: where the types of modules are looked up.

    Raises:
        InputError: rules that match nothing, all of them at once; a regular expression that is none; tied families of
            different sizes; a family of which more is to go than may.
    """
    units = graph.units
    limits = plain_limits(units, max_ratio)
    most, least, multiple, tied = limits.most, limits.least, limits.multiple * round_to, limits.tied
    names = _names(graph, model)
    meant = {number: _meant(rule.match, names) for number, rule in enumerate(rules)}
    _check_matched(rules, meant, names)
    for number, rule in enumerate(rules):
        for family in meant[number]:
            size = int(units.sizes[family])
            if rule.max_ratio is not None:
                most[family] = int(size * rule.max_ratio + 1e-9)
            if rule.min_units is not None:
                most[family] = min(int(most[family]), max(size - rule.min_units, 0))
            if rule.min_ratio is not None:
                least[family] = math.ceil(size * rule.min_ratio - 1e-9)
            if rule.round_to is not None:
                multiple[family] = rule.round_to
            if rule.ignore:
                most[family] = least[family] = 0
            if rule.tie:
                tied[family] = len(names) + number
        if rule.tie:
            _check_tied(graph, rule, meant[number])
    _check_room(graph, most, least)
    return tied_alike(Limits(most, least, multiple, tied))


def _names(graph: NeuronGraph, model: nn.Module | None) -> Names:
    """Name, kind, and by whose parameters the units come to be, as parameters, modules and types."""
    types = {} if model is None else {name: type(module).__mro__ for name, module in model.named_modules()}
    found: list[set[str]] = []
    for family in graph.units.families:
        own = {family.name, f"kind:{family.kind}"}
        for parameter, side in family.parameters:
            if side != "in":
                module = parameter.rpartition(".")[0]
                own |= {parameter, module, *(f"type:{kind.__name__}" for kind in types.get(module, ()))}
        found.append(own - {""})
    return tuple(map(frozenset, found))


def _meant(match: str, names: Names) -> list[int]:
    """The numbers of the families that ``match`` means."""
    if match.startswith("re:"):
        try:
            pattern = re.compile(match.removeprefix("re:"))
        except re.error as error:
            raise InputError(
                "A rule's regular expression cannot be read.", got=f"{match}: {error}", where="prune.rules"
            ) from None
        return [n for n, own in enumerate(names) if any(pattern.search(name) for name in own if ":" not in name)]
    return [n for n, own in enumerate(names) if any(fnmatch.fnmatchcase(name, match) for name in own)]


def _check_matched(rules: Sequence[PruningRule], meant: Mapping[int, list[int]], names: Names) -> None:
    wrong = [rule.match for number, rule in enumerate(rules) if not meant[number]]
    if wrong:
        known = sorted(frozenset().union(*names))
        raise InputError(
            f"{'A rule matches' if len(wrong) == 1 else f'{len(wrong)} rules match'} nothing in this model.",
            expected="a layer, parameter or family (a glob, or re: and a regular expression), type:CLASS or kind:heads",
            got="; ".join(f"'{match}'{did_you_mean(match, known)}" for match in wrong),
            where="prune.rules",
            next_step="`metaprune inspect` lists the families; correct the rule or leave it out",
        )


def _check_tied(graph: NeuronGraph, rule: PruningRule, families: Iterable[int]) -> None:
    sizes = {graph.units.families[family].name: int(graph.units.sizes[family]) for family in families}
    if len(set(sizes.values())) > 1:
        raise InputError(
            "Families of different sizes cannot be tied.",
            expected="equal numbers of units",
            got=", ".join(f"{name}: {size}" for name, size in sizes.items()),
            where=f"prune.rules, match {rule.match}",
        )


def _check_room(graph: NeuronGraph, most: torch.Tensor, least: torch.Tensor) -> None:
    tight = (least > most).nonzero().flatten().tolist()
    if tight:
        raise InputError(
            "A rule asks for more to be removed than is allowed.",
            expected="min_ratio not above max_ratio and what min_units leaves",
            got=", ".join(f"{graph.units.families[f].name}: {least[f]} of at most {most[f]}" for f in tight[:5]),
            where="prune.rules",
        )


def tied_alike(limits: Limits) -> Limits:
    """The strictest limits of those tied hold for all of them."""
    count = int(limits.tied.max()) + 1
    big = limits.most.max() if len(limits.most) else torch.tensor(0)
    most = torch.full((count,), int(big)).scatter_reduce(0, limits.tied, limits.most, "amin")[limits.tied]
    least = torch.zeros(count, dtype=torch.int64).scatter_reduce(0, limits.tied, limits.least, "amax")[limits.tied]
    return Limits(most, least, limits.multiple, limits.tied)
