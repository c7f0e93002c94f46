"""A folder with a pipeline for somebody's own model and images, checked before it is laid down: it has to run."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from importlib.machinery import PathFinder
from pathlib import Path

from metaprune_cli.artifacts import read_kind
from metaprune_cli.config import DataSettings, ZooMember
from metaprune_cli.data import Splits
from metaprune_cli.data.restoring import find_photographs
from metaprune_cli.data.splits import classified
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.methods.registry import learnt_by
from metaprune_cli.models.registry import is_factory
from metaprune_cli.places import unwritable
from metaprune_cli.stages.initial import Project, texts
from metaprune_cli.tasks import DEFAULT, Task
from metaprune_cli.tasks.registry import is_own
from metaprune_cli.workflows.anew import architecture_of, built
from metaprune_cli.workflows.images import check_fits
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.preprocessing import with_preprocessing
from metaprune_cli.workflows.task import restoration_of, task_of

PIPELINE = ("dvc.yaml", "params.yaml")
"""What is replaced with ``force`` only; README.md and .gitignore are never replaced."""


@dataclass(frozen=True)
class LaidDown:
    """What is in the folder now: ``kept`` are files that were there and stay as they were."""

    folder: str
    written: tuple[str, ...]
    kept: tuple[str, ...]


def init(
    folder: Path,
    *,
    model: Path | None,
    source: ModelSource,
    data: DataSettings,
    metanet: Path | None = None,
    force: bool = False,
) -> LaidDown:
    """Lay down dvc.yaml, params.yaml, .gitignore and README.md.

    Args:
        folder: where; made if need be.
        model: the model to prune, any file that ``open_model`` understands; None: one is trained first.
        source: how it is opened; without a model, its ``arch`` is what is trained.
        data: the images, and the task.
        metanet: a metanetwork; with it, pruning with and without it is compared.
        force: replace a dvc.yaml and a params.yaml that are there.

    Raises:
        InputError: files would be replaced, or the pipeline could not run: the model, the images, the task or the
            metanetwork are not there, or do not fit each other.
        CorruptFileError: the model or the metanetwork is damaged.
    """
    _check_folder(folder, force)
    data = replace(data, data_root=None if data.data_root is None else _seen_from(folder, Path(data.data_root)))
    data = replace(data, task=None if data.task == DEFAULT else data.task)
    if model is not None:
        data = replace(data, restoration=restoration_of(data, [model]))
    task = task_of(data)
    read = data if model is None else with_preprocessing(data, [model], source.preprocessing)
    splits = _splits(folder, read, task)
    opened = _trained(source, splits, task) if model is None else open_model(model, source).of_shape(splits.item_shape)
    check_fits(opened, splits, task)
    if metanet is not None:
        _check_metanet(learnt_by("transform").files().find(metanet))
    name = opened.architecture.name
    if is_factory(name):
        _check_module(name, "model", folder)
    if data.task is not None and is_own(data.task):
        _check_module(data.task, "task", folder)
    project = Project(
        name=folder.resolve().name,
        arch=name,
        arch_args=dict(source.arch_args),
        model=None if model is None else _seen_from(folder, model),
        source=replace(source, input_shape=None if opened.shape_is_stated else splits.item_shape),
        data=data,
        metanet=None if metanet is None else _named(folder, metanet),
        imports=is_factory(name),
        restored=task.remembered,
    )
    files = texts(project)
    kept = tuple(name for name in files if name not in PIPELINE and (folder / name).exists())
    files = {name: text for name, text in files.items() if name not in kept}
    _write(folder, files)
    return LaidDown(str(folder), tuple(files), kept)


def _check_folder(folder: Path, force: bool) -> None:
    taken = [] if force else [name for name in PIPELINE if (folder / name).exists()]
    reason = "it is a file" if folder.is_file() else unwritable(folder / PIPELINE[0])
    if taken:
        raise InputError(
            "There is a pipeline in this folder already.",
            expected=f"a folder without {' and '.join(PIPELINE)}",
            got=", ".join(taken),
            where=folder,
            next_step="choose another folder, or replace them with --force",
        )
    if reason:
        raise InputError("Nothing can be written there.", got=reason, where=folder, next_step="choose another folder")


def _splits(folder: Path, data: DataSettings, task: Task) -> Splits:
    """The images for training; that a data set of ours has some for the test is looked up without opening them."""
    if data.data_root is not None:
        data = replace(data, data_root=str(folder.absolute() / data.data_root))
    if data.task is None:
        classified(data).find(data, "test")
    splits = task.splits(data)
    if data.task is not None and not is_own(data.task):
        find_photographs(data, "test")
    return splits


def _trained(source: ModelSource, splits: Splits, task: Task) -> Opened:
    """The model that will be trained, with random weights."""
    architecture = architecture_of(source.arch or ZooMember().arch, source.arch_args, splits, task)
    return Opened(built(architecture, 0), architecture, (), Path(architecture.name))


def _check_metanet(path: Path) -> None:
    kind, wanted = read_kind(path), learnt_by("transform").kind
    if kind != wanted:
        raise CorruptFileError(f"This is not a {wanted}.", expected=f"kind {wanted}", got=f"kind {kind}", where=path)


def _check_module(name: str, what: str, folder: Path) -> None:
    """The module of ``package.module:name`` has to be found where the pipeline runs, not only here."""
    module = name.partition(":")[0]
    here = {"", ".", str(Path.cwd())}
    paths = [str(folder.resolve()), *(path for path in sys.path if path not in here)]
    if PathFinder.find_spec(module.partition(".")[0], paths) is None:
        raise InputError(
            f"The pipeline would not find the module '{module}' that makes the {what}.",
            expected="an installed package, or a module in the folder",
            where=folder,
            next_step=f"copy it into {folder}, or install it",
        )


def _seen_from(folder: Path, path: Path) -> str:
    """A path for use in the folder: relative for what is inside, else absolute."""
    whole, root = path.expanduser().resolve(), folder.resolve()
    return str(whole.relative_to(root) if whole.is_relative_to(root) else whole)


def _named(folder: Path, metanet: Path) -> str:
    """A metanetwork as the folder's pipeline calls it: those of the package by their names."""
    return _seen_from(folder, metanet) if metanet.exists() else str(metanet)


def _write(folder: Path, texts: dict[str, str]) -> None:
    """All files or none: they get their names when every one of them is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".init-") as part:
        for name, text in texts.items():
            (Path(part) / name).write_text(text, encoding="utf-8")
        for name in texts:
            (Path(part) / name).replace(folder / name)
