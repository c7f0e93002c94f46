"""What many evaluated models say together: arms compared at equal speed-ups, paired by the model they came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metaprune_cli.reports.pairs import Difference, Unequal, compare
from metaprune_cli.reports.rows import Group, Row
from metaprune_cli.tasks import Metric
from metaprune_cli.workflows.arms import REPAIRED, Arm, methods_of, pipeline_arms, place
from metaprune_cli.workflows.lineage import STEPS, Step


@dataclass(frozen=True)
class Summary:
    """Groups, and differences between them, both ordered by step, then speed-up, then arm.

    ``unequal`` are the pairs of arms that would be compared, had their models been made alike.
    """

    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    unequal: tuple[Unequal, ...] = ()

    def group(self, step: Step, requested: float | None, arm: Arm) -> Group | None:
        """The group with this key, if there is one."""
        return next((g for g in self.groups if (g.step, g.requested, g.arm) == (step, requested, arm)), None)

    @property
    def metric(self) -> Metric:
        """The headline that models are compared by."""
        return self.groups[0].metrics[0]

    def differences_at(self, step: Step) -> list[Difference]:
        """The differences at this step."""
        return [difference for difference in self.differences if difference.step == step]

    def speedups(self, *steps: Step) -> list[float]:
        """The requested speed-ups met at any of these steps, ascending."""
        return sorted({g.requested for g in self.groups if g.step in steps and g.requested is not None})

    @property
    def arms(self) -> list[Arm]:
        """The arms that were met after pruning."""
        return sorted({g.arm for g in self.groups if g.step != "unpruned"}, key=place)

    @property
    def steps(self) -> list[Step]:
        """The steps after pruning that were met, the last one first."""
        return sorted({g.step for g in self.groups if g.step != "unpruned"}, key=step_place, reverse=True)


def summarise(rows: Iterable[Row], against: Sequence[Arm] = ()) -> Summary:
    """Group the rows and compare the arms: every method's with every baseline, and all others with ``against``."""
    rows = list(rows)
    several = len({row.epochs for row in rows if row.step == "finetuned"}) > 1
    found: dict[tuple[Step, float | None, Arm], list[Row]] = defaultdict(list)
    for row in rows:
        step = f"finetuned-{row.epochs}" if several and row.step == "finetuned" else row.step
        found[step, row.requested, row.arm].append(row)
    keys = sorted(found, key=lambda key: (step_place(key[0]), key[1] or 0.0, place(key[2])))
    groups = tuple(Group(arm, step, requested, tuple(found[step, requested, arm])) for step, requested, arm in keys)
    return Summary(groups, *compare(groups, against))


def step_place(step: Step) -> tuple[int, int]:
    """The key that steps are sorted by: the order in which they are done."""
    name, _, epochs = step.partition("-")
    return STEPS.index(name), int(epochs or 0)


def headline(summary: Summary) -> dict[str, Any]:
    """The few numbers of ``dvc metrics``, mean headlines of the last step: ``{arm | "ARM_minus_ARM": {"3x": …}}``."""
    found: dict[str, Any] = (
        {"unpruned": summary.groups[0].headline.mean} if summary.groups[0].step == "unpruned" else {}
    )
    step = next(iter(summary.steps), None)
    for name, figures in metrics(summary).get(str(step), {}).items():
        found[name] = {label: group[summary.metric.key] for label, group in figures.items()}
    return found


def metrics(summary: Summary) -> dict[str, Any]:
    """All of the summary: ``{step: {arm | "ARM_minus_ARM": {"3x": {METRIC: …}}}}``."""
    document: dict[str, Any] = {}
    for group in summary.groups:
        arm = document.setdefault(group.step, {}).setdefault(group.arm, {})
        figures = _figures(group)
        if group.requested is None:
            arm.update(figures)
        else:
            arm[speedup_label(group.requested)] = figures
    for difference in summary.differences:
        paired = document[difference.step].setdefault(f"{difference.arm}_minus_{difference.against}", {})
        paired[speedup_label(difference.requested)] = _figures_of_pairs(difference, summary.metric.key)
    return document


def curve(summary: Summary, step: Step) -> list[dict[str, float | None]]:
    """The mean headline of each arm at this step, a record per requested speed-up: ``speedup`` and a key for each arm.

    The pipeline's arms are always there.
    """
    arms = sorted({*pipeline_arms(), *summary.arms}, key=place)
    records = []
    for requested in summary.speedups(step):
        record: dict[str, float | None] = {"speedup": requested}
        for arm in arms:
            group = summary.group(step, requested, arm)
            record[arm] = None if group is None else group.headline.mean
        records.append(record)
    return records


def speedup_label(requested: float) -> str:
    """A requested speed-up as a key: ``3x``, ``2.5x``."""
    return f"{requested:g}x"


def _figures(group: Group) -> dict[str, float]:
    (first, *others), found = (metric.key for metric in group.metrics), group.headline
    figures = {first: found.mean, f"{first}_std": found.std, "models": found.count}
    further = (*others, "loss", "speedup", "macs", "params", "latency_ms", "density")
    means = {name: group.mean(name) for name in further}
    return figures | {name: value for name, value in means.items() if value is not None}


def _figures_of_pairs(difference: Difference, key: str) -> dict[str, float]:
    found = difference.headline
    figures = {key: found.mean, f"{key}_std": found.std, "wins": difference.wins, "pairs": found.count}
    return figures if found.standard_error is None else figures | {f"{key}_se": found.standard_error}


def all_repaired(models: Iterable[tuple[float | None, Arm]]) -> bool:
    """Whether all that are pruned are repaired, by their requested speed-ups and arms; not those trained meanwhile."""
    pruned = [arm for requested, arm in models if requested is not None]
    pruned = [arm for arm in pruned if not any(method.removes for method in methods_of(arm))]
    return bool(pruned) and all(arm.endswith(f" {REPAIRED}") for arm in pruned)


def common_repair(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Rows of which all or none are repaired: what is common to all goes without saying, but for a condition.

    Returns:
        The rows, and the condition in words, by label; rows of both kinds are left as they are.
    """
    if not all_repaired((row.requested, row.arm) for row in rows):
        return list(rows), {}
    named = [replace(row, arm=row.arm.removesuffix(f" {REPAIRED}")) for row in rows]
    return named, {
        "Repaired": "models not trained while being pruned were fitted to the original model, without training"
    }
