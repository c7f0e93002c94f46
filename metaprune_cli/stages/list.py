"""What there is to choose from: architectures, criteria, data sets and metanetworks."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

from metaprune_cli.artifacts import read_artifact
from metaprune_cli.config import Criterion, DatasetName, DataSettings
from metaprune_cli.config_loader import did_you_mean
from metaprune_cli.data.source import Part
from metaprune_cli.data.splits import DATASETS
from metaprune_cli.errors import InputError
from metaprune_cli.methods.metanet.shipped import metanetwork_file, shipped
from metaprune_cli.metrics.macs import count_params
from metaprune_cli.models import Architecture, build, list_architectures, vision, with_input_shape
from metaprune_cli.pruning.catalogue import CRITERIA
from metaprune_cli.workflows.paths import find_sources, stem

Kind = Literal["archs", "criteria", "datasets", "metanets"]
KINDS: tuple[Kind, ...] = get_args(Kind)

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
class Metanet:
    """A metanetwork's file, its size, and whether it has a score head (the criterion ``metanet``)."""

    name: str
    path: str
    layers: int
    hidden: int
    score_head: bool
    params: int


Entry = Arch | Ranked | Images | Metanet


Named = Mapping[str, Callable[[], Entry]]
"""Every name of a kind, and how its entry is made: only what is asked for is."""


def listing(
    kind: str, pattern: str | None = None, *, data_root: Path | None = None, folder: Path | None = None
) -> tuple[Entry, ...]:
    """Everything of one kind.

    Args:
        kind: one of ``KINDS``.
        pattern: a part of a name, or a pattern of ``*`` and ``?`` for all of it; upper and lower case are the same.
        data_root: where to look for data sets.
        folder: where to look for metanetworks; without it, those of this package.

    Raises:
        InputError: there is no such kind, nothing of it fits the pattern, or there is no such folder.
    """
    if kind not in KINDS:
        raise InputError(
            f"There is no list of '{kind}'{did_you_mean(kind, KINDS) or '.'}",
            expected=" or ".join(KINDS),
            next_step="`metaprune list` says what they are",
        )
    lists: Mapping[str, Callable[[], Named]] = {
        "archs": _archs,
        "criteria": _criteria,
        "datasets": partial(_datasets, data_root),
        "metanets": partial(_metanets, folder),
    }
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


def _archs() -> Named:
    return {name: partial(_arch, name) for name in list_architectures()}


def _arch(name: str) -> Arch:
    """torchvision's own figures, which take no time; ours are counted on a model without values."""
    plain = with_input_shape(Architecture(name))
    family, _, short = name.partition(":")
    if family == "torchvision":
        return Arch(name, vision.task_of(short), vision.count_params(short) or None, plain.input_shape)
    return Arch(name, "classification", count_params(build(plain, "meta")), plain.input_shape)


def _criteria() -> Named:
    return {name: partial(_criterion, name) for name in cast("tuple[Criterion, ...]", get_args(Criterion))}


def _criterion(name: Criterion) -> Ranked:
    known = CRITERIA[name]
    return Ranked(name, known.about, known.needs, known.source)


def _datasets(root: Path | None) -> Named:
    if root is not None and not root.is_dir():
        raise InputError("The data folder does not exist.", where=root, next_step="check --data-root")
    return {name: partial(_dataset, name, root) for name in DATASETS}


def _dataset(name: DatasetName, root: Path | None) -> Images:
    dataset = DATASETS[name]
    settings = DataSettings(dataset=name, data_root=None if root is None else str(root))
    found: bool | None = True
    try:
        for part in NEEDED:
            dataset.find(settings, part)
    except InputError:
        found = None if root is None else False
    return Images(name, dataset.about, dataset.layout, found)


def _metanets(folder: Path | None) -> Named:
    if folder is None:
        return {name: partial(_metanet, metanetwork_file(name)) for name in shipped()}
    files = find_sources([folder], ("metanetwork",)).files
    return {str(file.relative.with_suffix("")): partial(_metanet, file.path) for file in files}


def _metanet(path: Path) -> Metanet:
    artifact = read_artifact(path, "metanetwork")
    config = artifact.document["config"]
    params = sum(tensor.numel() for tensor in artifact.tensors.values())
    return Metanet(stem(path), str(path), config["layers"], config["hidden"], config.get("score_head", False), params)
