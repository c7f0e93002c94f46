"""Proof on the spot: the smaller network computes what the masked original computes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.trace import ExampleInputs, call
from metaprune_cli.pruning.masking import masked_copy
from metaprune_cli.pruning.plan import Plan

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """What the comparison found.

    Attributes:
        error: ‖small − masked‖ / ‖masked‖ over all outputs; None where the two are not comparable.
        comparable: whether zeros and absence mean the same to every operator of the network.
        reason: why not, or None.
    """

    error: float | None
    comparable: bool
    reason: str | None


def check(model: nn.Module, small: nn.Module, graph: NeuronGraph, plan: Plan, example_inputs: ExampleInputs) -> Check:
    """Compare the smaller network with the masked original, in double precision, in eval mode, on random inputs.

    Args:
        model: the original; not changed.
        small: what ``apply_plan`` made of it; not changed.
        graph: the original's structure.
        plan: what stays.
        example_inputs: of the right shapes, batch size 1; floating-point values are replaced by random ones.

    Raises:
        NumericsError: the two are comparable and differ by more than 1e-4 (relative), or are not finite.
    """
    inputs = _random_like(example_inputs)
    found = _outputs(small, inputs)
    mixing = _partly_removed_spans(graph, plan)
    if mixing:
        return Check(None, comparable=False, reason=f"removed neurons take part in {', '.join(mixing)}")
    expected = _outputs(masked_copy(model, graph, plan.kept), inputs)
    error = _relative_error(found, expected)
    if not error <= TOLERANCE:
        raise NumericsError(
            "The pruned model does not compute what the masked original computes.",
            expected=f"a relative error of at most {TOLERANCE:g}",
            got=f"{error:.3g}",
            next_step="please report the architecture; a model with random parts in eval mode cannot be compared",
        )
    return Check(error, comparable=True, reason=None)


def _partly_removed_spans(graph: NeuronGraph, plan: Plan) -> list[str]:
    """Operators that mix neurons of which some stay and some go."""
    stays = graph.units.alive(plan.kept)
    return sorted({span.operator for span in graph.spans if not bool(stays[span.neurons].all())})


def _random_like(example_inputs: ExampleInputs) -> ExampleInputs:
    generator = torch.Generator().manual_seed(0)

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)

    return tree_map_only(Tensor, draw, example_inputs)  # type: ignore[no-any-return]


def _outputs(model: nn.Module, inputs: ExampleInputs) -> list[Tensor]:
    with torch.no_grad():
        return list(_floats(call(copy.deepcopy(model).double().eval(), inputs)))


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
