"""What a method is: it decides which units of a model go, and with which weights the others stay.

Nothing here imports torch, so that a list of the methods costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from metaprune_cli.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from metaprune_cli.artifacts import Artifact
    from metaprune_cli.config import Criterion, Normaliser, Repair
    from metaprune_cli.graph import NeuronGraph
    from metaprune_cli.pruning.targets import Target
    from metaprune_cli.pruning.width_space import WidthSpace

Part = Literal["weights", "scores", "units", "widths"]
"""What may be proposed: new weights, scores of the units, which units are kept, weights for any widths."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method says of every unit: it is added to the logarithm of the unit's score.

    Attributes:
        values: shape (units,), or (units, 2): the value, and how it changes with the speed-up (see
            ``pruning.importance_at``).
        normaliser: of the scores that it is meant for.
    """

    values: Tensor
    normaliser: Normaliser = "max"


@dataclass(frozen=True, eq=False)
class Proposal:
    """What a method proposes for a model; what is None it leaves as it is, or to the planner.

    Attributes:
        tensors: the weights, a state dict of the whole model.
        scores: of the units; the planner chooses by them.
        kept: which units stay, shape (units,), boolean; there is nothing left to plan.
    """

    tensors: Mapping[str, Tensor] | None = None
    scores: Scores | None = None
    kept: Tensor | None = None

    def check_fits(self, graph: NeuronGraph) -> None:
        """Compare the shapes with those of the model.

        Raises:
            InputError: something is proposed for another model; names everything that differs.
        """
        units, own = graph.units.num_units, graph.tensors
        wrong = []
        if self.tensors is not None:
            wrong += [f"weights: no {name}" for name in own if name not in self.tensors]
            wrong += [
                f"weights: {name} of shape {list(tensor.shape)}"
                for name, tensor in self.tensors.items()
                if name in own and tensor.shape != own[name].shape
            ]
        if self.scores is not None and self.scores.values.shape not in ((units,), (units, 2)):
            wrong.append(f"scores of shape {list(self.scores.values.shape)}")
        if self.kept is not None and self.kept.shape != (units,):
            wrong.append(f"kept units of shape {list(self.kept.shape)}")
        if wrong:
            raise InputError(
                "The method's proposal does not fit the model.",
                expected=f"weights of the model's own shapes, and one value for each of {units} units",
                got="\n".join(wrong),
            )


@runtime_checkable
class Proposer(Protocol):
    """A method at work, with all that it has learnt and looks at."""

    @property
    def reads_images(self) -> bool:
        """Whether it says more of a graph that has what images show (``NeuronGraph.evidence``)."""
        ...

    def propose(self, graph: NeuronGraph, target: Target | None = None) -> Proposal:
        """What it proposes for a model and its weights; without a target, what holds for any."""
        ...


@runtime_checkable
class WidthWeights(Protocol):
    """Where the weights of a network come from whose layers are as wide as somebody chooses."""

    @property
    def repair(self) -> Repair:
        """What is to be done with them before the network is any good: ``bn``, where statistics are not known."""
        ...

    @property
    def space(self) -> WidthSpace | None:
        """The widths that it knows, and in which order units stay; None: any."""
        ...

    def tensors_for(self, kept: Tensor) -> Mapping[str, Tensor]:
        """A state dict of the whole model's shapes, from which what is left by ``kept`` (units,) is cropped."""
        ...


@runtime_checkable
class WidthNetwork(Protocol):
    """A method at work that gives weights for widths.

    Attributes:
        model: the network at its whole widths; its BatchNorm statistics may have to be measured anew.
        weights: those for any.
    """

    model: nn.Module
    weights: WidthWeights


@runtime_checkable
class Files(Protocol):
    """The files in which a method keeps what it has learnt."""

    def shipped(self) -> list[str]:
        """The names of those that come with the package."""
        ...

    def find(self, given: str | Path) -> Path:
        """The file that is meant: one that is there, or the shipped one of that name.

        Raises:
            InputError: there is neither.
        """
        ...

    def open(self, artifact: Artifact) -> Proposer:
        """The method at work with what the file says.

        Raises:
            CorruptFileError: the file does not describe it.
        """
        ...

    def facts(self, artifact: Artifact) -> dict[str, Any]:
        """What a list shows of a file, by the names in ``Learnt.facts``."""
        ...


@dataclass(frozen=True, eq=False)
class Learnt:
    """What a method learns before it sees the model to prune.

    Attributes:
        kind: of the artifact.
        listed: what `metaprune list` calls these files, and ``about`` says of them.
        facts: what the list shows of each: a key of ``Files.facts`` → the column's title.
        made_by: the command that learns it.
        files: how they are found and opened; imports what it takes.
    """

    kind: str
    listed: str
    about: str
    facts: Mapping[str, str]
    made_by: str
    files: Callable[[], Files]


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the registry: all that the rest of the package knows of a method.

    Attributes:
        name: in a word; arms are called by it.
        about: what it does, in a line.
        noun: what it works with, for sentences: "Gain from the metanetwork".
        command: the subcommand that carries a proposal out; a lineage with this step has the method in its arm.
        proposes: what it may propose. With units among it, the command removes them itself; with widths, a search does.
        done: what the command did to a model, for sentences: "rewritten by the metanetwork".
        chosen: how the units that went were chosen, where that follows from it: "ranked as it says".
        criterion: the one that its scores are part of, and which ``auto`` is where they are known.
        learnt: what it learns beforehand; None: nothing.
        source: where the method is from.
        selfcheck: a module that says in a line, run as a program, whether its compiled code works here, and whose
            ``describe_compiler`` says by what; None: it has none.
    """

    name: str
    about: str
    noun: str
    command: str
    proposes: tuple[Part, ...]
    done: str
    chosen: str = ""
    criterion: Criterion | None = None
    learnt: Learnt | None = None
    source: str | None = None
    selfcheck: str | None = None

    @property
    def removes(self) -> bool:
        """Whether its command removes units."""
        return "units" in self.proposes
