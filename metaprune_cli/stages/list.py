"""What there is to choose from: architectures, criteria, data sets, methods and what these have learnt, tasks."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.config import Criterion, DatasetName, DataSettings
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.data.restoring import ABOUT, find_photographs
from metaprune_cli.data.source import Part
from metaprune_cli.data.splits import DATASETS
from metaprune_cli.errors import InputError
from metaprune_cli.methods.base import Files, Learnt, Method
from metaprune_cli.methods.registry import methods
from metaprune_cli.metrics.macs import count_params
from metaprune_cli.models import Architecture, build, list_architectures, vision, with_input_shape
from metaprune_cli.models.packages import PACKAGES
from metaprune_cli.models.registry import GROUPS, names_in
from metaprune_cli.pruning.catalogue import CRITERIA
from metaprune_cli.tasks.registry import TASKS, Known
from metaprune_cli.workflows.paths import find_sources, stem

NEEDED: tuple[Part, ...] = ("train", "test")
"""What a data set has to have; a validation part is split off where it has none."""


@dataclass(frozen=True)
class Arch:
    """An architecture; parameters and input shape (without the batch) are those it has if nothing is said."""

    name: str
    task: str
    params: int | None
    input_shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Ranked:
    """A criterion: what it takes for importance, what it needs, where it is from."""

    name: str
    about: str
    needs: str
    source: str | None


@dataclass(frozen=True)
class Images:
    """A data set; ``found`` is None where no folder was given to look in and it needs one."""

    name: str
    about: str
    layout: str
    found: bool | None


@dataclass(frozen=True)
class Decider:
    """A method: what it does, what it proposes, what it learns beforehand, the command that carries it out."""

    name: str
    about: str
    proposes: tuple[str, ...]
    learns: str | None
    command: str
    source: str | None


@dataclass(frozen=True)
class Purpose:
    """A task: what it is, what it measures, and the metric that comparisons go by, with its direction."""

    name: str
    about: str
    metrics: tuple[str, ...]
    headline: str


@dataclass(frozen=True)
class Trained:
    """A file in which a method keeps what it has learnt, its size, and what the method says of it."""

    name: str
    path: str
    facts: Mapping[str, Any]
    params: int


Entry = Arch | Ranked | Images | Decider | Purpose | Trained


def record(entry: Entry) -> dict[str, Any]:
    """An entry as plain values."""
    found: dict[str, Any] = {}
    for key, value in asdict(entry).items():
        found |= value if key == "facts" else {key: value}
    return found


Named = Mapping[str, Callable[[], Entry]]
"""Every name of a kind, and how its entry is made: only what is asked for is."""


def listing(
    kind: str, pattern: str | None = None, *, data_root: Path | None = None, folder: Path | None = None
) -> tuple[Entry, ...]:
    """Everything of one kind.

    Args:
        kind: ``archs``, ``criteria``, ``datasets``, ``methods``, ``tasks``, or what the files of a method are called.
        pattern: a part of a name, or a pattern of ``*`` and ``?`` for all of it; upper and lower case are the same.
        data_root: where to look for data sets.
        folder: where to look for a method's files; without it, those of this package.

    Raises:
        InputError: there is no such kind, nothing of it fits the pattern, or there is no such folder.
    """
    learnt = [method.learnt for method in methods() if method.learnt]
    lists: Mapping[str, Callable[[], Named]] = {
        "archs": partial(_archs, pattern or ""),
        "criteria": _criteria,
        "datasets": partial(_datasets, data_root),
        "methods": _methods,
        "tasks": _tasks,
        **{one.listed: partial(_trained, one, folder) for one in learnt},
    }
    if kind not in lists:
        raise InputError(
            f"There is no list of '{kind}'{did_you_mean(kind, lists) or '.'}",
            expected=" or ".join(lists),
            next_step="`metaprune list` says what they are",
        )
    named = lists[kind]()
    return tuple(named[name]() for name in _chosen(list(named), pattern, kind))


def _chosen(names: Sequence[str], pattern: str | None, kind: str) -> Sequence[str]:
    if pattern is None:
        return names
    wanted = pattern.lower()
    glob = wanted if any(sign in wanted for sign in "*?[") else f"*{wanted}*"
    chosen = [name for name in names if fnmatch.fnmatchcase(name.lower(), glob)]
    if not chosen:
        short = [name.partition(":")[2] for name in names if ":" in name]
        raise InputError(
            f"None of {len(names)} {kind} is called like '{pattern}'{did_you_mean(wanted, [*names, *short]) or '.'}",
            expected="a part of a name, or a pattern for all of it, such as '*net*'",
            next_step=f"`metaprune list {kind}` shows all of them",
        )
    return chosen


def _archs(pattern: str) -> Named:
    """Those of an optional package where the pattern begins with its prefix; else those that are known here."""
    prefix, colon, _ = pattern.lower().partition(":")
    names = names_in(prefix) if colon and prefix in PACKAGES else list_architectures()
    return {name: partial(_arch, name) for name in names}


def _arch(name: str) -> Arch:
    """torchvision's own figures, which take no time; ours are counted on a model without values."""
    plain = with_input_shape(Architecture(name))
    family, _, short = name.partition(":")
    if family in PACKAGES:  # hundreds of them: none is built
        return Arch(name, "-", None, plain.input_shape)
    if family == "torchvision":
        return Arch(name, vision.task_of(short), vision.count_params(short) or None, plain.input_shape)
    return Arch(name, GROUPS[family].about(short), count_params(build(plain, "meta")), plain.input_shape)


