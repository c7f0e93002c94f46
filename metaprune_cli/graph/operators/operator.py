"""What is known of one operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metaprune_cli.graph.operators.on_survivors import SurvivorRule
from metaprune_cli.graph.program.guards import Guard
from metaprune_cli.graph.program.rewriting import Rule as RewriteRule
from metaprune_cli.graph.trace.rules.zeros import ZeroRule
from metaprune_cli.graph.trace.tracer import Tracer

LabelRule = Callable[[Tracer, Any, tuple[Any, ...], dict[str, Any], Any], Any]
"""The labels of an operator's outputs, of the tracer, the operator, what it was given and what it made."""


@dataclass(frozen=True)
class Operator:
    """A row of the table; what is None follows from the operator's nature (see :func:`.registry.operator_of`).

    Attributes:
        labels: what happens to the neuron ids that meet it.
        keeps_zero: whether what it makes vanishes with its neurons' parameters; never, where nothing is said.
        rewrite: how its arguments follow when neurons are gone; they stay, where nothing is said.
        on_survivors: how it is computed where zeros are not absence; as it is, where nothing is said.
        guard: what checks its arguments in a program from a file; its own checks do, where nothing is said.
        in_programs: whether a program may call it; if it has a rule for labels, where nothing is said.
    """

    labels: LabelRule | None = None
    keeps_zero: ZeroRule | None = None
    rewrite: RewriteRule | None = None
    on_survivors: SurvivorRule | None = None
    guard: Guard | None = None
    in_programs: bool | None = None
