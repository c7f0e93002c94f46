"""Repair without training: what is left is fitted to what the whole model did, on a few hundred inputs.

Both models see the same inputs, once. The original's pass takes down, at some positions of every convolution and matrix
product, what came out. The smaller model's pass stops at each of them, in the order in which they run, and fits it to
the inputs that it really gets there, from layers that are repaired already:

    min over W', b'   ‖ X'W' + b' − Y ‖² + λ · trace(X'ᵀX') / k · ‖ W' − W_kept ‖²

X' are the smaller model's inputs of the layer, shape (rows, k), Y the original's outputs that are left, both centred
where a bias or a normalisation's mean takes up the difference. λ is the one that serves best on a quarter of the
inputs, held out; where none serves, the layer stays as it is.

Least squares on sampled positions are those of He et al. (arXiv 1707.06168, section 3.1). In the order of the pass,
held to the weights that are there, for any network of these operators, is ours.

The last layer that adds to a sum, as to a residual connection, is fitted to the sum instead: Y is then what the sum was
in the original less what the other summands are now, so that it also makes up for what they have lost (He et al.,
section 3.2, do so for residual branches).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.config import Repair
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.slicing import masks
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.metrics.calling import call, laid_out
from metaprune_cli.pruning.calls import Call, Calls, seen_whole
from metaprune_cli.pruning.masking import mask_tensors
from metaprune_cli.pruning.ridge import Fit, fitted
from metaprune_cli.pruning.sums import Sums, Term

ROWS_PER_UNKNOWN = 4
LEAST_ROWS, USUAL_ROWS = 4096, 16384
MOST_NUMBERS = 2**22
"""Outputs of a layer that are kept beyond what its unknowns ask for: 16 MB in single precision."""
LEAST_FACTOR = 1e-6
"""A layer whose output is multiplied by less than this until it is added to a sum cannot make up for the sum."""
NOTHING_LOST = 1e-6
"""Relative error below which a layer is left as it is."""

HELD_OUT = 4  # every fourth input chooses λ

Key = tuple[str, int]
"""A parameter, and which of its parts in the order of their first use: packed projections are used part by part."""


@dataclass(frozen=True)
class RepairedLayer:
    """What was done to one weight.

    ``before`` and ``after`` are ‖X'W' + b' − Y‖ / ‖Y − mean Y‖, the layer's error on the inputs that it gets; None
    where nothing was done, for which ``reason`` says why.
    """

    param: str
    before: float | None = None
    after: float | None = None
    reason: str | None = None


def repaired(
    small: nn.Module,
    model: nn.Module,
    graph: NeuronGraph,
    kept: Bool[Tensor, " units"],
    inputs: ExampleInputs | None,
    how: Repair,
    *,
    seed: int = 0,
    original: Original | None = None,
) -> tuple[nn.Module, tuple[RepairedLayer, ...]]:
    """A copy of ``small`` whose layers do what they did in ``model``, as far as what is left of them can.

    Args:
        small: what is left of the model, of its class or its program; not changed.
        model: the original; not changed.
        graph: its structure.
        kept: which units stay.
        inputs: a few hundred at once, on the models' device; the activations of a pass over all of them must fit. Only
            ``none`` needs no inputs.
        how: ``none``: nothing; ``bn``: running statistics are measured anew; ``bias``: and every bias takes up the mean
            that is lost; ``least-squares``: every weight is fitted, with its bias or the running mean after it.
        seed: of the positions that are looked at.
        original: what the model did on these inputs, if it is known already (:meth:`Original.of`).

    Returns:
        The repaired model, and what was done to each weight that meets activations (nothing is said of ``bn``).

    Raises:
        InputError: there are no inputs.
        NumericsError: an activation is not finite; names the layer.
    """
    if how == "none":
        return small, ()
    if inputs is None:
        raise InputError(
            f"The repair {how} needs inputs.",
            expected="a few hundred images",
            got="none",
            next_step="give --dataset and --data-root (in Python: repair_inputs), or --repair none",
        )
    if original is None:
        original = Original(torch.Generator()) if how == "bn" else Original.of(model, inputs, seed)
    small = copied(small)
    samples = _samples(inputs)
    names = {buffer.data_ptr(): name for name, buffer in small.named_buffers()}
    fitting = _Fitting(original, masks(graph, kept), how == "least-squares", samples, _normalised(graph), names)
    inputs = laid_out(small, inputs)  # asks the model, and nobody is to watch
    with seen_whole(small), Sums(small.named_parameters(), fitting.seen, fitting.added, fitting.statistics):
        call(small, inputs)
    weights = dict.fromkeys(block.param for block in graph.blocks) if how != "bn" else {}
    return small, tuple(fitting.done.get(name) or _left_alone(name, original) for name in weights)


@torch.no_grad()
def repaired_weights(
    run: Callable[[Mapping[str, Tensor]], object],
    graph: NeuronGraph,
    weights: Mapping[str, Tensor],
    kept: Bool[Tensor, " units"],
) -> dict[str, Tensor]:
    """Masked weights after least squares, all shapes as they were: what a step of meta-training looks ahead to.

    Args:
        run: calls the network with these weights, on some inputs.
        graph: its structure.
        weights: by entry; constants here.
        kept: which units stay.
    """
    original = Original(torch.Generator().manual_seed(0), most_rows=1024)
    whole = {name: tensor.detach() for name, tensor in weights.items()}
    with Calls(whole.items(), original.seen):
        run(whole)
    masked = {name: tensor.clone() for name, tensor in mask_tensors(graph, whole, kept).items()}
    fitting = _Fitting(
        original, masks(graph, kept), weights=True, samples=0, normalised=_normalised(graph), names={}, sliced=False
    )
    with Calls(masked.items(), fitting.seen):
        run(masked)
    return mask_tensors(graph, masked, kept)


@torch.no_grad()
def outputs_without(
    masked: nn.Module,
    graph: NeuronGraph,
    kept: Bool[Tensor, " units"],
    inputs: ExampleInputs,
    original: Original,
) -> Any:
    """What a model returns without some units, when its layers are fitted as in :func:`repaired`.

    Args:
        masked: the model with zeros where units are gone (``masking.masked_copy``); its weights change.
        graph: the whole model's.
        kept: which units stay.
        inputs: as in :func:`repaired`.
        original: what the whole model did on them.

    Raises:
        NumericsError: an activation is not finite; names the layer.
    """
    names = {buffer.data_ptr(): name for name, buffer in masked.named_buffers()}
    rest: dict[str, Any] = {"normalised": _normalised(graph), "names": names, "sliced": False}
    fitting = _Fitting(original, masks(graph, kept), weights=True, samples=_samples(inputs), **rest)
    inputs = laid_out(masked, inputs)
    with seen_whole(masked), Sums(masked.named_parameters(), fitting.seen, fitting.added, fitting.statistics):
        return call(masked, inputs)


def _samples(inputs: ExampleInputs) -> int:
    return next((tensor.size(0) for tensor in pytree.tree_leaves(inputs) if isinstance(tensor, Tensor)), 1)


@dataclass(frozen=True, eq=False)
class _Target:
    """What is wanted of one layer at ``rows``, and the call (without its activations).

    Attributes:
        rows: which of the layer's outputs.
        outputs: what they were in the original, or what the sum was to which the layer is the last to add.
        made: the call.
        stage: of the sum (see ``Term.stage``); 0: the layer's own outputs.
    """

    rows: Int[Tensor, " rows"]
    outputs: Float[Tensor, "rows out"]
    made: Call
    stage: int = 0

    def left(self, mask: Bool[Tensor, ...]) -> Bool[Tensor, " out"]:
        """Which of the outputs are left, by what is left of the parameter."""
        return self.made.part_of(mask).any(1).flatten().to(self.outputs.device)


@dataclass(eq=False)
class _Parts:
    """Gives every part of every parameter its key."""

    offsets: dict[str, list[int]] = field(default_factory=dict)

    def key(self, made: Call) -> Key:
        offsets, own = self.offsets.setdefault(made.param, []), int(made.weight.storage_offset())
        if own not in offsets:
            offsets.append(own)
        return made.param, offsets.index(own)


@dataclass(eq=False)
class Original:
    """What the layers of the whole model gave at some positions: taken down once, for any number of smaller models."""

    generator: torch.Generator
    most_rows: int | None = None
    usual_rows: int = USUAL_ROWS
    targets: dict[Key, _Target] = field(default_factory=dict)
    repeated: set[Key] = field(default_factory=set)
    parts: _Parts = field(default_factory=_Parts)
    _met: list[tuple[int, _Target]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        inputs: ExampleInputs,
        seed: int = 0,
        most_rows: int | None = None,
        usual_rows: int = USUAL_ROWS,
    ) -> Original:
        """One pass over the inputs, at ``most_rows`` positions of each layer, or else ``usual_rows`` (see ``seen``)."""
        original = cls(torch.Generator().manual_seed(seed), most_rows, usual_rows)
        inputs = laid_out(model, inputs)
        sums = Sums(model.named_parameters(), original.seen, original.added)
        with seen_whole(model), sums:
            call(model, inputs)
        original.settle(sums.shared)
        return original

    def seen(self, made: Call) -> bool:
        """Take down what comes out of one layer; nothing is changed."""
        key = self.parts.key(made)
        if key in self.targets:
            self.repeated.add(key)
            return False
        unknowns = made.matrix().size(1)
        features = made.out.numel() // max(made.num_rows, 1)
        enough = max(min(self.usual_rows, MOST_NUMBERS // max(features, 1)), LEAST_ROWS, ROWS_PER_UNKNOWN * unknowns)
        wanted = min(made.num_rows, self.most_rows or enough)
        rows = torch.randperm(made.num_rows, generator=self.generator)[:wanted].to(made.out.device)
        nothing = torch.empty(0)
        self.targets[key] = _Target(rows, made.outputs(rows), replace(made, x=nothing, out=nothing))
        return False

    def added(self, term: Term, total: Tensor) -> None:
        """Take down what a sum is that a layer is the last to add to."""
        target = self.targets[self.parts.key(term.made)]
        self._met.append((term.number, replace(target, outputs=term.rows(total, target.rows), stage=term.stage)))

    def settle(self, shared: Mapping[int, int]) -> None:
        """Want of every layer the last sum before which nothing else has seen its outputs."""
        for number, target in self._met:
            if target.stage <= shared.get(number, target.stage):
                self.targets[self.parts.key(target.made)] = target
        self._met.clear()


@dataclass(eq=False)
class _Fitting:
    """Fits the layers of the smaller model one after the other, while it runs."""

    original: Original
    masks: Mapping[str, Tensor]
    weights: bool
    samples: int
    normalised: Mapping[str, str]
    names: Mapping[int, str]
    sliced: bool = True
    shifts: dict[str, Tensor] = field(default_factory=dict)
    done: dict[str, RepairedLayer] = field(default_factory=dict)
    parts: _Parts = field(default_factory=_Parts)

    def seen(self, made: Call) -> bool:
        key = self.parts.key(made)
        target = self.original.targets.get(key)
        if target is None or key in self.original.repeated or not (self.weights or made.bias is not None):
            return False
        if target.stage:
            return False  # its turn comes with the sum
        centred = made.bias is not None or made.param in self.normalised
        fit = self._fit(made, target, made.outputs(target.rows), centred=centred)
        if fit is None:
            return False
        if self.weights:
            made.add_(fit.change)
        if made.bias is not None:
            made.bias.add_(fit.shift.flatten().to(made.bias))
        elif made.param in self.normalised:
            self.shifts[self.normalised[made.param]] = fit.shift.flatten()
        return True

    def added(self, term: Term, total: Tensor) -> None:
        """Fit the last layer that adds to a sum so that the sum is what it was; what others lost goes with it."""
        made = term.made
        key = self.parts.key(made)
        target = self.original.targets.get(key)
        fits = self.weights or made.bias is not None
        if target is None or target.stage != term.stage or key in self.original.repeated or not fits:
            return
        fit = self._fit(made, target, term.rows(total, target.rows), centred=term.takes_shift)
        if fit is None:
            return
        by = term.factor.double().where(term.factor.abs() > LEAST_FACTOR, torch.inf)
        change, shift = fit.change / by.view(len(fit.shift), 1, -1), fit.shift.flatten() / by
        term.add_to_(total, change if self.weights else None, shift)
        if self.weights:
            made.add_(change)
        term.shift_(shift)

    def _fit(self, made: Call, target: _Target, got: Tensor, *, centred: bool) -> Fit | None:
        """What a layer has to do besides, if that helps; ``centred``: it can add a constant."""
        wanted, mask = target.outputs, self.masks.get(made.param)
        left = None if mask is None else target.left(mask)
        if left is not None and self.sliced:
            wanted = wanted[:, left]
        missing = wanted - got
        if left is not None and not self.sliced:
            missing = missing * left
        scale = float((wanted - wanted.mean(0)).norm()) or 1.0
        before = float(missing.norm()) / scale
        if not math.isfinite(before):
            raise NumericsError(
                "An activation is not finite, so the layer cannot be repaired.",
                where=made.param,
                next_step="look for NaN or infinity in the model's weights",
            )
        if before < NOTHING_LOST:
            self.done[made.param] = RepairedLayer(made.param, reason="nothing was lost")
            return None
        x = made.inputs(target.rows) if self.weights else missing.new_zeros(1, len(missing), 0)
        y = missing.view(len(missing), x.size(0), -1).transpose(0, 1)
        fit = fitted(x, y, self._held_out(made, target.rows), centred=centred)
        why = "no fit would help on other inputs" if fit is None else None
        self.done[made.param] = RepairedLayer(made.param, before, before if fit is None else fit.missing / scale, why)
        return fit

    def _held_out(self, made: Call, rows: Tensor) -> Tensor:
        """The rows of every fourth sample; none where their number is not known."""
        if not self.samples:
            return torch.zeros_like(rows, dtype=torch.bool)
        return rows.div(max(made.num_rows // self.samples, 1), rounding_mode="floor") % HELD_OUT == 0

    def statistics(self, x: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Measure running statistics anew; after least squares, only shift the means of what was fitted.

        What a fit cannot explain it leaves out, so its outputs vary less than the original's did. To normalise by their
        own variance would blow up what it got wrong (on digits at 6×: 90.9 % instead of 92.7 %).
        """
        if not self.weights:
            dims = [d for d in range(x.dim()) if d != 1]
            variance.copy_(x.var(dims))
            mean.copy_(x.mean(dims))
            return
        shift = self.shifts.get(self.names.get(mean.data_ptr(), ""))
        if shift is not None:
            mean.sub_(shift.to(mean))


def _left_alone(param: str, original: Original) -> RepairedLayer:
    if any(name == param for name, _ in original.repeated):
        return RepairedLayer(param, reason="it is used more than once")
    if any(name == param for name, _ in original.targets):
        return RepairedLayer(param, reason="it has no bias")
    return RepairedLayer(param, reason="no convolution or matrix product uses it as it is")


def _normalised(graph: NeuronGraph) -> dict[str, str]:
    """Weights whose outputs meet a running mean right away, and its name: it takes up what a bias would."""
    means = {tuple(f.neurons.tolist()): f.name for f in graph.features if f.kind == "mean"}
    found = {block.param: means.get(tuple(block.destinations.flatten().tolist())) for block in graph.blocks}
    return {param: name for param, name in found.items() if name is not None}
