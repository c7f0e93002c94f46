"""Opening models and neuron graphs with all that is known about them, and saving what was made of them.

Every model artifact carries its ``lineage``: a list of steps, oldest first, each a mapping with ``command``, ``input``
(a file name) and the step's key figures:

    zoo        arch, seed
    transform  metanetwork (digest), recalibrated, scored (where units were)
    prune      requested, achieved, criterion, scope, repair and search (where there were any), quantity (where it is
               not MACs); of zeros: kind, pattern, sparsity, achieved, scope
    search     requested, achieved, criterion, repair, quantity as of prune; weights (inherited, model, scratch),
               evaluated (how many widths), fitness (of what was chosen, on the images that had no say)
    dhp        requested, achieved, epochs (until then), start, shrink, seed; as of finetune
    finetune   epochs (asked for), seed, recalibrated; where there were any: teacher (a file name), sparsity, mixup,
               cutmix, ema, patience and with it best_epoch
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from metaprune_cli import models
from metaprune_cli.artifacts import is_artifact, read_artifact, read_kind
from metaprune_cli.config import NOTHING_SAID, Preprocessing
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.program.script import CONSTANTS
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.models import Architecture, save_model
from metaprune_cli.models.assemble import assemble
from metaprune_cli.models.examples import example_inputs, has_example
from metaprune_cli.models.naming import own_names, renamed
from metaprune_cli.models.programs import KEY, program_from_document
from metaprune_cli.workflows.importance import Importance
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.preprocessing import KEY as KEY_OF_IMAGES
from metaprune_cli.workflows.zeros import Zeros

Lineage = tuple[Mapping[str, Any], ...]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModelSource:
    """How a model file is to be opened where it does not say so itself.

    ``input_shape`` is without the batch; ``key`` says which of several state dicts in a file is meant. What
    ``preprocessing`` says goes before what the file says.
    """

    arch: str | None = None
    arch_args: Mapping[str, Any] = field(default_factory=dict)
    input_shape: Shape | None = None
    trust_pickle: bool = False
    allow_import: bool = False
    key: str | None = None
    preprocessing: Preprocessing = NOTHING_SAID


@dataclass(frozen=True, eq=False)
class Opened:
    """A model in eval mode on the CPU, and what is known about it.

    Attributes:
        model: the model.
        architecture: what it is.
        lineage: what was done to it so far.
        path: the file it came from.
        shape_is_stated: whether the file or the user says the input's shape, or it is only usual for the architecture.
        graph: its graph, if it came as one.
        importance: what a metanetwork's score head says of every unit, if one has.
        pruning: the plan of its last pruning, as it was written; it too holds while the units do.
        widths: attributes that hold a width, which the file gives other values than the architecture has.
        zeros: which entries are sparse, if any are; what is made of it keeps them unless it says otherwise.
        task: of a user's, that it was trained for; None: classification, or not known.
        preprocessing: what images go through before the model sees them; what is not said is as the data set has it.
        restoration: what it restores (scale, sigma, pixels), if it does.
    """

    model: nn.Module
    architecture: Architecture
    lineage: Lineage
    path: Path
    shape_is_stated: bool = True
    graph: NeuronGraph | None = None
    importance: Importance | None = None
    pruning: Mapping[str, Any] | None = None
    widths: Mapping[str, Any] = field(default_factory=dict)
    zeros: Zeros | None = None
    task: str | None = None
    preprocessing: Preprocessing = NOTHING_SAID
    restoration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def says_its_inputs(self) -> bool:
        """Whether there is an example without knowing the images it is to be used on."""
        return has_example(self.architecture, self.model)

    def example(self) -> ExampleInputs:
        """One input with a batch of one: zeros, where nothing says that the model takes anything else.

        Raises:
            InputError: nothing says what the model takes.
        """
        return example_inputs(self.architecture, self.model)

    def neuron_graph(self) -> NeuronGraph:
        """The graph it came as, or a new trace."""
        return encode(self.model, self.example()) if self.graph is None else self.graph

    def of_shape(self, input_shape: Shape | None) -> Opened:
        """The same with the input shape of the images it is used on, unless it is stated or there is none."""
        if input_shape is None:
            return self
        if self.architecture.input_shape is not None and self.shape_is_stated:
            return self
        return replace(self, architecture=replace(self.architecture, input_shape=input_shape))


def open_model(path: Path, source: ModelSource) -> Opened:
    """A model from any file that ``models.open_model`` understands."""
    loaded = models.open_model(
        path,
        arch=source.arch,
        arch_args=dict(source.arch_args) or None,
        trust_pickle=source.trust_pickle,
        allow_import=source.allow_import,
        input_shape=source.input_shape,
        key=source.key,
    )
    stated = loaded.document is not None or source.input_shape is not None
    document = loaded.document or {}
    architecture = loaded.architecture
    if source.input_shape is None:
        architecture = _of_asked_size(architecture, source.preprocessing)
    return Opened(
        loaded.model,
        architecture,
        _lineage(document),
        path,
        shape_is_stated=stated,
        importance=Importance.of(document),
        pruning=document.get("pruning"),
        widths=document.get("widths", {}),
        zeros=_zeros(document, loaded.architecture),
        task=document.get("task"),
        preprocessing=preprocessing_of(document, source),
        restoration=document.get("restoration") or {},
    )


def preprocessing_of(document: Mapping[str, Any], source: ModelSource) -> Preprocessing:
    """What a model's document says of its images, with what the user says on top."""
    return source.preprocessing.over(Preprocessing.from_document(document.get(KEY_OF_IMAGES)))


