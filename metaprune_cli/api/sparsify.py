"""Zeroing weights in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from torch import nn

from metaprune_cli.config import ZeroKind, ZeroScope
from metaprune_cli.config_loader import did_you_mean, n_of_m, rows_by_columns
from metaprune_cli.errors import InputError
from metaprune_cli.graph.encode import encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.metrics.calling import takes_model
from metaprune_cli.pruning.listing import listing
from metaprune_cli.pruning.sparsity import Zeroing, ZeroPlan, make_zero_plan, zeroed_copy


@dataclass(frozen=True, eq=False)
class Sparsified:
    """A model with zeros, all shapes as they were, and the plan that says where.

    Attributes:
        model: the model.
        plan: which weights stay.
    """

    model: nn.Module
    plan: ZeroPlan

    @property
    def zeros(self) -> tuple[str, ...]:
        """The state-dict entries whose exact zeros are meant to stay, for ``finetune``."""
        return tuple(self.plan.masks)

    @property
    def report(self) -> dict[str, Any]:
        """The plan as plain values, for JSON."""
        return self.plan.to_document()

    def __repr__(self) -> str:
        plan = self.plan
        shape = "" if plan.asked.shape is None else f" {plan.asked.shape}"
        rows = [(layer.name, layer.weights, layer.kept) for layer in plan.layers if layer.weights]
        table = listing(rows, {"weights": (plan.weights, plan.kept)})
        return f"Sparsified: {plan.asked.kind}{shape}, {plan.sparsity:.1%} of the weights are zero\n{table}"


@takes_model
def sparsify(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    kind: ZeroKind = "unstructured",
    sparsity: float = Zeroing.sparsity,
    pattern: str = "2:4",
    block: str = "4x1",
    scope: ZeroScope = "global",
    classifier: bool = False,
    first: bool = True,
    kernel_only: bool = False,
    graph: NeuronGraph | None = None,
) -> Sparsified:
    """Set the weights of smallest magnitude to zero, in a copy of ``model``.

    Args:
        model: the network; not changed.
        example_inputs: a tensor, or a tuple or dict of them, batch size 1.
        kind: single weights (``unstructured``), all but N of every M (``n:m``), or whole tiles (``block``).
        sparsity: the fraction that goes, of ``unstructured`` and ``block``.
        pattern: N:M, of ``n:m``.
        block: outputs x inputs, of ``block``.
        scope: one threshold for all layers, or the same fraction of each (``family``).
        classifier: whether the layers whose outputs are the model's are zeroed too.
        first: whether the layers whose inputs are the model's are.
        kernel_only: of 2:4: only what PyTorch's kernels take.
        graph: the model's graph if it is known already; its structure is used, the weights are the model's.

    Raises:
        TargetError: there is nothing to zero.
        InputError: a setting cannot be used, or the model cannot be traced.
        NumericsError: a weight is not finite; names the entry.
    """
    _check_choices(kind=(kind, get_args(ZeroKind)), scope=(scope, get_args(ZeroScope)))
    if not 0 < sparsity < 1:
        raise InputError(
            "This is not a valid sparsity.", expected="above 0 and below 1", got=sparsity, where="sparsity"
        )
    asked = Zeroing(
        kind,
        sparsity=sparsity,
        pattern=n_of_m(pattern, where="pattern"),
        tile=rows_by_columns(block, where="block"),
        scope=scope,
        classifier=classifier,
        first=first,
        kernel_only=kernel_only,
    )
    if kernel_only and asked.pattern != (2, 4):
        raise InputError("PyTorch only has kernels for 2:4.", expected="2:4", got=pattern, where="pattern")
    plan = make_zero_plan(graph or encode(model, example_inputs), model.state_dict(), asked)
    return Sparsified(zeroed_copy(model, plan.masks), plan)


def _check_choices(**given: tuple[str, tuple[str, ...]]) -> None:
    """Refuse values that are not among their literals: from Python, nothing has checked them yet."""
    wrong = {name: (value, known) for name, (value, known) in given.items() if value not in known}
    if wrong:
        raise InputError(
            f"Unknown {' and '.join(wrong)}.",
            expected="\n".join(f"{name}: {', '.join(known)}" for name, (_, known) in wrong.items()),
            got="\n".join(f"{value!r}{did_you_mean(str(value), known)}" for value, known in wrong.values()),
        )