def _criteria() -> Named:
    return {name: partial(_criterion, name) for name in cast("tuple[Criterion, ...]", get_args(Criterion))}


def _criterion(name: Criterion) -> Ranked:
    known = CRITERIA[name]
    return Ranked(name, known.about, known.needs, known.source)


def _datasets(root: Path | None) -> Named:
    if root is not None and not root.is_dir():
        raise InputError("The data folder does not exist.", where=root, next_step="check --data-root")
    return {name: partial(_dataset, name, root) for name in get_args(DatasetName)}


def _dataset(name: DatasetName, root: Path | None) -> Images:
    settings = DataSettings(dataset=name, data_root=None if root is None else str(root))
    found: bool | None = True
    try:
        for part in NEEDED:
            if name in DATASETS:
                DATASETS[name].find(settings, part)
            else:
                find_photographs(settings, part)
    except InputError:
        found = None if root is None else False
    about, layout = (DATASETS[name].about, DATASETS[name].layout) if name in DATASETS else ABOUT[name]
    return Images(name, about, layout, found)


def _methods() -> Named:
    return {method.name: partial(_method, method) for method in methods()}


def _method(method: Method) -> Decider:
    learns = None if method.learnt is None else method.learnt.kind
    return Decider(method.name, method.about, method.proposes, learns, method.command, method.source)


def _tasks() -> Named:
    return {name: partial(_task, known) for name, known in TASKS.items()}


def _task(known: Known) -> Purpose:
    task = known.make()
    first = task.metrics[0]
    direction = f"{first.name}, {'more' if first.higher_is_better else 'less'} is better"
    return Purpose(task.name, known.about, tuple(metric.in_title for metric in task.metrics), direction)


def _trained(learnt: Learnt, folder: Path | None) -> Named:
    files = learnt.files()
    if folder is None:
        return {name: partial(_file, learnt, files, files.find(name)) for name in files.shipped()}
    found = find_sources([folder], (learnt.kind,)).files
    return {str(file.relative.with_suffix("")): partial(_file, learnt, files, file.path) for file in found}


def _file(learnt: Learnt, files: Files, path: Path) -> Trained:
    artifact = read_artifact(path, learnt.kind)
    params = sum(tensor.numel() for tensor in artifact.tensors.values())
    return Trained(stem(path), str(path), files.facts(artifact), params)
