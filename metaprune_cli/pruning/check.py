"""Proof on the spot: the smaller network computes what the masked original computes."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.operators.on_survivors import NoReferenceError
from metaprune_cli.graph.operators.registry import guarded
from metaprune_cli.graph.slicing import alive_neurons, slice_tensors
from metaprune_cli.graph.trace.passes import batch_axis
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.pruning.copies import copy_in, random_tensors, silent_entries
from metaprune_cli.pruning.masking import mask_tensors
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.reference import reference_outputs

TOLERANCE = 1e-4
BATCH = 2
_REFUSALS = (RuntimeError, ValueError, AssertionError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What models raise that take no batches, none of these inputs, or another precision."""
How = Literal["masked", "survivors"]
Weights = Literal["own", "random"]
aten = torch.ops.aten


@dataclass(frozen=True)
class Check:
    """What the comparison found.

    Attributes:
        error: ‖small − reference‖ / ‖reference‖ over all outputs; None where there is no reference.
        comparable: whether there is a reference.
        reason: why there is none, or None.
        how: the reference is the original with zeros where units are gone ("masked"), or, where operators mix removed
            neurons with others, the same with these operators on the survivors alone ("survivors").
        weights: "own", or "random" where the model's own show little (a classifier of zeros, scales that are all
            one): then the original with random weights, sliced by the plan, was compared as well, and the larger
            error is given.
    """

    error: float | None
    comparable: bool
    reason: str | None
    how: How | None
    weights: Weights


def check(
    model: nn.Module,
    small: nn.Module,
    graph: NeuronGraph,
    plan: Plan | Tensor,
    example_inputs: ExampleInputs,
    *,
    training: bool = False,
    weights: Weights = "own",
) -> Check:
    """Compare the smaller network with the masked original, in double precision, on random inputs.

    A model that insists on single precision (``.float()`` in its forward) is compared in that.

    Args:
        model: the original; not changed.
        small: what ``apply_plan`` made of it; not changed.
        graph: the original's structure.
        plan: what stays, or the units themselves.
        example_inputs: of the right shapes, batch size 1; floating-point values are replaced by random ones.
        training: compare in training mode, on a batch of 2 where the model takes one, with nothing dropped.
        weights: "random" compares with random weights too, also where the model's own say enough.

    Raises:
        NumericsError: the two are comparable and differ by more than 1e-4 (relative), or are not finite, or the smaller
            one does not run.
    """
    kept = plan.kept if isinstance(plan, Plan) else plan

    def compared(batch: int, dtype: torch.dtype) -> Check:
        evaluation, train = ((mode, _random_like(example_inputs, n, dtype)) for mode, n in ((False, 1), (True, batch)))
        passes = (evaluation, train) if training else (evaluation,)
        return _compared(_Case(model, small, graph, kept, passes, dtype), weights)

    refused: Exception | None = None
    for dtype, batch in itertools.product((torch.float64, torch.float32), (BATCH, 1) if training else (1,)):
        try:
            return compared(batch, dtype)
        except _REFUSALS as error:
            refused = error
    said = f"{type(refused).__name__}: {refused}".splitlines()[0][:300]
    if _runs(model, _random_like(example_inputs, 1, torch.float32), training=training):
        raise NumericsError("The pruned model fails to run, although the original runs.", got=said)
    return Check(None, False, f"the model does not run on random inputs: {said}", None, "own")


def _runs(model: nn.Module, inputs: ExampleInputs, *, training: bool) -> bool:
    """Whether the model runs on these inputs in single precision."""
    try:
        _outputs(lambda: call(copy_in(torch.float32, model, dict(model.state_dict())).train(training), inputs))
    except _REFUSALS:
        return False
    return True


def _compared(case: _Case, weights: Weights) -> Check:
    """On the model's own weights, and on random ones where these are asked for or the own ones show little."""
    model, small, graph = case.model, case.small, case.graph
    tensors = dict(model.state_dict())
    own = _judged(_measure(case, tensors, small.state_dict()))
    found = Check(own.error, own.how is not None, own.reason, own.how, "own")
    if own.how is None or not (weights == "random" or not own.telling or silent_entries(graph, tensors)):
        return found
    drawn = random_tensors(graph, tensors)
    other = _measure(case, drawn, slice_tensors(graph.with_tensors(drawn), case.kept))
    if not other.telling:  # a logarithm of random values, say
        return found
    return replace(found, error=max(own.error or 0.0, _judged(other).error or 0.0), how=other.how, weights="random")


