"""Arms compared pair by pair: models of one origin, made alike but for how units and weights were chosen."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaprune_cli.reports.rows import Group, Row, Spread
from metaprune_cli.workflows.arms import Arm, methods_of, ranking_of
from metaprune_cli.workflows.lineage import Step

NOT_SAID = {"quantity": "macs", "rounds": "1"}
"""What a setting is where a lineage does not name it; of any other: none."""

Settings = frozenset[tuple[str, str]]
Model = tuple[str, Settings]
"""A model's origin, and all that has to be equal where it is compared."""


@dataclass(frozen=True)
class Difference:
    """The headline of one arm minus that of another, model by model.

    Attributes:
        arm: the one.
        against: the other: a baseline, or what was asked for.
        headline: spread of the paired differences; of accuracies percentage points.
        wins: in how many pairs ``arm`` is better; ``ties`` in how many equal.
    """

    step: Step
    requested: float
    arm: Arm
    against: Arm
    headline: Spread
    wins: int
    ties: int


@dataclass(frozen=True)
class Unequal:
    """Two arms whose models are not compared, because they were not made under equal conditions.

    Attributes:
        step: without the epochs.
        speedups: that were asked of both.
        models: how many origins there are in both, at most.
        settings: name, that of ``arm`` and that of ``against`` of all that differs.
    """

    step: Step
    speedups: tuple[float, ...]
    arm: Arm
    against: Arm
    models: int
    settings: tuple[tuple[str, str, str], ...]

    def record(self) -> dict[str, Any]:
        """Plain values by name."""
        return {
            "step": self.step,
            "requested": list(self.speedups),
            "arm": self.arm,
            "against": self.against,
            "models": self.models,
            "settings": {name: [ours, theirs] for name, ours, theirs in self.settings},
        }


def compare(groups: Sequence[Group], against: Sequence[Arm]) -> tuple[tuple[Difference, ...], tuple[Unequal, ...]]:
    """Every method's arm minus every baseline, and every arm minus each of ``against``, where they were made alike.

    Returns:
        The differences, and the pairs that there are none of. Of two that nobody asked for, it goes without saying
        where one of them has a partner that was made as it was.
    """
    pairs = [(ours, theirs) for ours, theirs in itertools.product(groups, groups) if _wanted(ours, theirs, against)]
    differences: list[Difference] = []
    paired: set[tuple[Any, ...]] = set()
    for ours, theirs in pairs:
        apart = _of_no_account(ours, theirs)
        mine, other = _headlines(ours, apart), _headlines(theirs, apart)
        alike = sorted(mine.keys() & other.keys(), key=lambda model: (model[0], sorted(model[1])))
        for origin, _ in alike:
            paired |= {(*_where(ours), arm, origin, to) for arm, to in _either_way(ours.arm, theirs.arm)}
        if alike and ours.step == theirs.step:
            differences.append(_difference(ours, theirs, [(mine[model], other[model], model[0]) for model in alike]))
    unequal = itertools.chain.from_iterable(
        _apart(ours, theirs, set() if theirs.arm in against else paired) for ours, theirs in pairs
    )
    return tuple(differences), tuple(_merged(unequal))


def _wanted(ours: Group, theirs: Group, against: Sequence[Arm]) -> bool:
    if ours.requested is None or _where(ours) != _where(theirs) or ours.arm == theirs.arm:
        return False
    return theirs.arm in against or bool(methods_of(ours.arm) and not methods_of(theirs.arm))


def _where(group: Group) -> tuple[Step, float | None]:
    """What was done and asked for, whatever the number of epochs."""
    return group.step.partition("-")[0], group.requested


def _either_way(ours: Arm, theirs: Arm) -> tuple[tuple[Arm, tuple[str, ...]], ...]:
    return (ours, ranking_of(theirs)), (theirs, ranking_of(ours))


def _of_no_account(ours: Group, theirs: Group) -> tuple[str, ...]:
    """Settings that two arms need not share: where units go while a model is trained, there is nothing to repair."""
    methods = (*methods_of(ours.arm), *methods_of(theirs.arm))
    return ("repair",) if any(method.removes for method in methods) else ()


def _conditions(row: Row, apart: Sequence[str] = ()) -> Settings:
    settings = {name: value for name, value in row.settings.items() if name not in apart}
    return frozenset({**settings, "epochs": str(row.epochs)}.items())


def _headlines(group: Group, apart: Sequence[str]) -> Mapping[Model, float]:
    """The mean headline of the models of one origin that were made alike."""
    found: dict[Model, list[float]] = defaultdict(list)
    for row in group.rows:
        found[row.origin, _conditions(row, apart)].append(row.headline)
    return {model: statistics.fmean(values) for model, values in found.items()}


def _difference(ours: Group, theirs: Group, alike: Sequence[tuple[float, float, str]]) -> Difference:
    """Each origin is one pair, however often it was pruned."""
    by_origin: dict[str, list[float]] = defaultdict(list)
    for mine, other, origin in alike:
        by_origin[origin].append(mine - other)
    pairs = [statistics.fmean(values) for values in by_origin.values()]
    gains = [ours.metrics[0].gain(0, pair) for pair in pairs]
    wins, ties = sum(gain > 0 for gain in gains), sum(gain == 0 for gain in gains)
    assert ours.requested is not None
    return Difference(ours.step, ours.requested, ours.arm, theirs.arm, Spread.of(pairs), wins, ties)


def _apart(ours: Group, theirs: Group, paired: set[tuple[Any, ...]]) -> Iterator[Unequal]:
    """What keeps models of the same origins from being compared, if nothing of them is."""
    apart = _of_no_account(ours, theirs)
    mine, other = _by_origin(ours, apart), _by_origin(theirs, apart)
    found: dict[tuple[tuple[str, str, str], ...], int] = defaultdict(int)
    for origin in sorted(mine.keys() & other.keys()):
        if any((*_where(ours), arm, origin, to) in paired for arm, to in _either_way(ours.arm, theirs.arm)):
            continue
        differing = min((_differing(a, b) for a, b in itertools.product(mine[origin], other[origin])), key=len)
        if differing:
            found[differing] += 1
    step, requested = _where(ours)
    assert requested is not None
    for settings, models in found.items():
        yield Unequal(step, (requested,), ours.arm, theirs.arm, models, settings)


def _by_origin(group: Group, apart: Sequence[str]) -> Mapping[str, list[Settings]]:
    found: dict[str, list[Settings]] = defaultdict(list)
    for row in group.rows:
        found[row.origin].append(_conditions(row, apart))
    return found


def _differing(ours: Settings, theirs: Settings) -> tuple[tuple[str, str, str], ...]:
    mine, other = dict(ours), dict(theirs)
    usual = {name: NOT_SAID.get(name, "none") for name in sorted(mine | other)}
    said = [(name, mine.get(name, value), other.get(name, value)) for name, value in usual.items()]
    return tuple(one for one in said if one[1] != one[2])


def _merged(found: Iterable[Unequal]) -> Iterator[Unequal]:
    """One for all speed-ups."""
    alike: dict[tuple[Any, ...], list[Unequal]] = defaultdict(list)
    for one in found:
        alike[one.step, one.arm, one.against, one.settings].append(one)
    for (step, arm, against, settings), some in alike.items():
        speedups = sorted({speedup for one in some for speedup in one.speedups})
        yield Unequal(step, tuple(speedups), arm, against, max(one.models for one in some), settings)