def _of_asked_size(architecture: Architecture, said: Preprocessing) -> Architecture:
    """The architecture with an input of the size that the user asks for; nothing is said of its channels: colours."""
    if said.image_size is None:
        return architecture
    channels = architecture.input_shape[0] if architecture.input_shape else len(said.mean) or 3
    return replace(architecture, input_shape=(channels, said.image_size, said.image_size))


def open_graph(path: Path, source: ModelSource) -> Opened:
    """A neuron graph and the model it stands for.

    Raises:
        InputError: the file holds a graph alone and does not say which architecture it is of.
    """
    artifact = read_artifact(path, "graph")
    if artifact.document.get("architecture") is None:
        raise InputError(
            "The graph does not say which architecture it is of.",
            expected="a graph written by metaprune encode",
            where=path,
            next_step="in Python, decode(graph, model) puts it back into a model of yours",
        )
    graph: NeuronGraph | None
    graph = NeuronGraph.from_parts(artifact.tensors, artifact.document["structure"], artifact.path)
    document = artifact.document
    architecture = Architecture.from_document(document["architecture"])
    model: nn.Module
    if KEY in document:
        tensors = {n: t for n, t in artifact.tensors.items() if n.startswith(f"{CONSTANTS}.")}
        model = program_from_document(document[KEY], graph.state_dict() | tensors)
    else:
        state = graph.state_dict()
        named = renamed(state, own_names(architecture.name, state))
        model = assemble(architecture, named, path, source.allow_import, document.get("widths", {}))
        if named.keys() != state.keys():  # of before an architecture's entries were renamed: traced anew
            graph = None
    return Opened(
        model,
        architecture,
        _lineage(document),
        path,
        graph=graph,
        widths=document.get("widths", {}),
        zeros=_zeros(document, architecture),
        task=document.get("task"),
        preprocessing=preprocessing_of(document, source),
        restoration=document.get("restoration") or {},
    )


def open_either(path: Path, source: ModelSource) -> Opened:
    """A model, or a neuron graph with its model: whichever the file holds."""
    is_graph = is_artifact(path) and read_kind(path) == "graph"
    return open_graph(path, source) if is_graph else open_model(path, source)


def save(
    model: nn.Module,
    target: Path,
    opened: Opened,
    made: Made,
    *,
    step: Mapping[str, Any],
    metrics: Mapping[str, Any],
    **further: Any,
) -> str:
    """Write what a stage made of ``opened``; return the digest.

    Args:
        model: the model to write.
        target: the file.
        opened: what it was made from; its ``zeros`` are those of ``model`` too.
        made: the command, its settings and its inputs.
        step: the step's figures for the lineage.
        metrics: the figures that people compare.
        **further: other entries of the document.
    """
    entry = {"command": made.command, "input": opened.path.name, **step}
    return save_model(
        model,
        target,
        arch=opened.architecture,
        made_by=made.document(),
        inputs=dict(made.inputs),
        metrics=dict(metrics),
        extra={"lineage": [*opened.lineage, entry], **inherited(opened), **further},
    )


def inherited(opened: Opened) -> dict[str, Any]:
    """What a document says of what is made of ``opened`` as of itself: sparse entries, task, what images go through."""
    said: dict[str, Any] = {} if opened.zeros is None else opened.zeros.to_document()
    if opened.task is not None:
        said["task"] = opened.task
    if opened.restoration:
        said["restoration"] = dict(opened.restoration)
    if preprocessing := opened.preprocessing.to_document():
        said[KEY_OF_IMAGES] = preprocessing
    return said


def _zeros(document: Mapping[str, Any], architecture: Architecture) -> Zeros | None:
    """Which entries are sparse, as the architecture calls them now; a program has the names it was recorded with."""
    zeros = Zeros.of(document)
    if zeros is None or KEY in document:
        return zeros
    return replace(zeros, entries=tuple(own_names(architecture.name, zeros.entries).values()))


def _lineage(document: Mapping[str, Any]) -> Lineage:
    return tuple(document.get("lineage", ()))