@dataclass(frozen=True, eq=False)
class _Case:
    """The two models, what stays, the passes (training mode, inputs), of which the last is compared, and in what."""

    model: nn.Module
    small: nn.Module
    graph: NeuronGraph
    kept: Tensor
    passes: tuple[tuple[bool, ExampleInputs], ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class _Measured:
    """The error against the reference ``how``, and whether that is finite and not constant; or why there is none."""

    error: float | None
    how: How | None = None
    telling: bool = False
    reason: str | None = None


def _measure(case: _Case, tensors: Mapping[str, Tensor], sliced: Mapping[str, Tensor]) -> _Measured:
    """Compare the original holding ``tensors`` with the small model holding ``sliced``.

    Of the large copies only one is alive at a time: small, masked, and masked again where operators mix neurons.
    """
    training, inputs = case.passes[-1]
    found = _outputs(lambda: call(copy_in(case.dtype, case.small, sliced).train(training), inputs))
    measured = _Measured(None)
    try:
        for how, expected in _references(case, tensors):
            measured = _Measured(_relative_error(found, expected), how, _tells(expected))
            if measured.error is not None and measured.error <= TOLERANCE:
                break
    except NoReferenceError as reason:
        if measured.error is None:
            return _Measured(None, reason=str(reason))
    if measured.error is not None and not measured.error <= TOLERANCE and _draws(case, tensors):
        which = "beside those of torch" if training else "in evaluation mode"
        return _Measured(None, reason=f"the model draws random numbers {which}")
    return measured


def _draws(case: _Case, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the original's outputs in evaluation mode depend on the seed; in training, on more than the seeds."""
    training, inputs = case.passes[-1]

    def run() -> Any:  # of a copy: training changes some models
        return call(copy_in(case.dtype, case.model, tensors).train(training), inputs)

    once, again = (_outputs(run, seed) for seed in (0, 0 if training else 1))
    return not _relative_error(once, again) <= TOLERANCE


def _references(case: _Case, tensors: Mapping[str, Tensor]) -> Iterator[tuple[How, list[Tensor]]]:
    """The masked original, unless removed neurons are mixed with others; then the one over survivors only.

    The second is asked for after a mismatch as well: a sum of sigmoids, say, has no span, and zeros count in it.
    """

    def masked() -> nn.Module:
        return copy_in(case.dtype, case.model, mask_tensors(case.graph, tensors, case.kept))

    training, inputs = case.passes[-1]
    stays = alive_neurons(case.graph, case.kept)
    if all(bool(stays[span.neurons].all()) for span in case.graph.spans):
        yield "masked", _outputs(lambda: call(masked().train(training), inputs))
    try:
        yield "survivors", _outputs(lambda: reference_outputs(masked(), case.graph, case.kept, case.passes))
    except _REFUSALS as error:  # the smaller model has run on the same inputs
        raise NoReferenceError(f"its operators do not run on the survivors alone: {error}"[:300]) from error


def _judged(measured: _Measured) -> _Measured:
    if measured.error is not None and not measured.error <= TOLERANCE:
        raise NumericsError(
            "The pruned model does not compute what the masked original computes.",
            expected=f"a relative error of at most {TOLERANCE:g}",
            got=f"{measured.error:.3g}",
            next_step="exclude the layers concerned (--ignore); `metaprune prune` does so by itself",
        )
    return measured


def _random_like(example_inputs: ExampleInputs, batch: int, dtype: torch.dtype) -> ExampleInputs:
    """Random values in place of the floating-point ones, ``batch`` times as many along the batch.

    Tensors nested deeper than the arguments themselves (a list of images) have no batch dimension; mappings in lists
    are annotations, whose values mean something (boxes), and stay.
    """
    generator = torch.Generator().manual_seed(0)

    def repeated_along(value: Tensor, batch: int) -> Tensor:
        axis = batch_axis(value, example_inputs)
        return value if axis is None else torch.cat([value] * batch, axis)

    def draw(value: Any, batch: int) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(draw(part, 1) for part in value)
        if isinstance(value, Mapping):
            return value  # as they are: some losses insist on a type
        if not isinstance(value, Tensor):
            return value
        if not value.is_floating_point():
            return repeated_along(value, batch)
        shape = repeated_along(value, batch).shape
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(value.device)

    def argument(value: Any) -> Any:
        return {k: draw(v, 1) for k, v in value.items()} if isinstance(value, dict) else draw(value, batch)

    if isinstance(example_inputs, dict):
        return {name: argument(value) for name, value in example_inputs.items()}
    if isinstance(example_inputs, tuple):
        return tuple(argument(value) for value in example_inputs)
    return cast(Tensor, draw(example_inputs, batch))


def _outputs(run: Callable[[], Any], seed: int = 0) -> list[Tensor]:
    with torch.no_grad(), _seeded(seed), _NothingDropped():  # type: ignore[no-untyped-call]
        return [tensor for tensor in leaves(run(), Tensor) if tensor.is_floating_point()]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw what torch, Python and NumPy draw from this seed, and afterwards as if nothing had been drawn."""
    numpy = sys.modules.get("numpy")  # who draws with it has imported it
    before = random.getstate(), numpy and numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random.seed(seed)
            if numpy:
                numpy.random.seed(seed)
            yield
    finally:
        random.setstate(before[0])
        if numpy:
            numpy.random.set_state(before[1])


class _NothingDropped(TorchDispatchMode):
    """Whatever is drawn to decide what to drop (dropout, stochastic depth) comes out as: keep it."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket is aten.bernoulli_:
            return args[0].fill_(1)
        if func.overloadpacket is aten.bernoulli:
            return torch.ones_like(args[0])
        if func.overloadpacket is aten.native_dropout:
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if func.namespace == "torchvision":  # its kernels read where random boxes tell them to
            func = guarded(func)
        return func(*args, **(kwargs or {}))


def _relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    shapes, wanted = [tuple(t.shape) for t in found], [tuple(t.shape) for t in expected]
    if shapes != wanted:
        raise NumericsError("The shapes of the pruned model's outputs have changed.", expected=wanted, got=shapes)
    if not expected:
        raise NoReferenceError("the model returns no floating-point numbers")
    difference = torch.stack([(f - e).norm() for f, e in zip(found, expected, strict=True)]).norm()
    size = torch.stack([e.norm() for e in expected]).norm()
    return float(difference / size) if difference else 0.0


def _tells(outputs: list[Tensor]) -> bool:
    """Whether the outputs are finite, and one of them has more than one value (a single number counts if not zero)."""
    varies = any(bool(t.any()) if t.numel() < 2 else bool(t.max() - t.min() > 1e-12 * t.abs().max()) for t in outputs)
    return varies and all(bool(t.isfinite().all()) for t in outputs)
