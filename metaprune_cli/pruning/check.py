"""Proof on the spot: the smaller network computes what the masked original computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.slicing import alive_neurons, slice_tensors
from metaprune_cli.graph.trace import ExampleInputs, call
from metaprune_cli.pruning.copies import double_copy, random_tensors, silent_entries
from metaprune_cli.pruning.masking import mask_tensors
from metaprune_cli.pruning.plan import Plan
from metaprune_cli.pruning.reference import NoReferenceError, reference_outputs

TOLERANCE = 1e-4
BATCH = 4
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
    plan: Plan,
    example_inputs: ExampleInputs,
    *,
    training: bool = False,
    weights: Weights = "own",
) -> Check:
    """Compare the smaller network with the masked original, in double precision, on random inputs.

    Args:
        model: the original; not changed.
        small: what ``apply_plan`` made of it; not changed.
        graph: the original's structure.
        plan: what stays.
        example_inputs: of the right shapes, batch size 1; floating-point values are replaced by random ones.
        training: compare in training mode, on a batch of 4, with nothing dropped; otherwise in eval mode.
        weights: "random" compares with random weights too, also where the model's own say enough.

    Raises:
        NumericsError: the two are comparable and differ by more than 1e-4 (relative), or are not finite.
    """
    compare = partial(_compare, (model, small), graph, plan, example_inputs, training)
    tensors = dict(model.state_dict())
    found, constant = compare(tensors, small.state_dict())
    if not found.comparable or not (weights == "random" or constant or silent_entries(graph, tensors)):
        return found
    drawn = random_tensors(graph, tensors)
    other, _ = compare(drawn, slice_tensors(graph.with_tensors(drawn), plan.kept))
    error = None if other.error is None or found.error is None else max(other.error, found.error)
    return dataclasses.replace(other, error=error, weights="random")


def _compare(
    models: tuple[nn.Module, nn.Module],
    graph: NeuronGraph,
    plan: Plan,
    example_inputs: ExampleInputs,
    training: bool,
    tensors: Mapping[str, Tensor],
    sliced: Mapping[str, Tensor],
) -> tuple[Check, bool]:
    """The comparison for one set of weights, and whether the reference is constant, which would say nothing.

    The large copies live one after the other: small, masked, and masked again where operators mix neurons.
    """
    model, small = models
    evaluated, inputs = _random_like(example_inputs, 1), _random_like(example_inputs, BATCH if training else 1)
    found = _outputs(lambda: call(double_copy(small, sliced).train(training), inputs))

    def masked() -> nn.Module:
        return double_copy(model, mask_tensors(graph, tensors, plan.kept))

    error, expected, how = None, [], None
    if not _mixes(graph, plan):
        expected, how = _outputs(lambda: call(masked().train(training), inputs)), "masked"
        error = _relative_error(found, expected)
    if error is None or not error <= TOLERANCE:  # zeros may differ from absence without a span: a sum of sigmoids
        passes = [(False, evaluated), (True, inputs)] if training else [(False, evaluated)]
        try:
            expected = _outputs(lambda: reference_outputs(masked(), graph, plan.kept, passes))
            error, how = _relative_error(found, expected), "survivors"
        except NoReferenceError as reason:
            if error is None:
                return Check(None, comparable=False, reason=str(reason), how=None, weights="own"), False
    if not error <= TOLERANCE:
        raise NumericsError(
            "The pruned model does not compute what the masked original computes.",
            expected=f"a relative error of at most {TOLERANCE:g}",
            got=f"{error:.3g}",
            next_step="please report the architecture; a model with random parts in eval mode cannot be compared",
        )
    return Check(error, comparable=True, reason=None, how=how, weights="own"), all(map(_is_constant, expected))


def _mixes(graph: NeuronGraph, plan: Plan) -> bool:
    """Whether an operator mixes neurons of which some stay and some go."""
    stays = alive_neurons(graph, plan.kept)
    return not all(bool(stays[span.neurons].all()) for span in graph.spans)


def _random_like(example_inputs: ExampleInputs, batch: int) -> ExampleInputs:
    """Random values in place of the floating-point ones, ``batch`` times as many along the first dimension."""
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: Tensor) -> Tensor:
        shape = (tensor.size(0) * batch, *tensor.shape[1:]) if tensor.dim() else ()
        if not tensor.is_floating_point():
            return tensor if batch == 1 or not shape else torch.cat([tensor] * batch)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(tensor.device)

    return tree_map_only(Tensor, draw, example_inputs)  # type: ignore[no-any-return]


def _outputs(run: Callable[[], Any]) -> list[Tensor]:
    with torch.no_grad(), torch.random.fork_rng(), _NothingDropped():
        torch.manual_seed(0)
        return list(_floats(run()))


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
        return func(*args, **(kwargs or {}))


def _floats(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of an output: a tensor, or any nest of sequences, mappings and dataclasses."""
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif dataclasses.is_dataclass(output):
        yield from _floats([getattr(output, field.name) for field in dataclasses.fields(output)])
    elif isinstance(output, Mapping):
        yield from _floats(list(output.values()))
    elif isinstance(output, list | tuple):
        for part in output:
            yield from _floats(part)


def _relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    shapes, wanted = [tuple(t.shape) for t in found], [tuple(t.shape) for t in expected]
    if shapes != wanted:
        raise NumericsError("The pruned model's outputs have other shapes.", expected=wanted, got=shapes)
    difference = torch.stack([(f - e).norm() for f, e in zip(found, expected, strict=True)]).norm()
    size = torch.stack([e.norm() for e in expected]).norm()
    return float(difference / size) if difference else 0.0


def _is_constant(output: Tensor) -> bool:
    """Whether an output has but one value; a single number counts where it is zero."""
    if output.numel() < 2:
        return not bool(output.any())
    return bool(output.max() - output.min() <= 1e-12 * output.abs().max())
